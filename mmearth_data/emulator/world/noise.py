"""Seeded noise as a pure function of lattice indices: hashes, white noise, smooth octaves in a plane and in space.

Nothing is drawn from a generator with state: the value at a place depends on the place and the salt alone, so any
window of the world can be computed by itself and agrees bit for bit with any other window that overlaps it. For that
reason everything here is elementwise arithmetic, never a matrix product (whose rounding depends on shapes).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

_ROW, _COLUMN, _LAYER = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.uint32)
_SPREAD_2D = np.float32(1.0 / 0.55)
"""Two passes of quadratic B-spline weights keep 0.55² of a lattice's variance; this restores unit variance."""


def salt(*parts: object) -> int:
    """A 32-bit salt from any parts that have a stable text form; different parts give independent noise."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _finish(state: U32) -> U32:
    state ^= state >> np.uint32(16)
    state *= np.uint32(0x7FEB352D)
    state ^= state >> np.uint32(15)
    state *= np.uint32(0x846CA68B)
    state ^= state >> np.uint32(16)
    return state


def hash_grid(key: int, rows: I64, columns: I64) -> U32:
    """Hashes of the lattice points rows × columns, shape (len(rows), len(columns))."""
    down = (rows.astype(np.uint32) * _ROW) ^ np.uint32(key)
    return _finish(down[:, None] + (columns.astype(np.uint32) * _COLUMN)[None, :])


def hash_points(key: int, *indices: NDArray[np.integer]) -> U32:
    """Hashes of points given by up to three equally shaped (or broadcastable) integer indices."""
    factors = (_ROW, _COLUMN, _LAYER)
    state: U32 = np.asarray(indices[0]).astype(np.uint32) * factors[0] + np.uint32(key)
    for index, factor in zip(indices[1:], factors[1:], strict=False):
        state = _finish(state.copy()) + np.asarray(index).astype(np.uint32) * factor
    return _finish(np.atleast_1d(state))


def uniform(hashes: U32) -> F32:
    """Hashes as uniform numbers in [0, 1)."""
    return (hashes >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal(hashes: U32) -> F32:
    """Hashes as bell-shaped numbers (triangular) of mean 0 and variance 1, bounded by ±√6."""
    halves = (hashes & np.uint32(0xFFFF)) + (hashes >> np.uint32(16))
    return (halves.astype(np.float32) - np.float32(65535.0)) * np.float32(np.sqrt(6.0) / 65536.0)


def scalar_uniform(*parts: object) -> float:
    """One uniform number in [0, 1) named by its parts."""
    return salt(*parts) / 2.0**32


def white(key: int, rows: I64, columns: I64) -> F32:
    """Independent bell-shaped noise of unit variance, one value per pixel."""
    return normal(hash_grid(key, rows, columns))


@dataclass(frozen=True)
class _Axis:
    """One axis of an upsampling: the control points, and for each pixel the first of its three and their weights."""

    points: I64
    first: I64
    weights: tuple[F32, F32, F32]


@lru_cache(maxsize=8192)
def _axis(start: int, count: int, wavelength: float) -> _Axis:
    """The axis of pixels start … start + count − 1; control point k sits at pixel k · wavelength."""
    place = (np.arange(start, start + count) + 0.5) / wavelength
    nearest = np.floor(place + 0.5)
    t = place - nearest
    weights = (0.5 * (0.5 - t) ** 2, 0.75 - t**2, 0.5 * (0.5 + t) ** 2)
    first, middle, last = (weight.astype(np.float32) for weight in weights)
    low = int(nearest[0]) - 1
    points = np.arange(low, int(nearest[-1]) + 2, dtype=np.int64)
    return _Axis(points, nearest.astype(np.int64) - 1 - low, (first, middle, last))


def _surface(lattice: F32, down: _Axis, across: _Axis) -> F32:
    # Columns first, while there are few rows: then the large passes copy whole rows, which is much the faster gather.
    strip = lattice[:, across.first] * across.weights[0]
    strip += lattice[:, across.first + 1] * across.weights[1]
    strip += lattice[:, across.first + 2] * across.weights[2]
    out: F32 = strip[down.first]
    out *= down.weights[0][:, None]
    for step in (1, 2):
        part = strip[down.first + step]
        part *= down.weights[step][:, None]
        out += part
    return out


def upsample(lattice: F32, rows: I64, columns: I64, wavelength: float, origin: tuple[int, int]) -> F32:
    """Quadratic B-spline surface over a lattice of control points.

    ``lattice[i, j]`` sits at pixel ((origin[0] + i)·wavelength, (origin[1] + j)·wavelength); the result has shape
    (len(rows), len(columns)) at the centres of the pixels named by absolute index, which must be consecutive.
    """
    down, across = _axis(int(rows[0]), len(rows), wavelength), _axis(int(columns[0]), len(columns), wavelength)
    top, left = int(down.points[0]) - origin[0], int(across.points[0]) - origin[1]
    held = lattice[top : top + len(down.points), left : left + len(across.points)]
    return _surface(held, down, across)


def smooth(key: int, rows: I64, columns: I64, wavelength: float) -> F32:
    """Smooth noise of mean 0 and unit variance whose features are about ``wavelength`` pixels wide."""
    down, across = _axis(int(rows[0]), len(rows), wavelength), _axis(int(columns[0]), len(columns), wavelength)
    lattice = normal(hash_grid(key, down.points, across.points))
    lattice *= _SPREAD_2D
    return _surface(lattice, down, across)


def fractal(key: int, rows: I64, columns: I64, octaves: tuple[tuple[float, float], ...]) -> F32:
    """Weighted sum of smooth octaves given as (wavelength, weight), scaled to unit variance."""
    total = np.zeros((len(rows), len(columns)), dtype=np.float32)
    for number, (wavelength, weight) in enumerate(octaves):
        octave = smooth((key + number * 0x632BE5AB) & 0xFFFFFFFF, rows, columns, wavelength)
        octave *= np.float32(weight)
        total += octave
    total *= np.float32(1.0 / np.sqrt(sum(weight**2 for _, weight in octaves)))
    return total


def space(key: int, points: F64, wavelengths: tuple[float, ...]) -> F64:
    """Smooth noise in space for points (n, 3), one octave per wavelength: (n, octaves), mean 0, about unit variance."""
    place = points[:, None, :] / np.asarray(wavelengths)[None, :, None]
    base = np.floor(place)
    t = place - base
    s = t * t * (3.0 - 2.0 * t)
    corner = base.astype(np.int64).astype(np.uint32)[None] + _CORNERS[:, None, None, :]
    keys = (np.uint32(key) + np.arange(len(wavelengths), dtype=np.uint32) * np.uint32(0x632BE5AB))[None, None, :]
    state = _finish(keys + corner[..., 0] * _ROW)
    state = _finish(state + corner[..., 1] * _COLUMN)
    values = normal(_finish(state + corner[..., 2] * _LAYER)).astype(np.float64)
    for axis in range(3):
        half = len(values) // 2
        values = values[:half] + (values[half:] - values[:half]) * s[..., axis]
    result: F64 = values[0] * 1.6
    return result


def sphere(lon: F64, lat: F64) -> F64:
    """Unit vectors of points in degrees, shape (n, 3)."""
    longitude, latitude = np.radians(np.ravel(lon)), np.radians(np.ravel(lat))
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
