"""Earth Engine's documented limits, by name, and the checks that enforce them.

Source: developers.google.com/earth-engine/guides/usage and the computePixels reference; the limit on elements of a
collection query is the service's well-known message rather than a page.
"""

from __future__ import annotations

import threading
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
MAX_ELEMENTS = 5000
MAX_PAGE_ROWS = 1000

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


def bounded(elements: Iterable[T]) -> list[T]:
    """The elements as a list; refuses more than 5000."""
    result = list(islice(elements, MAX_ELEMENTS + 1))
    if len(result) > MAX_ELEMENTS:
        raise ServiceError(f"Collection query aborted after accumulating over {MAX_ELEMENTS} elements.")
    return result


class Gate:
    """Lets 40 compute requests in at a time and refuses the rest with 429."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold one of the places; raises ServiceError 429 when all are taken."""
        with self._lock:
            if self._inside >= MAX_CONCURRENT_REQUESTS:
                raise ServiceError(
                    "Request was rejected because the request rate or concurrency limit was exceeded "
                    f"({MAX_CONCURRENT_REQUESTS} at a time).",
                    429,
                )
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
