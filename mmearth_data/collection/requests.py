"""Sending requests: the one place where they are repeated, and the threads that send them.

tenacity repeats them; what is ours is how failures are counted, and a wait that ends when the run is to end (stamina,
which connecting uses, has no such wait).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from mmearth_data.pace import Interrupted, on_behalf_of
from mmearth_data.source import Corrupt, Quota, SourceError, Transient
from mmearth_data.store.files import write_atomic
from mmearth_data.store.objects import Place

logger = logging.getLogger(__name__)
_LOOK_SECONDS = 0.2
"""How often a wait looks whether the run is to end."""
_INTERRUPTIBLE_SECONDS = 2.0
"""How long a thread may wait for others at a stretch: another can raise an exception in it only in between."""

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a request is repeated; times in seconds.

    Waits grow exponentially from ``wait_initial`` to ``wait_max`` with random jitter; where the service asks for fewer
    requests they start from ``quota_wait``. ``timeout`` bounds one request with all its repetitions.
    """

    attempts: int = 12
    corrupt_attempts: int = 4
    timeout: float = 1800.0
    wait_initial: float = 0.25
    wait_max: float = 30.0
    wait_jitter: float = 1.0
    quota_wait: float = 2.0


class Requests:
    """Sends requests, repeating them, for one batch of work that stops as a whole.

    It stops after a failure of its own, which sets ``stopping``, and once ``stopping_outside()`` is true: a wait that
    is under way then ends at once. Requests of a lower ``order`` go first.
    """

    def __init__(self, retry: Retry, stopping_outside: Callable[[], bool] = lambda: False, order: int = 0) -> None:
        self._retry = retry
        self._stopping_outside = stopping_outside
        self._order = order
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.sent = 0

    def call(self, request: Callable[[], _Result]) -> _Result:
        """The result of ``request``, repeated while that may help; raises its last failure, or Interrupted."""
        failures = _Failures(self._retry)
        repeating = tenacity.Retrying(
            retry=tenacity.retry_if_exception(failures.may_pass),
            wait=failures.pause,
            stop=failures.exhausted,
            sleep=self._wait,
            reraise=True,
        )
        try:
            result: _Result = repeating(self._send, request, failures)
            return result
        except Interrupted:
            if failures.last is None:
                raise
            raise failures.last from None

    def _send(self, request: Callable[[], _Result], failures: _Failures) -> _Result:
        with on_behalf_of(self._order, self._ends, repeated=failures.last is not None):
            with self._lock:
                self.sent += 1
            return request()

    def _wait(self, seconds: float) -> None:
        """Pass the time; raises Interrupted where the work ends before."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0 and not self._ends():
            self.stopping.wait(min(left, _LOOK_SECONDS))
        if self._ends():
            raise Interrupted("stopped before a request was repeated; run again to carry on")

    def _ends(self) -> bool:
        return self.stopping.is_set() or self._stopping_outside()


class _Failures:
    """The failures of one request so far, and what follows from them."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._counts: Counter[type] = Counter()
        self._payloads: set[bytes] = set()
        self.last: SourceError | None = None

    def may_pass(self, error: BaseException) -> bool:
        """Whether a failure is of a kind that repeating may help against; it is counted."""
        if not isinstance(error, Corrupt | Quota | Transient):
            return False
        self.last = error
        self._counts[type(error)] += 1
        logger.info("failure %d of a request: %s", self._counts.total(), error)
        if isinstance(error, Corrupt):
            self._payloads.add(error.payload)
            error.same_each_time = self._counts[Corrupt] > 1 and len(self._payloads) == 1
        return True

    def exhausted(self, state: tenacity.RetryCallState) -> bool:
        """Whether there were as many as there may be, in all or of the last one's kind, or no time is left."""
        most = self._retry.attempts
        of_this_kind = min(most, self._retry.corrupt_attempts) if isinstance(self.last, Corrupt) else most
        many = self._counts[type(self.last)] >= of_this_kind or self._counts.total() >= most
        return many or tenacity.stop_before_delay(self._retry.timeout)(state)

    def pause(self, _: tenacity.RetryCallState) -> float:
        """Seconds to wait after so many of the last one's kind: exponential with jitter (Brooker 2015, AWS)."""
        retry, failures = self._retry, self._counts[type(self.last)]
        if isinstance(self.last, Quota):
            return min(retry.quota_wait * 2.0 ** (failures - 1), retry.wait_max) * random.uniform(1.0, 1.5)
        return min(retry.wait_initial * 2.0 ** (failures - 1) + random.uniform(0, retry.wait_jitter), retry.wait_max)


def run_all(work: Callable[[_Item], None], items: Sequence[_Item], workers: int, stopping: threading.Event) -> None:
    """Do ``work`` for every item on up to ``workers`` threads; the first failure stops what has not begun.

    Raises that failure rather than those of work that was interrupted for it.
    """
    first: list[BaseException] = []

    def unless_stopping(item: _Item) -> None:
        if stopping.is_set():
            return
        try:
            work(item)
        except BaseException as error:
            first.append(error)
            stopping.set()
            raise

    with ThreadPoolExecutor(max_workers=max(workers, 1), thread_name_prefix="collect") as pool:
        futures: list[Future[None]] = [pool.submit(unless_stopping, item) for item in items]
        try:
            pending = set(futures)
            while pending and not first:
                _, pending = wait(pending, _INTERRUPTIBLE_SECONDS, return_when=FIRST_EXCEPTION)
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
    if first:
        raise first[0]


def quarantined(store: Place, name: str) -> Place:
    """Where the bytes of an answer that cannot be used are kept for inspection."""
    return store / "_quarantine" / f"{name}.bin"


def quarantine(error: Corrupt, store: Place, name: str) -> Place:
    """Keep the bytes of an answer that cannot be used; returns where."""
    path = quarantined(store, name)
    write_atomic(path, error.payload)
    return path
