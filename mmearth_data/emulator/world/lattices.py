"""Arithmetic on lattices, compiled: hashes of lattice points, and smooth surfaces over what lattices hold.

Compiled by numba at the first call, and kept on disk. No liberty is taken with arithmetic: every product and sum is
rounded by itself and in one order, so a pixel's value has the same bits whatever window asks for it. The interpreter
lock is released. Hashes multiply in 32 bits that wrap around, which numba widens to 64 where it is not told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmearth_data.emulator.world.compiled import compiled

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

OCTAVE = 0x632BE5AB
"""By how much the key of an octave differs from that of the one before."""
ROW, COLUMN, LAYER = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
"""What rows, columns and layers are multiplied by in hashes."""
_FIRST, _SECOND, _LOW = np.uint32(0x7FEB352D), np.uint32(0x846CA68B), np.uint32(0xFFFF)
_OCTAVE = np.uint32(OCTAVE)
_15, _16 = np.uint32(15), np.uint32(16)
_MIDDLE, _SCALE = np.float32(65535.0), np.float32(np.sqrt(6.0) / 65536.0)
_SPREAD_2D = np.float32(1.0 / 0.55)
"""Two passes of quadratic B-spline weights keep 0.55² of a lattice's variance; this restores unit variance."""


def _finished(state: Any) -> Any:
    state = np.uint32(state ^ (state >> _16))
    state = np.uint32(state * _FIRST)
    state = np.uint32(state ^ (state >> _15))
    state = np.uint32(state * _SECOND)
    return np.uint32(state ^ (state >> _16))


def _bell(state: Any) -> Any:
    """A hash as a number of triangular distribution, mean 0 and variance 1."""
    halves = np.uint32(np.uint32(state & _LOW) + np.uint32(state >> _16))
    return (np.float32(halves) - _MIDDLE) * _SCALE


_inner = njit(nogil=True)
_finish: Callable[..., Any] = _inner(_finished)
_normal: Callable[..., Any] = _inner(_bell)


def _axis(start: int, wavelength: float, held: I64, weights: F32) -> int:
    """Fill which control point is each pixel's first of three, and their weights; the number of the first one held.

    Control point k sits at pixel k · wavelength, pixels begin at ``start``.
    """
    low = 0
    for i in range(held.shape[0]):
        place = (start + i + 0.5) / wavelength
        nearest = np.floor(place + 0.5)
        t = place - nearest
        if i == 0:
            low = int(nearest) - 1
        held[i] = int(nearest) - 1 - low
        weights[0, i] = np.float32(0.5 * ((0.5 - t) * (0.5 - t)))
        weights[1, i] = np.float32(0.75 - t * t)
        weights[2, i] = np.float32(0.5 * ((0.5 + t) * (0.5 + t)))
    return low


_fill_axis: Callable[..., int] = _inner(_axis)


def _across(line: F32, held: I64, weights: F32, out: F32) -> None:
    """A line of control points as a line of pixels."""
    for j in range(out.shape[0]):
        k = held[j]
        out[j] = line[k] * weights[0, j] + line[k + 1] * weights[1, j] + line[k + 2] * weights[2, j]


def _down(strip: F32, k: int, at: int, weights: F32, out: F32) -> None:
    """A line of pixels from the three lines above, at and below it."""
    above, middle, below = strip[k], strip[k + 1], strip[k + 2]
    a, b, c = weights[0, at], weights[1, at], weights[2, at]
    for j in range(out.shape[0]):
        out[j] = above[j] * a + middle[j] * b + below[j] * c


def _add(out: F32, octave: F32, weight: Any, fresh: bool) -> None:
    if fresh:
        for j in range(out.shape[0]):
            out[j] = octave[j] * weight
    else:
        for j in range(out.shape[0]):
            out[j] += octave[j] * weight


_cross: Callable[..., None] = _inner(_across)
_sink: Callable[..., None] = _inner(_down)
_gather: Callable[..., None] = _inner(_add)


def _hashes(keys: U32, rows: I64, columns: I64) -> U32:
    """Hashes of the lattice points rows × columns for each key: (keys, rows, columns)."""
    out = np.empty((keys.shape[0], rows.shape[0], columns.shape[0]), dtype=np.uint32)
    across = np.empty(columns.shape[0], dtype=np.uint32)
    for j in range(columns.shape[0]):
        across[j] = np.uint32(np.uint32(columns[j]) * COLUMN)
    for n in range(keys.shape[0]):
        for i in range(rows.shape[0]):
            down = np.uint32(np.uint32(np.uint32(rows[i]) * ROW) ^ keys[n])
            line = out[n, i]
            for j in range(columns.shape[0]):
                line[j] = _finish(np.uint32(down + across[j]))
    return out


def _of_points(key: int, indices: U32) -> U32:
    """Hashes of points by their indices, of which there are up to three: (indices, points) to (points,)."""
    out = np.empty(indices.shape[1], dtype=np.uint32)
    own = np.uint32(key)
    for n in range(out.shape[0]):
        state = _finish(np.uint32(np.uint32(indices[0, n] * ROW) + own))
        if indices.shape[0] > 1:
            state = _finish(np.uint32(state + np.uint32(indices[1, n] * COLUMN)))
        if indices.shape[0] > 2:
            state = _finish(np.uint32(state + np.uint32(indices[2, n] * LAYER)))
        out[n] = state
    return out


def _whites(key: int, row: int, column: int, height: int, width: int) -> F32:
    """Bell-shaped hashes of consecutive pixels: (height, width)."""
    out = np.empty((height, width), dtype=np.float32)
    own = np.uint32(key)
    for i in range(height):
        down = np.uint32(np.uint32(np.uint32(row + i) * ROW) ^ own)
        line = out[i]
        for j in range(width):
            line[j] = _normal(_finish(np.uint32(down + np.uint32(np.uint32(column + j) * COLUMN))))
    return out


def _octaves(
    keys: U32, row: int, column: int, height: int, width: int, wavelengths: F64, weights: F32, scale: float
) -> F32:
    """Weighted sums of octaves of smooth noise, times a scale: (keys, height, width)."""
    out = np.empty((keys.shape[0], height, width), dtype=np.float32)
    down, across = np.empty(height, dtype=np.int64), np.empty(width, dtype=np.int64)
    down_weights, across_weights = np.empty((3, height), dtype=np.float32), np.empty((3, width), dtype=np.float32)
    octave = np.empty(width, dtype=np.float32)
    for number in range(wavelengths.shape[0]):
        top = _fill_axis(row, wavelengths[number], down, down_weights)
        left = _fill_axis(column, wavelengths[number], across, across_weights)
        strip = np.empty((down[height - 1] + 3, width), dtype=np.float32)
        line = np.empty(across[width - 1] + 3, dtype=np.float32)
        for n in range(keys.shape[0]):
            key = np.uint32(keys[n] + np.uint32(np.uint32(number) * _OCTAVE))
            for i in range(strip.shape[0]):
                first = np.uint32(np.uint32(np.uint32(top + i) * ROW) ^ key)
                for j in range(line.shape[0]):
                    state = _finish(np.uint32(first + np.uint32(np.uint32(left + j) * COLUMN)))
                    line[j] = _normal(state) * _SPREAD_2D
                _cross(line, across, across_weights, strip[i])
            for i in range(height):
                _sink(strip, down[i], i, down_weights, octave)
                _gather(out[n, i], octave, weights[number], number == 0)
    if scale != 1.0:
        flat, factor = out.reshape(-1), np.float32(scale)
        for j in range(flat.shape[0]):
            flat[j] *= factor
    return out


def _surfaces(held: F32, row: int, column: int, height: int, width: int, wavelength: float, top: int, left: int) -> F32:
    """Surfaces over lattices (fields, i, j) whose first control point is (top, left): (fields, height, width)."""
    out = np.empty((held.shape[0], height, width), dtype=np.float32)
    down, across = np.empty(height, dtype=np.int64), np.empty(width, dtype=np.int64)
    down_weights, across_weights = np.empty((3, height), dtype=np.float32), np.empty((3, width), dtype=np.float32)
    first = _fill_axis(row, wavelength, down, down_weights) - top
    begin = _fill_axis(column, wavelength, across, across_weights) - left
    strip = np.empty((down[height - 1] + 3, width), dtype=np.float32)
    if first < 0 or begin < 0 or first + strip.shape[0] > held.shape[1] or begin + across[-1] + 3 > held.shape[2]:
        raise IndexError("a surface needs control points around all its pixels")
    for n in range(held.shape[0]):
        for i in range(strip.shape[0]):
            _cross(held[n, first + i, begin:], across, across_weights, strip[i])
        for i in range(height):
            _sink(strip, down[i], i, down_weights, out[n, i])
    return out


def _corner(key: Any, x: int, y: int, z: int) -> Any:
    state = _finish(np.uint32(key + np.uint32(np.uint32(x) * ROW)))
    state = _finish(np.uint32(state + np.uint32(np.uint32(y) * COLUMN)))
    return np.float64(_normal(_finish(np.uint32(state + np.uint32(np.uint32(z) * LAYER)))))


_at_corner: Callable[..., Any] = _inner(_corner)


def _spaces(key: int, points: F64, wavelengths: F64) -> F64:
    """Smooth noise in space for points (n, 3), one octave per wavelength: (n, octaves)."""
    out = np.empty((points.shape[0], wavelengths.shape[0]), dtype=np.float64)
    low, part, line = np.empty(3, dtype=np.int64), np.empty(3), np.empty(4)
    for n in range(out.shape[0]):
        for number in range(out.shape[1]):
            own = np.uint32(np.uint32(key) + np.uint32(np.uint32(number) * _OCTAVE))
            for axis in range(3):
                place = points[n, axis] / wavelengths[number]
                base = np.floor(place)
                t = place - base
                low[axis], part[axis] = np.int64(base), t * t * (3.0 - 2.0 * t)
            for corner in range(4):
                y, z = low[1] + corner // 2, low[2] + corner % 2
                near = _at_corner(own, low[0], y, z)
                line[corner] = near + (_at_corner(own, low[0] + 1, y, z) - near) * part[0]
            near = line[0] + (line[2] - line[0]) * part[1]
            far = line[1] + (line[3] - line[1]) * part[1]
            out[n, number] = (near + (far - near) * part[2]) * 1.6
    return out


hashes: Callable[..., U32] = compiled(_hashes)
of_points: Callable[..., U32] = compiled(_of_points)
whites: Callable[..., F32] = compiled(_whites)
octaves: Callable[..., F32] = compiled(_octaves)
surfaces: Callable[..., F32] = compiled(_surfaces)
spaces: Callable[..., F64] = compiled(_spaces)
