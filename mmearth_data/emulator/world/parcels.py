"""Fields: farmland divided into straight-edged parcels, each region with its own directions and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.setting import Setting, World

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

_ESTATE = 150.0
"""Width in pixels of an estate: a patch of land whose parcels share direction and size."""
_SWING = 22.0
"""By how many pixels the borders of estates bend."""
_SHORTEST, _LONGEST = 5.0, 46.0


@dataclass(frozen=True)
class Parcels:
    """``identity`` is a random number per parcel; ``edge`` the distance in pixels to the nearest parcel border."""

    identity: U32
    edge: F32


@compiled
def _estates(row: int, column: int, bends: tuple[F32, F32]) -> I64:
    """Row and column of the estate that each pixel of a block lies in: (2, rows, columns)."""
    out = np.empty((2, *bends[0].shape), dtype=np.int64)
    scale, half, swing = np.float32(1.0 / _ESTATE), np.float32(0.5), np.float32(_SWING)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[0, i, j] = np.floor((np.float32(row + i) + half + swing * bends[0][i, j]) * scale)
            out[1, i, j] = np.floor((np.float32(column + j) + half + swing * bends[1][i, j]) * scale)
    return out


@compiled
def _lots(row: int, column: int, estates: I64, index: I64, shapes: F32) -> tuple[I64, F32]:
    """How many parcels each pixel's lies along and beside the middle of its estate (2, pixels), and ``Parcels.edge``.

    ``index`` tells the number of each pixel's estate in ``shapes``: cosine and sine of its direction, length, breadth.
    """
    height, width = index.shape
    whole, edge = np.empty((2, height * width), dtype=np.int64), np.empty((height, width), dtype=np.float32)
    half, one = np.float32(0.5), np.float32(1.0)
    for i in range(height):
        for j in range(width):
            own = index[i, j]
            cosine, sine, length, breadth = shapes[0, own], shapes[1, own], shapes[2, own], shapes[3, own]
            # Coordinates relative to the estate keep float32 exact; any origin common to the estate does.
            down = np.float32(row + i) + half - np.float32(estates[0, i, j] * _ESTATE)
            across = np.float32(column + j) + half - np.float32(estates[1, i, j] * _ESTATE)
            along = (across * cosine + down * sine) / length
            beside = (down * cosine - across * sine) / breadth
            low_along, low_beside = np.floor(along), np.floor(beside)
            whole[0, i * width + j], whole[1, i * width + j] = low_along, low_beside
            ahead, aside = along - low_along, beside - low_beside
            edge[i, j] = min(min(ahead, one - ahead) * length, min(aside, one - aside) * breadth)
    return whole, edge


def make(world: World, block: Block, setting: Setting) -> Parcels:
    """The parcels of a block."""
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "parcels")
    bends = noise.smooth(key ^ 1, rows, columns, 260.0), noise.smooth(key ^ 2, rows, columns, 260.0)
    estates = _estates(rows[0], columns[0], bends)
    (top, left), (bottom, right) = estates.min(axis=(1, 2)), estates.max(axis=(1, 2))
    grid_rows, grid_columns = np.arange(top, bottom + 1), np.arange(left, right + 1)
    # Sizes are settled per estate, so that a parcel has one shape: the region's factor is taken from its hash alone.
    chance = [noise.uniform(noise.hash_grid(key ^ salt, grid_rows, grid_columns)).ravel() for salt in (3, 4, 5)]
    angle = chance[0] * np.float32(np.pi)
    size = np.float32(_SHORTEST) * np.exp(chance[1] * np.float32(np.log(_LONGEST / _SHORTEST)))
    stretch = np.sqrt(np.float32(1.0) + np.float32(2.2) * chance[2])
    shapes = np.stack([np.cos(angle), np.sin(angle), size * stretch, size / stretch])
    index = (estates[0] - top) * len(grid_columns) + (estates[1] - left)
    whole, edge = _lots(rows[0], columns[0], estates, index, shapes)
    estate = noise.hash_grid(key ^ 6, grid_rows, grid_columns).ravel()[index]
    return Parcels(noise.hash_points(key ^ 7, *whole, estate.ravel()).reshape(index.shape), edge)
