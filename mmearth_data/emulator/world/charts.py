"""What others have mapped from the world: WorldCover, Dynamic World, canopy height, elevation; each with its errors."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import climate, clouds, noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import (
    BARE,
    BUILT,
    GRASS,
    MANGROVES,
    MOSS,
    SHRUB,
    SNOW,
    TREES,
    VALUES,
    WATER,
    WETLAND,
    ground,
)
from mmearth_data.emulator.world.scenes import OpticalScene
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
_Kind = TypeVar("_Kind", bound=np.generic)

NO_CANOPY = 255
"""What the canopy maps hold where they have no estimate."""
VOID = -32768
"""What the elevation holds in its voids."""

# What a class is mistaken for: trees, shrub, grass, crops, built, bare, snow, water, wetland, mangroves, moss.
_MISTAKEN = np.array([SHRUB, GRASS, SHRUB, GRASS, BARE, GRASS, BARE, WETLAND, GRASS, TREES, GRASS], dtype=np.uint8)
_DOUBT = np.array([0.05, 0.22, 0.16, 0.14, 0.12, 0.12, 0.06, 0.01, 0.25, 0.14, 0.20], dtype=np.float32)
"""Share of a class that a good map gets wrong."""

_DW_WATER, _DW_TREES, _DW_GRASS, _DW_FLOODED, _, _DW_SHRUB, _DW_BUILT, _DW_BARE, _DW_SNOW = range(9)
_LABEL = np.array([1, 5, 2, 4, 6, 7, 8, 0, 3, 1, 5], dtype=np.uint8)
"""Dynamic World's label of each cover class."""
_LABEL_MISTAKEN = np.array(
    [_DW_FLOODED, _DW_SHRUB, _DW_SHRUB, _DW_GRASS, _DW_BARE, _DW_GRASS, _DW_BARE, _DW_SHRUB, _DW_BARE], dtype=np.uint8
)
_MAY_SNOW = 0.0
"""Above this temperature in °C no label changes to snow, whatever the scene's doubts."""
_LABEL_DOUBT = np.array([0.02, 0.05, 0.24, 0.22, 0.14, 0.20, 0.10, 0.10, 0.04], dtype=np.float32)
"""By label: water, trees, grass, flooded vegetation, crops, shrub and scrub, built, bare, snow and ice."""


def _mistakes(key: int, block: Block, wavelength: float) -> F32:
    """A field of [0, 1) whose small values are where a map errs: patches and single pixels."""
    rows, columns = block.rows(), block.columns()
    field = noise.fractal(key, rows, columns, ((wavelength, 1.0), (wavelength / 3.0, 0.8)))
    field += np.float32(0.45) * noise.white(key ^ 0x2C1B3C6D, rows, columns)
    chance: F32 = np.float32(1.0) / (np.float32(1.0) + np.exp(np.float32(1.55) * field))
    return chance


def worldcover(world: World, block: Block) -> U8:
    """ESA WorldCover's value at 10 m."""
    cover = ground(world, block).cover
    wrong = _mistakes(noise.salt(world.seed, "worldcover"), block, 14.0) < _DOUBT[cover]
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


@lru_cache(maxsize=96)
def _labelled(world: World, block: Block) -> tuple[U8, U8, F32, float]:
    """Dynamic World's usual label at 10 m, its second thought, how often it has that, the block's least warmth."""
    land = ground(world, block)
    label = _LABEL[land.cover]
    label[(land.cover == MOSS) & (land.vigour > 0.45)] = _DW_GRASS
    label[(land.cover == MANGROVES) & (land.vigour < 0.35)] = _DW_FLOODED
    wrong = _mistakes(noise.salt(world.seed, "dynamic world"), block, 9.0)
    label = np.where(wrong < _LABEL_DOUBT[label] * np.float32(0.6), _LABEL_MISTAKEN[label], label)
    return label, _LABEL_MISTAKEN[label], _LABEL_DOUBT[label], float(land.warmth.min())


def _twice(field: NDArray[_Kind]) -> NDArray[_Kind]:
    """A field of 20 m at 10 m."""
    return field.repeat(2, axis=0).repeat(2, axis=1)


@lru_cache(maxsize=128)
def _hidden(world: World, block: Block, datatake: int, month: float) -> NDArray[np.bool_]:
    """Where clouds hide the ground from a datatake, at 20 m; neighbouring tiles of the pass ask for the same."""
    return clouds.over(world.planet, block, datatake, month, None).opacity > np.float32(0.30)


def labels(world: World, block: Block, scene: OpticalScene) -> U8:
    """Dynamic World's label of a scene at 10 m, 255 under clouds."""
    usual, changed, doubt, coldest = _labelled(world, block)
    rows, columns = block.rows(2), block.columns(2)
    key = noise.salt("labels", scene.datatake)
    # A scene's doubts come in patches of 20 m and more.
    mood = noise.uniform(noise.hash_grid(key, rows, columns))
    mood += np.float32(0.12) * noise.smooth(key ^ 1, rows, columns, 3.0)
    label = np.where(_twice(mood) < doubt, changed, usual)
    land = ground(world, block)
    swing = land.setting.swing * climate.season(block.lat, scene.month)
    if float(swing.min()) + coldest < _MAY_SNOW:
        cold = land.warmth + block.spread(swing)
        snow = cold + _twice(np.clip(mood, -1.5, 2.5)) < np.float32(-2.0)
        snow &= (usual != _DW_TREES) & (usual != _DW_BUILT)
        snow &= (usual != _DW_WATER) | (cold < np.float32(-6.0))
        label[snow] = _DW_SNOW
    label[_twice(_hidden(world, block, scene.datatake, scene.month))] = 255
    return label
