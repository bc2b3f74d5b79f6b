"""Seeded noise as a pure function of lattice indices: hashes, white noise, smooth octaves in a plane and in space.

Nothing is drawn from a generator with state: the value at a place depends on the place and the salt alone, so any
window of the world can be computed by itself and agrees bit for bit with any other window that overlaps it. For that
reason everything here is elementwise arithmetic, never a matrix product (whose rounding depends on shapes).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import lattices

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]


def salt(*parts: object) -> int:
    """A 32-bit salt from any parts that have a stable text form; different parts give independent noise."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _alone(key: int) -> U32:
    return np.array([key], dtype=np.uint32)


def octave_key(key: int, number: int) -> int:
    """The key of an octave of noise; that of the first is the noise's own."""
    return (key + number * lattices.OCTAVE) & 0xFFFFFFFF


def hash_grid(key: int, rows: I64, columns: I64) -> U32:
    """Hashes of the lattice points rows × columns, shape (len(rows), len(columns))."""
    alone: U32 = hash_grids(_alone(key), rows, columns)[0]
    return alone


def hash_grids(keys: U32, rows: I64, columns: I64) -> U32:
    """``hash_grid`` for each of many keys, shape (keys, rows, columns)."""
    return lattices.hashes(keys, rows, columns)


def hash_points(key: int, *indices: NDArray[np.integer]) -> U32:
    """Hashes of points given by up to three equally shaped integer indices."""
    points = [np.ravel(index).astype(np.uint32) for index in indices]
    return lattices.of_points(key, points[0][None] if len(points) == 1 else np.stack(points)).reshape(
        np.shape(indices[0])
    )


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
    return lattices.whites(key, rows[0], columns[0], len(rows), len(columns))


def upsample(lattice: F32, rows: I64, columns: I64, wavelength: float, origin: tuple[int, int]) -> F32:
    """Quadratic B-spline surface over a lattice (…, i, j) of control points.

    ``lattice[i, j]`` sits at pixel ((origin[0] + i)·wavelength, (origin[1] + j)·wavelength); the result has shape
    (…, rows, columns) at the centres of the pixels named by absolute index, which must be consecutive.
    """
    held = lattice.reshape(-1, *lattice.shape[-2:])
    surfaces = lattices.surfaces(held, rows[0], columns[0], len(rows), len(columns), wavelength, *origin)
    return surfaces.reshape(*lattice.shape[:-2], len(rows), len(columns))


def smooth(key: int, rows: I64, columns: I64, wavelength: float) -> F32:
    """Smooth noise of mean 0 and unit variance whose features are about ``wavelength`` pixels wide."""
    alone: F32 = smooths(_alone(key), rows, columns, wavelength)[0]
    return alone


def smooths(keys: U32, rows: I64, columns: I64, wavelength: float) -> F32:
    """``smooth`` for each of many keys, shape (keys, rows, columns)."""
    return _octaves(keys, rows, columns, ((wavelength, 1.0),), 1.0)


def fractal(key: int, rows: I64, columns: I64, octaves: tuple[tuple[float, float], ...]) -> F32:
    """Weighted sum of smooth octaves given as (wavelength, weight), scaled to unit variance."""
    alone: F32 = fractals(_alone(key), rows, columns, octaves)[0]
    return alone


def fractals(keys: U32, rows: I64, columns: I64, octaves: tuple[tuple[float, float], ...]) -> F32:
    """``fractal`` for each of many keys, shape (keys, rows, columns)."""
    if not octaves:
        raise ValueError("noise needs an octave")
    return _octaves(keys, rows, columns, octaves, 1.0 / np.sqrt(sum(weight**2 for _, weight in octaves)))


def _octaves(keys: U32, rows: I64, columns: I64, octaves: tuple[tuple[float, float], ...], scale: float) -> F32:
    wavelengths = np.array([wavelength for wavelength, _ in octaves])
    weights = np.array([weight for _, weight in octaves], dtype=np.float32)
    return lattices.octaves(keys, rows[0], columns[0], len(rows), len(columns), wavelengths, weights, scale)


def space(key: int, points: F64, wavelengths: tuple[float, ...]) -> F64:
    """Smooth noise in space for points (n, 3), one octave per wavelength: (n, octaves), mean 0, about unit variance."""
    return lattices.spaces(key, points, np.array(wavelengths))


def sphere(lon: F64, lat: F64) -> F64:
    """Unit vectors of points in degrees, shape (n, 3)."""
    longitude, latitude = np.radians(np.ravel(lon)), np.radians(np.ravel(lat))
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
