"""Injected failures: statuses, dropped connections, truncated answers and garbage, drawn from a seed.

Whether a request fails depends on the seed, on its body and on how often that body was sent before, never on the
order in which threads arrive: a run can be repeated, and a retry is a fresh draw.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass

from mmearth_data.emulator.errors import EmulatorError

STATUSES = ("429", "500", "502", "503")
KINDS = (*STATUSES, "drop", "truncate", "garbage")


@dataclass(frozen=True)
class FaultRates:
    """The probability of each kind of fault, and the seed."""

    rates: tuple[tuple[str, float], ...] = ()
    seed: int = 0


def parse(text: str) -> FaultRates:
    """The faults of a list such as ``429=0.05,drop=0.01,seed=7``; EmulatorError says what is wrong with it."""
    rates: dict[str, float] = {}
    seed = 0
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, number = part.partition("=")
        try:
            if name == "seed":
                seed = int(number)
                continue
            rate = float(number)
        except ValueError:
            raise EmulatorError(
                f"--faults: {part!r} is not NAME=NUMBER; write e.g. 429=0.05,drop=0.01,seed=7"
            ) from None
        if name not in KINDS:
            raise EmulatorError(f"--faults: unknown fault {name!r}; choose from: {', '.join(KINDS)}, seed")
        if not 0 <= rate <= 1:
            raise EmulatorError(f"--faults: {part!r} is no probability; use a number from 0 to 1")
        rates[name] = rate
    if sum(rates.values()) > 1:
        raise EmulatorError(f"--faults: the rates sum to {sum(rates.values()):g}; they must sum to 1 at most")
    return FaultRates(tuple(rates.items()), seed)


class Faults:
    """Draws the fault of each request."""

    def __init__(self, rates: FaultRates) -> None:
        self._rates = rates
        self._seen: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def draw(self, body: bytes) -> str | None:
        """The kind of fault that this sending of ``body`` meets, if any."""
        if not self._rates.rates:
            return None
        digest = hashlib.blake2b(body, digest_size=16).digest()
        with self._lock:
            attempt = self._seen[digest]
            self._seen[digest] += 1
        key = f"{self._rates.seed}:{attempt}:".encode() + digest
        chance = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
        for kind, rate in self._rates.rates:
            if chance < rate:
                return kind
            chance -= rate
        return None
