"""Sending requests: the one place where they are repeated, and the threads that send them.

The loop is our own because a wait of a retrying library cannot be cut short when the run is asked to stop.
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

from mmearth_data.pace import Interrupted, on_behalf_of
from mmearth_data.source import Corrupt, Quota, SourceError, Transient
from mmearth_data.store.files import write_atomic
from mmearth_data.store.objects import Place

logger = logging.getLogger(__name__)
_LOOK_SECONDS = 0.2
"""How often a wait looks whether the run is to end."""

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
        failures: Counter[type[Exception]] = Counter()
        payloads: set[bytes] = set()
        last: SourceError | None = None
        gives_up = time.monotonic() + self._retry.timeout
        while True:
            try:
                with on_behalf_of(self._order, self._ends, repeated=last is not None):
                    self._count()
                    return request()
            except (Corrupt, Quota, Transient) as error:
                last = error
            except Interrupted:
                if last is None:
                    raise
                raise last from None
            failures[type(last)] += 1
            logger.info("failure %d of a request: %s", failures.total(), last)
            attempts = self._retry.attempts
            if isinstance(last, Corrupt):
                payloads.add(last.payload)
                last.same_each_time = failures[Corrupt] > 1 and len(payloads) == 1
                attempts = min(attempts, self._retry.corrupt_attempts)
            pause = self._pause(last, failures[type(last)])
            exhausted = failures[type(last)] >= attempts or failures.total() >= self._retry.attempts
            if exhausted or time.monotonic() + pause > gives_up or not self._wait(pause):
                raise last

    def _count(self) -> None:
        with self._lock:
            self.sent += 1

    def _pause(self, error: SourceError, failures: int) -> float:
        """Seconds to wait after so many failures of this kind: exponential with jitter (Brooker 2015, AWS)."""
        retry = self._retry
        if isinstance(error, Quota):
            return min(retry.quota_wait * 2.0 ** (failures - 1), retry.wait_max) * random.uniform(1.0, 1.5)
        return min(retry.wait_initial * 2.0 ** (failures - 1) + random.uniform(0, retry.wait_jitter), retry.wait_max)

    def _wait(self, seconds: float) -> bool:
        """Whether all of a wait passed before the end of the work."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if self._ends():
                return False
            self.stopping.wait(min(left, _LOOK_SECONDS))
        return not self._ends()

    def _ends(self) -> bool:
        return self.stopping.is_set() or self._stopping_outside()


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
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
    if first:
        raise first[0]


def quarantine(error: Corrupt, store: Place, name: str) -> Place:
    """Where the bytes of an answer that cannot be used are kept for inspection."""
    path = store / "_quarantine" / f"{name}.bin"
    write_atomic(path, error.payload)
    return path
