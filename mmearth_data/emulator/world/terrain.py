"""Heights at 10 m: hills on the setting's heights, valleys along streams, shores, and where water stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.setting import Setting, World

F32 = NDArray[np.float32]

_HILLS = ((260.0, 1.0), (105.0, 0.45), (42.0, 0.2), (17.0, 0.085), (7.0, 0.03))
_COAST = ((130.0, 1.0), (45.0, 0.5), (15.0, 0.25))
_LAKES = ((170.0, 1.0), (70.0, 0.5), (26.0, 0.22))
_RIVER, _STREAM = 720.0, 190.0
"""Wavelengths in pixels of the fields whose zero lines are rivers and streams."""


@dataclass(frozen=True)
class Terrain:
    """Terrain of a block at 10 m.

    ``elevation`` in metres; ``east`` and ``north`` its gradient (metres per metre); ``wetness`` is 0 on ridges and
    about 1 beside streams; ``shore`` is negative at sea; ``water`` where there is sea, lake or river, ``narrow`` where
    it is a river that bridges can cross.
    """

    elevation: F32
    east: F32
    north: F32
    wetness: F32
    shore: F32
    water: NDArray[np.bool_]
    narrow: NDArray[np.bool_]

    @cached_property
    def slope(self) -> F32:
        """Rise over run."""
        steepness: F32 = np.hypot(self.east, self.north)
        return steepness


def _bell(values: F32, width: float) -> F32:
    result: F32 = np.exp(-np.square(values * np.float32(1.0 / width)))
    return result


def quantile(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The level that unit normal noise exceeds with this probability (logistic approximation)."""
    bounded = np.clip(share, 1e-5, 1.0 - 1e-5)
    result: NDArray[np.float64] = np.log((1.0 - bounded) / bounded) / 1.702
    return result


def make(world: World, block: Block, setting: Setting) -> Terrain:
    """The terrain of a block."""
    rows, columns = block.rows(), block.columns()
    # One pixel more on each side than the block shows, for the gradient.
    wide_rows = np.arange(rows[0] - 1, rows[-1] + 2)
    wide_columns = np.arange(columns[0] - 1, columns[-1] + 2)
    key = noise.salt(world.seed, "terrain")

    def wide(nodes: NDArray[np.float64]) -> F32:
        lattice = nodes.astype(np.float32).reshape(4, 4)
        return noise.upsample(lattice, wide_rows, wide_columns, 128.0, (block.row - 1, block.column - 1))

    relief = wide(setting.relief)
    shore = wide(setting.shore)
    shore += np.float32(0.9) * noise.fractal(key ^ 1, wide_rows, wide_columns, _COAST)
    river = noise.smooth(key ^ 2, wide_rows, wide_columns, _RIVER)
    river += np.float32(0.10) * noise.fractal(key ^ 3, wide_rows, wide_columns, ((110.0, 1.0), (40.0, 0.4)))
    stream = noise.smooth(key ^ 4, wide_rows, wide_columns, _STREAM)
    stream += np.float32(0.12) * noise.smooth(key ^ 5, wide_rows, wide_columns, 45.0)
    valley, gully = _bell(river, 0.30), _bell(stream, 0.22)
    hills = noise.fractal(key ^ 6, wide_rows, wide_columns, _HILLS)
    height = wide(setting.height)
    height += relief * (np.float32(3.2) * hills - np.float32(2.6) * valley - np.float32(1.0) * gully)
    # Land rises from the shore over about a kilometre of it; the sea floor is not rendered.
    rise = np.clip(shore * np.float32(1.0 / 14.0), 0.0, 1.0)
    height = np.maximum(height, np.float32(0.6)) * rise
    inner = slice(1, -1)
    lakes = noise.fractal(key ^ 7, rows, columns, _LAKES)
    lake_level = block.spread(quantile(setting.trait["lakes"]) - 0.55 * setting.layer["lakes 14"])
    flat = np.float32(1.0) - np.clip((relief[inner, inner] - np.float32(1.0)) * np.float32(1 / 14.0), 0.0, 1.0)
    lake = lakes * np.float32(0.84) + np.float32(0.35) * gully[inner, inner] - lake_level
    lake_here = (lake > 0.0) & (flat > 0.15)
    # Rivers are as wide as the rain of their region lets them be; the field's slope turns width into a level.
    width = block.spread(
        7.0 * np.exp(0.9 * setting.layer["rivers 40"]) * np.clip(1.0 - setting.trait["bare"] * 1.5, 0.0, 1.0)
    )
    level = width * np.float32(1.25 / _RIVER)
    size = np.abs(river[inner, inner])
    brook = np.abs(stream[inner, inner]) < np.maximum(width - np.float32(9.0), 0.0) * np.float32(0.15 / _STREAM)
    sea = shore[inner, inner] < 0.0
    still = sea | (lake_here & (block.spread(setting.ice) < 0.5))
    flowing = (size < level) | brook
    bank = np.maximum(valley[inner, inner], np.float32(0.7) * gully[inner, inner])
    wetness = bank + np.float32(0.5) * np.clip(lake + np.float32(0.6), 0.0, 0.6) * flat
    elevation = height[inner, inner]
    return Terrain(
        elevation=elevation,
        east=(height[inner, 2:] - height[inner, :-2]) * np.float32(0.05),
        north=(height[:-2, inner] - height[2:, inner]) * np.float32(0.05),
        wetness=np.clip(wetness, 0.0, 1.3),
        shore=shore[inner, inner],
        water=still | flowing,
        narrow=flowing & ~still,
    )
