"""Crop, flip and, where asked for, scale tiles straight into their places in a batch: one pass over the pixels.

Compiled by numba, once per dtype, and kept on disk. They release the interpreter lock. ``source`` is (rows, bands, H,
W), ``target`` (places, bands, crop, crop); tile ``rows[k]`` goes to ``places[k]``, from ``corner[k]`` (y, x), turned
over where ``flip[k]`` (vertical, horizontal) is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int = NDArray[np.int64]


def _copy(source: NDArray[Any], rows: Int, corner: Int, flip: Int, target: NDArray[Any], places: Int) -> None:
    """Values as they are; both arrays have the same dtype."""
    size = target.shape[2]
    for k in range(len(rows)):
        y, x = corner[k, 0], corner[k, 1]
        for band in range(target.shape[1]):
            for i in range(size):
                line = source[rows[k], band, y + (size - 1 - i if flip[k, 0] else i), x : x + size]
                to = target[places[k], band, i]
                if flip[k, 1]:
                    for j in range(size):
                        to[j] = line[size - 1 - j]
                else:
                    for j in range(size):
                        to[j] = line[j]


def _scale(
    source: NDArray[Any],
    rows: Int,
    corner: Int,
    flip: Int,
    target: NDArray[np.float32],
    places: Int,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    nodata: Any,
) -> None:
    """(value − mean) / std in float32, NaN for ``nodata``; ``mean`` and ``std`` are (len(rows), bands)."""
    size = target.shape[2]
    missing = np.float32(np.nan)
    for k in range(len(rows)):
        y, x = corner[k, 0], corner[k, 1]
        for band in range(target.shape[1]):
            m, factor = mean[k, band], np.float32(1) / std[k, band]
            for i in range(size):
                line = source[rows[k], band, y + (size - 1 - i if flip[k, 0] else i), x : x + size]
                to = target[places[k], band, i]
                if flip[k, 1]:
                    for j in range(size):
                        value = line[size - 1 - j]
                        scaled = (np.float32(value) - m) * factor
                        to[j] = missing if value == nodata else scaled
                else:
                    for j in range(size):
                        value = line[j]
                        scaled = (np.float32(value) - m) * factor
                        to[j] = missing if value == nodata else scaled


def _look_up(
    source: NDArray[np.uint8],
    rows: Int,
    corner: Int,
    flip: Int,
    target: Int,
    places: Int,
    table: Int,
) -> None:
    """``table[value]`` of each value."""
    size = target.shape[2]
    for k in range(len(rows)):
        y, x = corner[k, 0], corner[k, 1]
        for band in range(target.shape[1]):
            for i in range(size):
                line = source[rows[k], band, y + (size - 1 - i if flip[k, 0] else i), x : x + size]
                to = target[places[k], band, i]
                for j in range(size):
                    to[j] = table[line[size - 1 - j if flip[k, 1] else j]]


_compiled = njit(nogil=True, cache=True)
copy: Callable[..., None] = _compiled(_copy)
scale: Callable[..., None] = _compiled(_scale)
look_up: Callable[..., None] = _compiled(_look_up)
