"""What clients asked for lately: a bounded ring of requests, and counts since the start."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from mmearth_data.emulator.requestlog import Entry

PAGE = "page"
"""The kind of the page's own requests, which are logged but not shown on it."""
_KEPT = 200


class Activity:
    """The latest requests, newest first, and how many there were in all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring: deque[Entry] = deque(maxlen=_KEPT)
        self._answered = self._refused = self._failed = 0

    def note(self, entry: Entry) -> None:
        """Keep an answered request; the page's own are left out."""
        if entry.kind == PAGE:
            return
        with self._lock:
            self._ring.append(entry)
            self._answered += 1
            self._refused += entry.status == 429
            self._failed += entry.status >= 400 and entry.status != 429

    def summary(self) -> dict[str, Any]:
        """Counts, and time, kind, status, ms, bytes, client and fault of the requests that are kept."""
        with self._lock:
            ring, counts = list(self._ring), (self._answered, self._refused, self._failed)
        shown = ("time", "kind", "status", "ms", "bytes", "client", "fault")
        return {
            **dict(zip(("requests", "refused", "failed"), counts, strict=True)),
            "recent": [{name: getattr(entry, name) for name in shown} for entry in reversed(ring)],
        }
