"""Which patches a sample shows, and every other random draw of training, as a pure function of its key.

A draw depends on (seed, epoch, location_id) and on nothing else: not on the batch a sample falls into, the number of
workers, the order of reading or how often a run was resumed. There is no generator state to save.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Purpose = Literal["order", "row", "crop", "flip", "mask"]
_PURPOSES: dict[Purpose, int] = {"order": 1, "row": 2, "crop": 3, "flip": 4, "mask": 5}

KEEP_FRACTION = 0.4
"""Share of patches that stay visible; the mask ratio of MP-MAE is 0.6 (MMEarth, section 4)."""


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection of 64 bits that passes for random (Steele et al. 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def draw(seed: int, epoch: int, keys: NDArray[np.int64], purpose: Purpose, count: int) -> NDArray[np.uint64]:
    """``count`` independent uniform 64-bit numbers for each key, shape (keys, count)."""
    state = np.zeros((len(keys), 1), dtype=np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    parts = (
        np.full((1, 1), seed, dtype=np.int64),
        np.full((1, 1), epoch, dtype=np.int64),
        keys.astype(np.int64)[:, None],
        np.full((1, 1), _PURPOSES[purpose], dtype=np.int64),
        np.arange(count, dtype=np.int64)[None, :],
    )
    for part in parts:
        state = _mix(state + golden ^ part.view(np.uint64))
    return state


def below(numbers: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """64-bit numbers reduced to 0 … bound − 1, same shape (the bias is below 2⁻⁴⁰ for any crop or flip)."""
    return (numbers % np.uint64(bound)).astype(np.int64)


def visible_count(patches: int) -> int:
    """How many of ``patches`` stay visible: int(0.4 · L), 19 of 49."""
    return int(KEEP_FRACTION * patches)


def split_patches(
    seed: int, epoch: int, location_id: NDArray[np.int64], patches: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the visible (N, K) and the masked (N, L − K) patches of each location, both in ascending order."""
    order = np.argsort(draw(seed, epoch, location_id, "mask", patches), axis=1, kind="stable")
    keep = visible_count(patches)
    return np.sort(order[:, :keep], axis=1), np.sort(order[:, keep:], axis=1)
