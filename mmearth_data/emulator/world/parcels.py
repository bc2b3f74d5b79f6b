"""Fields: farmland divided into straight-edged parcels, each region with its own directions and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.setting import Setting, World

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

_ESTATE = 150.0
"""Width in pixels of an estate: a patch of land whose parcels share direction and size."""
_SHORTEST, _LONGEST = 5.0, 46.0


@dataclass(frozen=True)
class Parcels:
    """``identity`` is a random number per parcel; ``edge`` the distance in pixels to the nearest parcel border."""

    identity: U32
    edge: F32


def make(world: World, block: Block, setting: Setting) -> Parcels:
    """The parcels of a block."""
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "parcels")
    down = rows.astype(np.float32)[:, None] + np.float32(0.5)
    across = columns.astype(np.float32)[None, :] + np.float32(0.5)
    bend_down = np.float32(22.0) * noise.smooth(key ^ 1, rows, columns, 260.0)
    bend_across = np.float32(22.0) * noise.smooth(key ^ 2, rows, columns, 260.0)
    estate_row = np.floor((down + bend_down) * np.float32(1.0 / _ESTATE)).astype(np.int64)
    estate_column = np.floor((across + bend_across) * np.float32(1.0 / _ESTATE)).astype(np.int64)
    top, left = int(estate_row.min()), int(estate_column.min())
    grid_rows = np.arange(top, int(estate_row.max()) + 1)
    grid_columns = np.arange(left, int(estate_column.max()) + 1)
    # Sizes are settled per estate, so that a parcel has one shape: the region's factor is taken from its hash alone.
    chance = [noise.uniform(noise.hash_grid(key ^ salt, grid_rows, grid_columns)).ravel() for salt in (3, 4, 5)]
    angle = chance[0] * np.float32(np.pi)
    size = np.float32(_SHORTEST) * np.exp(chance[1] * np.float32(np.log(_LONGEST / _SHORTEST)))
    ratio = np.float32(1.0) + np.float32(2.2) * chance[2]
    index = (estate_row - top) * len(grid_columns) + (estate_column - left)
    cosine, sine = np.cos(angle)[index], np.sin(angle)[index]
    length, breadth = (size * np.sqrt(ratio))[index], (size / np.sqrt(ratio))[index]
    # Coordinates relative to the estate keep float32 exact; any origin common to the estate does.
    local_down = down - (estate_row * _ESTATE).astype(np.float32)
    local_across = across - (estate_column * _ESTATE).astype(np.float32)
    along = (local_across * cosine + local_down * sine) / length
    beside = (local_down * cosine - local_across * sine) / breadth
    whole_along, whole_beside = np.floor(along), np.floor(beside)
    estate = noise.hash_grid(key ^ 6, grid_rows, grid_columns).ravel()[index]
    part_along, part_beside = along - whole_along, beside - whole_beside
    edge = np.minimum(
        np.minimum(part_along, np.float32(1.0) - part_along) * length,
        np.minimum(part_beside, np.float32(1.0) - part_beside) * breadth,
    )
    identity = noise.hash_points(key ^ 7, whole_along.astype(np.int64), whole_beside.astype(np.int64), estate)
    return Parcels(identity, edge)
