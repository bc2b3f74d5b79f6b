"""Seeded noise as a pure function of lattice indices: hashes, white noise, smooth octaves in a plane and in space.

Nothing is drawn from a generator with state: the value at a place depends on the place and the salt alone, so any
window of the world can be computed by itself and agrees bit for bit with any other window that overlaps it. For that
reason everything here is elementwise arithmetic, never a matrix product (whose rounding depends on shapes).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

_ROW, _COLUMN, _LAYER = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
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


def _spline(index: I64, wavelength: float) -> tuple[I64, tuple[F32, F32, F32]]:
    """First lattice index and the three quadratic B-spline weights of each pixel centre along one axis."""
    place = (index + 0.5) / wavelength
    nearest = np.floor(place + 0.5)
    t = place - nearest
    weights = (0.5 * (0.5 - t) ** 2, 0.75 - t**2, 0.5 * (0.5 + t) ** 2)
    first, middle, last = (weight.astype(np.float32) for weight in weights)
    return nearest.astype(np.int64) - 1, (first, middle, last)


def upsample(lattice: F32, rows: I64, columns: I64, wavelength: float, origin: tuple[int, int]) -> F32:
    """Quadratic B-spline surface through a lattice of control points.

    ``lattice[i, j]`` sits at pixel ((origin[0] + i)·wavelength, (origin[1] + j)·wavelength); the result has shape
    (len(rows), len(columns)) at the centres of the pixels named by absolute index.
    """
    first_row, row_weights = _spline(rows, wavelength)
    first_column, column_weights = _spline(columns, wavelength)
    i, j = first_row - origin[0], first_column - origin[1]
    down = lattice[i] * row_weights[0][:, None]
    down += lattice[i + 1] * row_weights[1][:, None]
    down += lattice[i + 2] * row_weights[2][:, None]
    out = down.take(j, axis=1) * column_weights[0]
    out += down.take(j + 1, axis=1) * column_weights[1]
    out += down.take(j + 2, axis=1) * column_weights[2]
    return out


def lattice_span(index: I64, wavelength: float) -> I64:
    """Indices of all control points that ``upsample`` needs for the pixels ``index`` (ascending)."""
    low = int(np.floor((index[0] + 0.5) / wavelength + 0.5)) - 1
    high = int(np.floor((index[-1] + 0.5) / wavelength + 0.5)) + 1
    return np.arange(low, high + 1, dtype=np.int64)


def smooth(key: int, rows: I64, columns: I64, wavelength: float) -> F32:
    """Smooth noise of mean 0 and unit variance whose features are about ``wavelength`` pixels wide."""
    down, across = lattice_span(rows, wavelength), lattice_span(columns, wavelength)
    lattice = normal(hash_grid(key, down, across))
    lattice *= _SPREAD_2D
    return upsample(lattice, rows, columns, wavelength, (int(down[0]), int(across[0])))


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
    octaves = np.arange(len(wavelengths), dtype=np.int64)
    place = points[:, None, :] / np.asarray(wavelengths)[None, :, None]
    base = np.floor(place)
    t = place - base
    s = t * t * (3.0 - 2.0 * t)
    corner = base.astype(np.int64)
    keys = (np.uint32(key) + octaves.astype(np.uint32) * np.uint32(0x632BE5AB))[None, :]
    total = np.zeros(place.shape[:2])
    for number in range(8):
        steps = (number & 1, (number >> 1) & 1, number >> 2)
        x, y, z = (corner[..., axis] + step for axis, step in enumerate(steps))
        state = _finish(keys + x.astype(np.uint32) * _ROW)
        state = _finish(state + y.astype(np.uint32) * _COLUMN)
        value = normal(_finish(state + z.astype(np.uint32) * _LAYER)).astype(np.float64)
        for axis, step in enumerate(steps):
            value *= s[..., axis] if step else 1.0 - s[..., axis]
        total += value
    return total * 1.6


def sphere(lon: F64, lat: F64) -> F64:
    """Unit vectors of points in degrees, shape (n, 3)."""
    longitude, latitude = np.radians(np.ravel(lon)), np.radians(np.ravel(lat))
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
