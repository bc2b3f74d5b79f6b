"""Injected failures: statuses, dropped and stalled connections, truncated answers and garbage, drawn; and outages.

Whether a request fails depends on the seed, on its body and on how often that body was sent before, never on the
order in which threads arrive: a run can be repeated, and a retry is a fresh draw.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist

from mmearth_data.emulator.errors import EmulatorError, ServiceError

STATUSES = ("401", "429", "500", "502", "503")
"""401 is an access token that has expired: the client fetches another one and tries again."""
KINDS = (*STATUSES, "drop", "stall", "truncate", "garbage")
STALL_SECONDS = 60.0
"""How long a stalled connection says nothing before it drops, unless stall_seconds is given."""
OUTAGES: dict[str, tuple[int, str]] = {
    "credentials": (
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential.",
    ),
    "permission": (403, "Caller does not have required permission to use project."),
    "unregistered": (403, "Project is not registered to use Earth Engine."),
    "spent": (
        429,
        "Quota exceeded for quota metric 'Earth Engine compute time' and limit 'EECU-hours per month' of service "
        "'earthengine.googleapis.com'.",
    ),
}
"""Status and message of what a service refuses for good; the words of "spent" follow those of Google's other APIs."""


@dataclass(frozen=True)
class FaultRates:
    """The probability of each kind of fault, the seed, and how many requests pass before each outage begins."""

    rates: tuple[tuple[str, float], ...] = ()
    seed: int = 0
    outages: tuple[tuple[str, int], ...] = ()
    stall_seconds: float = STALL_SECONDS


def parse(text: str) -> FaultRates:
    """The faults of a list such as ``429=0.05,spent@300,seed=7``; EmulatorError says what is wrong with it."""
    rates: dict[str, float] = {}
    outages: dict[str, int] = {}
    seed, stall = 0, STALL_SECONDS
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, number = part.partition("@")
        if name in OUTAGES and number.isdigit():
            outages[name] = int(number)
            continue
        name, _, number = part.partition("=")
        try:
            if name == "seed":
                seed = int(number)
                continue
            rate = float(number)
            if name == "stall_seconds" and 0 <= rate < 3600:
                stall = rate
                continue
        except ValueError:
            raise EmulatorError(
                f"--faults: {part!r} is not NAME=NUMBER or OUTAGE@NUMBER; write e.g. 429=0.05,spent@300,seed=7"
            ) from None
        if name not in KINDS:
            known = ", ".join((*KINDS, "seed", "stall_seconds", *(f"{outage}@N" for outage in OUTAGES)))
            raise EmulatorError(f"--faults: unknown fault {name!r}; choose from: {known}")
        if not 0 <= rate <= 1:
            raise EmulatorError(f"--faults: {part!r} is no probability; use a number from 0 to 1")
        rates[name] = rate
    if sum(rates.values()) > 1:
        raise EmulatorError(f"--faults: the rates sum to {sum(rates.values()):g}; they must sum to 1 at most")
    return FaultRates(tuple(rates.items()), seed, tuple(outages.items()), stall)


class Faults:
    """Draws the fault of each request."""

    def __init__(self, rates: FaultRates) -> None:
        self._rates = rates
        self._seen: Counter[bytes] = Counter()
        self._passed = 0
        self._lock = threading.Lock()

    def check_outage(self) -> None:
        """Count a request that needs an account; raises ServiceError where an outage refuses it."""
        with self._lock:
            passed, self._passed = self._passed, self._passed + 1
        for kind, passes in self._rates.outages:
            if passed >= passes:
                code, message = OUTAGES[kind]
                raise ServiceError(message, code)

    @property
    def stall_seconds(self) -> float:
        """How long a stalled connection says nothing."""
        return self._rates.stall_seconds

    def stretch(self, body: bytes, spread: float) -> float:
        """By how much a request takes longer than the median: log-normal, drawn from seed and body alone."""
        digest = hashlib.blake2b(f"{self._rates.seed}:".encode() + body, digest_size=8).digest()
        part = (int.from_bytes(digest, "big") + 0.5) / 2**64
        return math.exp(spread * NormalDist().inv_cdf(min(max(part, 1e-9), 1 - 1e-9)))

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
