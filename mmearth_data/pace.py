"""Staying at a service's limit and never over it: how many requests of this process may be under way, and how fast.

One ``Pacer`` per endpoint, shared by every thread that sends requests to it. The number of requests under way follows
additive increase and multiplicative decrease (Chiu and Jain 1989, "Analysis of the increase and decrease
algorithms for congestion avoidance in computer networks"); their rate never exceeds this process's share of the
endpoint's.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

CONCURRENT_REQUESTS = 40
"""Requests under way at once that Earth Engine allows a project on each endpoint (quotas page of its documentation)."""
REQUESTS_PER_SECOND = 100.0
"""Requests per second that it allows a project (same page)."""
DECREASE = 0.7
INCREASE = 0.25
"""A window of answers adds this much: each probe above the service's limit costs a refusal, so they are rare."""
_LOOK_SECONDS = 0.25
"""How often who is next looks, for all who wait, whether their work is to end."""


class PaceError(ValueError):
    """No request could ever be sent."""


def rate_share(slots: int) -> float:
    """Requests per second that ``slots`` of a project's concurrent requests may take: their share of its rate.

    Raises PaceError for less than one slot.
    """
    if slots < 1:
        raise PaceError(f"at least one request must be under way at once, not {slots}; raise --workers")
    return min(1.0, slots / CONCURRENT_REQUESTS) * REQUESTS_PER_SECOND


class Interrupted(RuntimeError):  # noqa: N818 - somebody asked to stop
    """The run is to end, so the request that waited for its turn was not sent."""


class Window:
    """How many requests may be under way: the controller alone, without threads or clock.

    ``limit`` is at most ``slots``. Each request that the service accepted adds ``INCREASE`` / limit, a refusal
    multiplies it by ``DECREASE``, once for all that were under way together.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.limit = float(slots)
        self._decreases = 0

    @property
    def places(self) -> int:
        """Requests that may be under way now."""
        return max(1, int(self.limit))

    def begin(self) -> int:
        """What a request that begins now hands back to ``accepted`` or ``refused``."""
        return self._decreases

    def accepted(self) -> None:
        """The service answered a request, with whatever but a refusal."""
        self.limit = min(float(self.slots), self.limit + INCREASE / self.limit)

    def refused(self, begun: int) -> None:
        """The service refused, for there were too many, a request that ``begin`` gave ``begun``."""
        if begun == self._decreases:
            self._decreases += 1
            self.limit = max(1.0, self.limit * DECREASE)


@dataclass
class Turn:
    """One request under way; set ``refused`` where the service said that there are too many."""

    refused: bool = False


@dataclass(frozen=True)
class _Caller:
    order: int
    ends: Callable[[], bool]
    repeated: bool = False


_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)
_NOBODY = _Caller(order=0, ends=lambda: False)


@contextmanager
def on_behalf_of(order: int, ends: Callable[[], bool], *, repeated: bool = False) -> Iterator[None]:
    """Within it, this thread's requests wait behind those of a lower ``order`` and no longer once ``ends()``.

    ``repeated`` says that they were sent before (``repeating``).
    """
    token = _caller.set(_Caller(order, ends, repeated))
    try:
        yield
    finally:
        _caller.reset(token)


def repeating() -> bool:
    """Whether this thread's requests were sent before, as ``on_behalf_of`` was told."""
    return (_caller.get() or _NOBODY).repeated


@dataclass(order=True)
class _Place:
    """A thread in the queue; only the first wakes by itself or for a place, so that many may wait at no cost."""

    order: int
    ticket: int
    woken: threading.Condition = field(compare=False)
    ends: Callable[[], bool] = field(compare=False)


class Pacer:
    """Gives turns to threads: lower order first, then first come; no more at once or per second than allowed."""

    def __init__(self, slots: int, per_second: float) -> None:
        self._window = Window(slots)
        self._interval = 1.0 / per_second
        self._lock = threading.Lock()
        self._queue: list[_Place] = []
        self._tickets = itertools.count()
        self._under_way = 0
        self._next_start = 0.0

    @property
    def limit(self) -> float:
        """Requests that may be under way now, before rounding down."""
        return self._window.limit

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Hold one place from the moment there is one; raises Interrupted where the run ends before."""
        begun = self._enter(_caller.get() or _NOBODY)
        turn = Turn()
        answered = False
        try:
            yield turn
            answered = True
        finally:
            with self._lock:
                self._under_way -= 1
                if turn.refused:
                    self._window.refused(begun)
                elif answered:
                    self._window.accepted()
                self._wake_first()

    def _enter(self, caller: _Caller) -> int:
        with self._lock:
            me = _Place(caller.order, next(self._tickets), threading.Condition(self._lock), caller.ends)
            heapq.heappush(self._queue, me)
            try:
                while (delay := self._delay(me)) > 0:
                    if caller.ends():
                        raise Interrupted("stopped before a request was sent; run again to carry on")
                    if self._queue[0] is me:
                        me.woken.wait(min(delay, _LOOK_SECONDS))
                        self._wake_those_that_end()
                    else:
                        me.woken.wait()
            finally:
                self._leave(me)
                self._wake_first()
            self._under_way += 1
            self._next_start = max(time.monotonic(), self._next_start) + self._interval
            return self._window.begin()

    def _delay(self, me: _Place) -> float:
        """Seconds until this one may start; 0 for now, infinite until somebody else moves."""
        if self._queue[0] is not me or self._under_way >= self._window.places:
            return math.inf
        return max(0.0, self._next_start - time.monotonic())

    def _leave(self, me: _Place) -> None:
        if self._queue[0] is me:
            heapq.heappop(self._queue)
        else:
            self._queue.remove(me)
            heapq.heapify(self._queue)

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0].woken.notify()

    def _wake_those_that_end(self) -> None:
        for place in self._queue:
            if place.ends():
                place.woken.notify()


class Pacers:
    """The pacer of each endpoint that a process sends requests to, all of the same size; raises PaceError for none."""

    def __init__(self, slots: int) -> None:
        self._slots, self._per_second = slots, rate_share(slots)
        self._lock = threading.Lock()
        self._by_endpoint: dict[str, Pacer] = {}

    def of(self, endpoint: str) -> Pacer:
        """The one pacer of ``endpoint``."""
        with self._lock:
            if endpoint not in self._by_endpoint:
                self._by_endpoint[endpoint] = Pacer(self._slots, self._per_second)
            return self._by_endpoint[endpoint]
