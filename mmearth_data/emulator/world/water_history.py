"""Surface water from 1984 to 2021 as the Global Surface Water maps tell it: how often, when, and how that changed.

Follows from the land that is there: open water stands the steadier the wetter its climate, wetlands and mangroves are
flooded now and then, river banks seldom. Layers and their meaning are those of JRC/GSW1_4/GlobalSurfaceWater
(Pekel et al. 2016, doi:10.1038/nature20584), whose pixels of 30 m see water where a good part of them is wet.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world import blocks, noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import BUILT, MANGROVES, SNOW, TREES, WATER, WETLAND, ground
from mmearth_data.emulator.world.scenes import Masked, Read
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]

BANDS: dict[str, str] = {
    "occurrence": "uint8",
    "change_abs": "int8",
    "change_norm": "int8",
    "seasonality": "uint8",
    "recurrence": "uint8",
    "transition": "uint8",
    "max_extent": "uint8",
}
"""The asset's bands and their dtypes."""
_FINE = 3
"""Pixels of about 10 m along the side of one of 30 m."""
_SEEN = 0.4
"""Landsat calls a pixel water that is wet over at least this share of it."""
_NEVER = 0.01
_PERMANENT, _SEASONAL = 0.75, 0.05
_TRANSITIONS = np.array([[10, 5, 2], [6, 4, 7], [3, 8, 1]], dtype=np.uint8)
"""The asset's class by the state (none, seasonal, permanent) of the first epoch and of the second."""
_EPHEMERAL_PERMANENT = 9


def _sigmoid(values: F32) -> F32:
    result: F32 = np.float32(1.0) / (np.float32(1.0) + np.exp(-values))
    return result


@lru_cache(maxsize=32)
def _stands(world: World, block: Block) -> F32:
    """Share of the time with water in each epoch (1984–1999, 2000–2021) at 10 m: (2, rows, columns)."""
    land = ground(world, block)
    rows, columns, cover = block.rows(), block.columns(), land.cover
    key = noise.salt(world.seed, "water history")
    dry = block.spread(np.clip(land.setting.trait["bare"], 0.0, 1.0))
    regime = noise.smooth(key, rows, columns, 260.0) + np.float32(0.4) * noise.smooth(key ^ 1, rows, columns, 24.0)
    bank = (land.terrain.wetness - np.float32(0.95)) * np.float32(8.0)
    level = np.full(cover.shape, -20.0, dtype=np.float32)
    open_land = (bank > 0.0) & ~np.isin(cover, (TREES, BUILT, SNOW))
    for here, middle, reach in (
        (open_land, bank - np.float32(3.6) - np.float32(2.0) * dry, 0.8),
        (cover == WETLAND, np.float32(2.0) * (land.terrain.wetness - np.float32(1.2)), 1.0),
        (cover == MANGROVES, np.full_like(level, -0.6), 0.8),
        (cover == WATER, np.float32(4.2) - np.float32(4.0) * dry, 0.9),
        ((cover == WATER) & (land.terrain.shore < 0.0), np.full_like(level, 6.0), 0.2),
    ):
        level[here] = (middle + np.float32(reach) * regime)[here]
    drift = np.float32(0.55) * noise.smooth(key ^ 2, rows, columns, 400.0)
    shares = np.stack([_sigmoid(level - drift), _sigmoid(level + drift)])
    shares[shares < _NEVER] = 0.0
    return shares


def reader(world: World, band: str, grid: NativeGrid) -> Read:
    """A reader of windows of one band of the asset; masked where water was never seen."""
    a, _, c, _, e, f = grid.transform
    fine = NativeGrid(grid.crs, (a / _FINE, 0.0, c, 0.0, e / _FINE, f))

    def read(row0: int, column0: int, height: int, width: int) -> Masked:
        top, left, high, wide = (number * _FINE for number in (row0, column0, height, width))
        shares = blocks.window(fine, 1, top, left, high, wide, lambda block: _stands(world, block)).astype(np.float64)
        parts = shares.reshape(2, height, _FINE, width, _FINE)
        wet = (parts > 0.0).any(axis=0).mean(axis=(1, 3))
        before, after = parts.mean(axis=(2, 4))
        seen = (wet >= _SEEN) & (np.rint(50.0 * (before + after)) > 0)
        return _band(band, before, after), seen

    return read


def _band(band: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.generic]:
    """One layer from the shares of time with water in the two epochs."""
    if band == "occurrence":
        values = 50.0 * (before + after)
    elif band == "change_abs":
        values = 100.0 * (after - before)
    elif band == "change_norm":
        values = 100.0 * (before - after) / np.maximum(before + after, _NEVER)
    elif band == "seasonality":
        values = 12.0 * after**0.8
    elif band == "recurrence":
        values = 100.0 * (1.0 - (1.0 - after) ** 3)
    elif band == "transition":
        state = np.digitize(np.stack([before, after]), (_SEASONAL, _PERMANENT))
        values = _TRANSITIONS[state[0], state[1]].astype(np.float64)
        values[(state == 0).all(axis=0) & (np.maximum(before, after) > _SEASONAL / 2)] = _EPHEMERAL_PERMANENT
    else:
        values = np.ones_like(before)
    return np.rint(values).astype(BANDS[band])
