"""Geographic blocks of about 100 km, folds that never split one, and bootstrap intervals over them.

Neighbouring tiles resemble each other, so tiles are neither cross-validated nor resampled one by one: a block is
the unit of both (Roberts et al. 2017, doi:10.1111/ecog.02881).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_KM = 6371.007
"""Radius of the sphere with the area of the WGS 84 ellipsoid (authalic radius)."""
BLOCK_KM = 100.0
FOLDS = 5
REPLICATES = 1000
CONFIDENCE = 0.95

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def block_ids(lon: ArrayLike, lat: ArrayLike, size_km: float = BLOCK_KM) -> IntArray:
    """The block of each point in degrees, shape (n,): cells of one area on rows of latitude.

    Rows are ``size_km`` high; each row is cut into the whole number of columns that brings the area of its cells
    on the sphere closest to ``size_km``². Ids count row by row from the south pole, from 180° W eastwards.
    """
    lon_, lat_ = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    rows = round(np.pi * EARTH_RADIUS_KM / size_km)
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, rows + 1))
    band_km2 = 2 * np.pi * EARTH_RADIUS_KM**2 * np.diff(edges)
    columns = np.maximum(1, np.rint(band_km2 / size_km**2)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(columns)[:-1]])
    row = np.clip(np.floor((lat_ + 90.0) / 180.0 * rows), 0, rows - 1).astype(np.int64)
    column = np.floor((lon_ + 180.0) % 360.0 / 360.0 * columns[row]).astype(np.int64)
    result: IntArray = first[row] + np.minimum(column, columns[row] - 1)
    return result


def assign_folds(block: IntArray, seed: int, folds: int = FOLDS) -> IntArray:
    """The fold 0 … folds − 1 of each tile, shape (n,): blocks in seeded random order, each to the emptiest fold."""
    _, member, sizes = np.unique(block, return_inverse=True, return_counts=True)
    fold_of_block = np.empty(len(sizes), dtype=np.int64)
    filled = np.zeros(folds, dtype=np.int64)
    for index in np.random.default_rng([seed, folds]).permutation(len(sizes)):
        fold = int(np.argmin(filled))
        fold_of_block[index] = fold
        filled[fold] += sizes[index]
    result: IntArray = fold_of_block[member]
    return result


def sum_by_block(values: FloatArray, block: IntArray) -> FloatArray:
    """Sums over the tiles of each block, (n, k) → (blocks, k), blocks in order of id."""
    blocks, member = np.unique(block, return_inverse=True)
    sums = np.zeros((len(blocks), values.shape[1]))
    np.add.at(sums, member, values)
    return sums


@lru_cache(maxsize=1)
def _draws(blocks: int, replicates: int, seed: int) -> FloatArray:
    """How often each replicate draws each block, (replicates, blocks); the scores of one target share it."""
    rng = np.random.default_rng([seed, blocks])
    return rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=replicates).astype(np.float64)


def resample(block_sums: FloatArray, replicates: int = REPLICATES, seed: int = 0) -> FloatArray:
    """Totals over blocks drawn with replacement, as many as there are: (blocks, k) → (replicates, k).

    The draw depends on the number of blocks and the seed alone, so every encoder meets the same replicates.
    """
    result: FloatArray = _draws(len(block_sums), replicates, seed) @ block_sums
    return result


def interval(values: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Lower and upper end of the percentile interval of bootstrap values; undefined replicates (NaN) are left out."""
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values[np.isfinite(values)], [tail, 1.0 - tail])
    return float(low), float(high)
