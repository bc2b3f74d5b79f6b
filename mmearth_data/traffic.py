"""Counting what goes over the wire: requests by kind, those among them that repeat another one, and bytes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Count:
    """Requests of one kind: sent in all, ``repeated`` among them; bytes of what was asked and of what arrived.

    ``bytes_received`` counts bodies as they are used, after any compression of the connection is undone.
    """

    sent: int = 0
    repeated: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def __add__(self, other: Count) -> Count:
        mine, theirs = asdict(self), asdict(other)
        return Count(**{name: value + theirs[name] for name, value in mine.items()})


Traffic = Mapping[str, Count]
"""Counts by kind of request: the verb of Earth Engine's REST interface (``computePixels``), or what is fetched."""


def kind_of(uri: str) -> str:
    """The kind of a request."""
    path = urlsplit(uri).path
    return "discovery" if path.startswith("/$discovery") else path.rpartition("/")[2].rpartition(":")[2]


def total(traffic: Traffic) -> Count:
    """The counts of every kind together."""
    return sum(traffic.values(), Count())


class Meter:
    """Counts from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Count] = {}

    def sent(self, kind: str, size: int, *, repeated: bool) -> None:
        """A request with a body of ``size`` bytes is sent; ``repeated`` where the same one was sent before."""
        self._add(kind, Count(sent=1, repeated=int(repeated), bytes_sent=size))

    def received(self, kind: str, size: int) -> None:
        """An answer's body arrived, whatever it says."""
        self._add(kind, Count(bytes_received=size))

    def read(self) -> Traffic:
        """The counts so far."""
        with self._lock:
            return dict(self._counts)

    def _add(self, kind: str, count: Count) -> None:
        with self._lock:
            self._counts[kind] = self._counts.get(kind, Count()) + count
