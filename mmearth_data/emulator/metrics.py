"""Counters of what the emulator has answered, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter


class Metrics:
    """Requests, seconds and bytes by kind and status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, float] = {}
        self._bytes: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    def count(self, kind: str, status: int, seconds: float, sent: int, fault: str) -> None:
        """One answered request."""
        with self._lock:
            self._requests[kind, status] += 1
            self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds
            self._bytes[kind] += sent
            if fault:
                self._faults[fault] += 1

    def text(self, busy: int) -> str:
        """All counters, and how many requests are being computed."""
        with self._lock:
            lines = [f'emulator_requests_total{{kind="{k}",status="{s}"}} {n}' for (k, s), n in self._requests.items()]
            lines += [f'emulator_seconds_total{{kind="{kind}"}} {value:.6f}' for kind, value in self._seconds.items()]
            lines += [f'emulator_bytes_total{{kind="{kind}"}} {value}' for kind, value in self._bytes.items()]
            lines += [f'emulator_faults_total{{fault="{fault}"}} {value}' for fault, value in self._faults.items()]
        return "\n".join([*sorted(lines), f"emulator_computing {busy}", ""])
