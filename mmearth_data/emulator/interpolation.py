"""Bilinear interpolation, compiled: a pixel's four neighbours, their weights, and what to leave out of them.

Compiled by numba at the first call and kept on disk; the interpreter lock is released. Every product and sum is rounded
by itself and in the order written, upper left, upper right, lower left, lower right, so values have the same bits
everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world.compiled import compiled

F64 = NDArray[np.float64]
Bits = NDArray[np.bool_]
Index = NDArray[np.intp]


@compiled
def among_all(values: F64, left: Index, top: Index, right_part: F64, lower_part: F64) -> F64:
    """Values between native ones that are all there and finite.

    ``left`` and ``top`` are the upper left neighbours' column and row in ``values``, the parts how far a centre is from
    them towards the next ones; each has the grid's shape, or one row (``left``) or column (``top``) for all.
    """
    height, width = max(left.shape[0], top.shape[0]), max(left.shape[1], top.shape[1])
    out = np.empty((height, width))
    for i in range(height):
        own_left, own_right = left[min(i, left.shape[0] - 1)], right_part[min(i, left.shape[0] - 1)]
        own_top, own_lower = top[i], lower_part[i]
        for j in range(width):
            k = min(j, own_top.shape[0] - 1)
            row, column = own_top[k], own_left[j]
            lower, right = own_lower[k], own_right[j]
            upper, near = 1.0 - lower, 1.0 - right
            first, second, third, fourth = near * upper, right * upper, near * lower, right * lower
            value = values[row, column] * first + values[row, column + 1] * second
            value = value + values[row + 1, column] * third + values[row + 1, column + 1] * fourth
            out[i, j] = value / (first + second + third + fourth)
    return out


@compiled
def among_valid(values: F64, valid: Bits, left: Index, top: Index, right_part: F64, lower_part: F64) -> F64:
    """As ``among_all`` where neighbours may be masked or lie beyond ``values``: the rest share their weight.

    0 where there is none.
    """
    height, width = max(left.shape[0], top.shape[0]), max(left.shape[1], top.shape[1])
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            a, b = min(i, left.shape[0] - 1), min(j, top.shape[1] - 1)
            total, value = 0.0, 0.0
            for corner in range(4):
                row, column = top[i, b] + corner // 2, left[a, j] + corner % 2
                if not (0 <= row < values.shape[0] and 0 <= column < values.shape[1]) or not valid[row, column]:
                    continue
                across = right_part[a, j] if corner % 2 else 1.0 - right_part[a, j]
                weight = across * (lower_part[i, b] if corner // 2 else 1.0 - lower_part[i, b])
                if weight > 0.0:
                    total += weight
                    value += values[row, column] * weight
            if total > 0.0:
                out[i, j] = value / total
    return out
