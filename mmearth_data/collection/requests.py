"""Sending requests: the one place where they are repeated, and the threads that send them."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import stamina

from mmearth_data.source import Corrupt, Quota, Transient

logger = logging.getLogger(__name__)
logging.getLogger("stamina").addHandler(logging.NullHandler())  # a handled failure is no news for a terminal

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

    It stops after a failure of its own, which sets ``stopping``, and once ``stopping_outside()`` is true.
    """

    def __init__(self, retry: Retry, stopping_outside: Callable[[], bool] = lambda: False) -> None:
        self._retry = retry
        self._stopping_outside = stopping_outside
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.sent = 0

    def call(self, request: Callable[[], _Result]) -> _Result:
        """The result of ``request``, repeated while that may help."""
        failures: Counter[type[Exception]] = Counter()
        payloads: set[bytes] = set()
        last: Exception | None = None

        def backoff(error: Exception) -> bool | float:
            nonlocal last
            if self._ends():
                return False
            last = error
            failures[type(error)] += 1
            logger.info("failure %d of a request: %s", failures.total(), error)
            if isinstance(error, Corrupt):
                payloads.add(error.payload)
                error.same_each_time = failures[type(error)] > 1 and len(payloads) == 1
                return failures[type(error)] < self._retry.corrupt_attempts
            if isinstance(error, Quota):
                slower = self._retry.quota_wait * 2.0 ** (failures[type(error)] - 1)
                return min(slower, self._retry.wait_max) * random.uniform(1.0, 1.5)
            return isinstance(error, Transient)

        for attempt in stamina.retry_context(
            on=backoff,
            attempts=self._retry.attempts,
            timeout=self._retry.timeout,
            wait_initial=self._retry.wait_initial,
            wait_max=self._retry.wait_max,
            wait_jitter=self._retry.wait_jitter,
        ):
            with attempt:
                if last is not None and self._ends():  # asked to stop while it waited
                    raise last
                with self._lock:
                    self.sent += 1
                return request()
        raise AssertionError("stamina ends with a result or an error")

    def _ends(self) -> bool:
        return self.stopping.is_set() or self._stopping_outside()


def run_all(work: Callable[[_Item], None], items: Sequence[_Item], workers: int, stopping: threading.Event) -> None:
    """Do ``work`` for every item on up to ``workers`` threads; the first failure stops what has not begun."""

    def unless_stopping(item: _Item) -> None:
        if stopping.is_set():
            return
        try:
            work(item)
        except BaseException:
            stopping.set()
            raise

    with ThreadPoolExecutor(max_workers=max(workers, 1), thread_name_prefix="collect") as pool:
        futures: list[Future[None]] = [pool.submit(unless_stopping, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)


def quarantined(error: Corrupt, store: Path, name: str, what: str) -> Corrupt:
    """The same failure with the place where its bytes were kept."""
    path = store / "_quarantine" / f"{name}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(error.payload)
    remedy = "run again to retry"
    if error.same_each_time:
        remedy = (
            "the same at every try: inspect them, then exclude the location from the table or widen the modality's "
            "valid range"
        )
    return Corrupt(f"{what}: {error}; its bytes are kept in {path}, {remedy}", error.payload)
