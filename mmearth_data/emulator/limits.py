"""Earth Engine's documented limits, by name, and the checks that enforce them.

Source: developers.google.com/earth-engine/guides/usage and the computePixels reference; the limit on elements of a
collection query is the service's well-known message rather than a page.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import numpy as np

from mmearth_data.emulator.errors import ServiceError

MAX_CONCURRENT_REQUESTS = 40
MAX_REQUEST_BYTES = 10 * 2**20
MAX_PIXEL_BYTES = 48 * 2**20
MAX_GRID_SIDE = 32 * 1024
MAX_BANDS = 1024
MAX_MEMORY_BYTES = 2 * 2**30
MAX_ELEMENTS = 5000
MAX_PAGE_ROWS = 1000
MAX_SECONDS = 300.0
MAX_NESTED_AGGREGATIONS = 100
"""Aggregations that one request may nest in mapped functions. The service counts those that run at once and does not
say how many may; that many are refused there often enough to be avoided."""
MAX_REQUESTS_PER_SECOND = 100

T = TypeVar("T")


def check_request_size(length: int) -> None:
    """Refuse a request body over 10 MB."""
    if length > MAX_REQUEST_BYTES:
        raise ServiceError(
            f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes; this one has {length}. "
            "Ask for fewer features or bands at once."
        )


def check_pixels(width: int, height: int, dtypes: list[str]) -> None:
    """Refuse a computePixels answer of too many pixels a side, bands, or bytes (a mask byte per pixel and band)."""
    if not (1 <= width <= MAX_GRID_SIDE and 1 <= height <= MAX_GRID_SIDE):
        raise ServiceError(
            f"Pixel grid dimensions ({width}x{height}) must be between 1 and {MAX_GRID_SIDE} on each side."
        )
    if not 1 <= len(dtypes) <= MAX_BANDS:
        raise ServiceError(f"The image has {len(dtypes)} bands; computePixels answers 1 to {MAX_BANDS}.")
    total = width * height * sum(np.dtype(name).itemsize + 1 for name in dtypes)
    if total > MAX_PIXEL_BYTES:
        raise ServiceError(f"Total request size ({total} bytes) must be less than or equal to {MAX_PIXEL_BYTES} bytes.")


def check_memory(size: int) -> None:
    """Refuse to hold more than 2 GB of pixels at once; the service's own limit is not documented."""
    if size > MAX_MEMORY_BYTES:
        raise ServiceError("User memory limit exceeded.")


def bounded(elements: Iterable[T]) -> list[T]:
    """The elements as a list; refuses more than 5000."""
    result = list(islice(elements, MAX_ELEMENTS + 1))
    if len(result) > MAX_ELEMENTS:
        raise ServiceError(f"Collection query aborted after accumulating over {MAX_ELEMENTS} elements.")
    return result


class Budget:
    """What one request may spend: five minutes, and a number of nested aggregations."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + MAX_SECONDS
        self._nested = 0

    def check_time(self) -> None:
        """Refuse to go on once the time is spent."""
        if time.monotonic() > self._deadline:
            raise ServiceError("Computation timed out.")

    def nest(self) -> None:
        """Count an aggregation that a mapped function makes."""
        self._nested += 1
        if self._nested > MAX_NESTED_AGGREGATIONS:
            raise ServiceError("Too many concurrent aggregations.", 429)


class Gate:
    """Lets 40 compute requests in at a time, and 100 in any second (0: any number); refuses the rest with 429."""

    def __init__(self, requests_per_second: int = MAX_REQUESTS_PER_SECOND) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._most = requests_per_second
        self._starts: deque[float] = deque()

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold one of the places; raises ServiceError 429 when all are taken, or this second's requests are spent."""
        with self._lock:
            now = time.monotonic()
            while self._starts and self._starts[0] <= now - 1:
                self._starts.popleft()
            if self._most and len(self._starts) >= self._most:
                raise ServiceError(
                    "Request was rejected because the request rate or concurrency limit was exceeded "
                    f"({self._most} per second).",
                    429,
                )
            if self._inside >= MAX_CONCURRENT_REQUESTS:
                raise ServiceError(
                    "Request was rejected because the request rate or concurrency limit was exceeded "
                    f"({MAX_CONCURRENT_REQUESTS} at a time).",
                    429,
                )
            self._inside += 1
            if self._most:
                self._starts.append(now)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
