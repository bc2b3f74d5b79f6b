"""What others have mapped from the world once: WorldCover, canopy height, elevation; each with its errors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import (
    BARE,
    BUILT,
    GRASS,
    SHRUB,
    SNOW,
    TREES,
    VALUES,
    WATER,
    WETLAND,
    ground,
)
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

NO_CANOPY = 255
"""What the canopy maps hold where they have no estimate."""
VOID = -32768
"""What the elevation holds in its voids."""

# What a class is mistaken for: trees, shrub, grass, crops, built, bare, snow, water, wetland, mangroves, moss.
_MISTAKEN = np.array([SHRUB, GRASS, SHRUB, GRASS, BARE, GRASS, BARE, WETLAND, GRASS, TREES, GRASS], dtype=np.uint8)
_DOUBT = np.array([0.05, 0.22, 0.16, 0.14, 0.12, 0.12, 0.06, 0.01, 0.25, 0.14, 0.20], dtype=np.float32)
"""Share of a class that a good map gets wrong."""


def mistakes(key: int, block: Block, wavelength: float) -> F32:
    """A field of [0, 1) whose small values are where a map errs: patches and single pixels."""
    rows, columns = block.rows(), block.columns()
    field = noise.fractal(key, rows, columns, ((wavelength, 1.0), (wavelength / 3.0, 0.8)))
    field += np.float32(0.45) * noise.white(key ^ 0x2C1B3C6D, rows, columns)
    chance: F32 = np.float32(1.0) / (np.float32(1.0) + np.exp(np.float32(1.55) * field))
    return chance


def worldcover(world: World, block: Block) -> U8:
    """ESA WorldCover's value at 10 m."""
    cover = ground(world, block).cover
    wrong = mistakes(noise.salt(world.seed, "worldcover"), block, 14.0) < _DOUBT[cover]
    return VALUES[np.where(wrong, _MISTAKEN[cover], cover)]


def worldcover_2021(world: World, block: Block) -> U8:
    """ESA WorldCover's value of 2021 at 10 m: a better algorithm, so fewer mistakes and others."""
    cover = ground(world, block).cover
    wrong = mistakes(noise.salt(world.seed, "worldcover 2021"), block, 14.0) < _DOUBT[cover] * np.float32(0.8)
    return VALUES[np.where(wrong, _MISTAKEN[cover], cover)]


@lru_cache(maxsize=96)
def _estimate(world: World, block: Block) -> tuple[F32, F32, NDArray[np.bool_]]:
    """Canopy height as a model estimates it from images, its standard deviation, and where it says nothing."""
    land = ground(world, block)
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "canopy estimate")
    blur = noise.fractal(key, rows, columns, ((40.0, 1.0), (7.0, 0.8), (2.5, 0.6)))
    # Tall canopies look alike from above, so the estimate saturates and its error grows with height.
    height = land.canopy * (np.float32(1.0) - land.canopy * np.float32(0.004))
    height += blur * (np.float32(0.5) + np.float32(0.10) * land.canopy)
    spread = np.float32(1.3) + np.float32(0.19) * land.canopy + np.float32(0.6) * np.abs(blur)
    spread += np.float32(6.0) * land.terrain.slope
    silent = (land.cover == WATER) | (land.cover == SNOW) | ((land.cover == BUILT) & (land.town > 0.3))
    silent |= (land.cover == BARE) & (land.vigour < 0.02)
    return height, spread.astype(np.float32), silent


def canopy(world: World, block: Block) -> U8:
    """Canopy height in metres, ``NO_CANOPY`` where there is no estimate."""
    height, _, silent = _estimate(world, block)
    return np.where(silent, np.uint8(NO_CANOPY), np.clip(np.rint(height), 0.0, 60.0).astype(np.uint8))


def canopy_sd(world: World, block: Block) -> U8:
    """Standard deviation of the canopy height in metres, ``NO_CANOPY`` where there is no estimate."""
    _, spread, silent = _estimate(world, block)
    return np.where(silent, np.uint8(NO_CANOPY), np.clip(np.rint(spread), 1.0, 30.0).astype(np.uint8))


def elevation(world: World, block: Block) -> NDArray[np.int16]:
    """ASTER's elevation in metres: half of the canopy, striped noise, and voids in steep or icy places."""
    land = ground(world, block)
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "aster")
    error = noise.fractal(key, rows, columns, ((90.0, 1.2), (24.0, 1.0), (7.0, 0.8)))
    height = land.terrain.elevation + np.float32(0.5) * land.canopy + np.float32(3.2) * error
    height[(land.cover == WATER) & (land.terrain.shore < 0.0)] = 0.0
    gap = noise.smooth(key ^ 9, rows, columns, 36.0) + np.float32(0.9) * land.terrain.slope
    gap += np.float32(0.5) * (land.cover == SNOW)
    value: NDArray[np.int16] = np.rint(height).astype(np.int16)
    value[gap > 3.1] = VOID
    return value
