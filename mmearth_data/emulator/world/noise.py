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
_OCTAVE = 0x632BE5AB
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


def _alone(key: int) -> U32:
    return np.array([key], dtype=np.uint32)


def octave_key(key: int, number: int) -> int:
    """The key of an octave of noise; that of the first is the noise's own."""
    return (key + number * _OCTAVE) & 0xFFFFFFFF


def hash_grid(key: int, rows: I64, columns: I64) -> U32:
    """Hashes of the lattice points rows × columns, shape (len(rows), len(columns))."""
    alone: U32 = hash_grids(_alone(key), rows, columns)[0]
    return alone


def hash_grids(keys: U32, rows: I64, columns: I64) -> U32:
    """``hash_grid`` for each of many keys, shape (keys, rows, columns)."""
    down = (rows.astype(np.uint32) * _ROW) ^ keys[:, None]
    return _finish(down[..., None] + columns.astype(np.uint32) * _COLUMN)


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
    """One axis of an upsampling: the control points, and for each pixel the indices of its three and their weights."""

    points: I64
    held: tuple[I64, I64, I64]
    weights: tuple[F32, F32, F32]


@lru_cache(maxsize=8192)
def _axis(start: int, count: int, wavelength: float) -> _Axis:
    """The axis of pixels start … start + count − 1; control point k sits at pixel k · wavelength."""
    place = (np.arange(start, start + count) + 0.5) / wavelength
    nearest = np.floor(place + 0.5)
    t = place - nearest
    weights = (0.5 * (0.5 - t) ** 2, 0.75 - t**2, 0.5 * (0.5 + t) ** 2)
    before, at, after = (weight.astype(np.float32) for weight in weights)
    low = int(nearest[0]) - 1
    points = np.arange(low, int(nearest[-1]) + 2, dtype=np.int64)
    first = nearest.astype(np.int64) - 1 - low
    return _Axis(points, (first, first + 1, first + 2), (before, at, after))


def _surface(lattice: F32, down: _Axis, across: _Axis) -> F32:
    """Lattices (…, i, j) as surfaces (…, rows, columns)."""
    # Columns first, while there are few rows: then the large passes copy whole rows, which is much the faster gather.
    strip = _weighted(lattice, across.held, across.weights, -1)
    return _weighted(
        strip, down.held, (down.weights[0][:, None], down.weights[1][:, None], down.weights[2][:, None]), -2
    )


def _weighted(values: F32, held: tuple[I64, I64, I64], weights: tuple[F32, F32, F32], axis: int) -> F32:
    """The sum along one axis of what is held there, weighted; always added in the same order."""
    out: F32 = values.take(held[0], axis=axis)
    out *= weights[0]
    part: F32 = values.take(held[1], axis=axis)
    part *= weights[1]
    out += part
    # Indices are within bounds; clipping only spares the buffer that a checked copy takes.
    values.take(held[2], axis=axis, out=part, mode="clip")
    part *= weights[2]
    out += part
    return out


def upsample(lattice: F32, rows: I64, columns: I64, wavelength: float, origin: tuple[int, int]) -> F32:
    """Quadratic B-spline surface over a lattice (…, i, j) of control points.

    ``lattice[i, j]`` sits at pixel ((origin[0] + i)·wavelength, (origin[1] + j)·wavelength); the result has shape
    (…, rows, columns) at the centres of the pixels named by absolute index, which must be consecutive.
    """
    down, across = _axis(int(rows[0]), len(rows), wavelength), _axis(int(columns[0]), len(columns), wavelength)
    top, left = int(down.points[0]) - origin[0], int(across.points[0]) - origin[1]
    held = lattice[..., top : top + len(down.points), left : left + len(across.points)]
    return _surface(held, down, across)


def smooth(key: int, rows: I64, columns: I64, wavelength: float) -> F32:
    """Smooth noise of mean 0 and unit variance whose features are about ``wavelength`` pixels wide."""
    alone: F32 = smooths(_alone(key), rows, columns, wavelength)[0]
    return alone


def smooths(keys: U32, rows: I64, columns: I64, wavelength: float) -> F32:
    """``smooth`` for each of many keys, shape (keys, rows, columns)."""
    down, across = _axis(int(rows[0]), len(rows), wavelength), _axis(int(columns[0]), len(columns), wavelength)
    lattice = normal(hash_grids(keys, down.points, across.points))
    lattice *= _SPREAD_2D
    return _surface(lattice, down, across)


def fractal(key: int, rows: I64, columns: I64, octaves: tuple[tuple[float, float], ...]) -> F32:
    """Weighted sum of smooth octaves given as (wavelength, weight), scaled to unit variance."""
    alone: F32 = fractals(_alone(key), rows, columns, octaves)[0]
    return alone


def fractals(keys: U32, rows: I64, columns: I64, octaves: tuple[tuple[float, float], ...]) -> F32:
    """``fractal`` for each of many keys, shape (keys, rows, columns)."""
    total: F32 | None = None
    for number, (wavelength, weight) in enumerate(octaves):
        octave = smooths(keys + np.uint32(octave_key(0, number)), rows, columns, wavelength)
        octave *= np.float32(weight)
        if total is None:
            total = octave
        else:
            total += octave
    if total is None:
        raise ValueError("noise needs an octave")
    total *= np.float32(1.0 / np.sqrt(sum(weight**2 for _, weight in octaves)))
    return total


def space(key: int, points: F64, wavelengths: tuple[float, ...]) -> F64:
    """Smooth noise in space for points (n, 3), one octave per wavelength: (n, octaves), mean 0, about unit variance."""
    place = points[:, None, :] / np.asarray(wavelengths)[None, :, None]
    base = np.floor(place)
    t = place - base
    s = t * t * (3.0 - 2.0 * t)
    corner = base.astype(np.int64).astype(np.uint32)[None] + _CORNERS[:, None, None, :]
    keys = (np.uint32(key) + np.arange(len(wavelengths), dtype=np.uint32) * np.uint32(_OCTAVE))[None, None, :]
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
