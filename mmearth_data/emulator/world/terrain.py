"""Heights at 10 m: hills on the setting's heights, valleys along streams, shores, and where water stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.setting import Setting, World

F32 = NDArray[np.float32]
Bits = NDArray[np.bool_]

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
    water: Bits
    narrow: Bits

    @cached_property
    def slope(self) -> F32:
        """Rise over run."""
        steepness: F32 = np.hypot(self.east, self.north)
        return steepness


def quantile(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The level that unit normal noise exceeds with this probability (logistic approximation)."""
    bounded = np.clip(share, 1e-5, 1.0 - 1e-5)
    result: NDArray[np.float64] = np.log((1.0 - bounded) / bounded) / 1.702
    return result


@compiled
def _heights(coarse: F32, hills: F32, valley: F32, gully: F32) -> F32:
    """Metres above the sea from a block's height, relief and shore (3, rows, columns), hills and valleys."""
    out = np.empty(hills.shape, dtype=np.float32)
    for i in range(hills.shape[0]):
        for j in range(hills.shape[1]):
            fine = np.float32(3.2) * hills[i, j] - np.float32(2.6) * valley[i, j] - np.float32(1.0) * gully[i, j]
            height = coarse[0, i, j] + coarse[1, i, j] * fine
            # Land rises from the shore over about a kilometre of it; the sea floor is not rendered.
            rise = min(max(coarse[2, i, j] * np.float32(1.0 / 14.0), np.float32(0.0)), np.float32(1.0))
            out[i, j] = max(height, np.float32(0.6)) * rise
    return out


@compiled
def _surface(
    height: F32, coarse: F32, lines: tuple[F32, F32], valleys: F32, lakes: F32, nodes: F32
) -> tuple[F32, F32, Bits, Bits]:
    """``Terrain``'s gradient (east, north), wetness, water and narrow, from fields a pixel wider on each side.

    ``lines`` are the noise whose zero lines are rivers and streams, ``valleys`` the hollows that these lie in,
    ``coarse`` as in ``_heights``; ``nodes`` are the level above which lakes stand, the rivers' width and the ice, which
    are at the block's own pixels as ``lakes`` is.
    """
    gradient, wetness = np.empty((2, *lakes.shape), dtype=np.float32), np.empty(lakes.shape, dtype=np.float32)
    water, narrow = np.empty(lakes.shape, dtype=np.bool_), np.empty(lakes.shape, dtype=np.bool_)
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(lakes.shape[0]):
        for j in range(lakes.shape[1]):
            y, x = i + 1, j + 1
            gradient[0, i, j] = (height[y, x + 1] - height[y, x - 1]) * np.float32(0.05)
            gradient[1, i, j] = (height[y - 1, x] - height[y + 1, x]) * np.float32(0.05)
            flat = one - min(max((coarse[1, y, x] - one) * np.float32(1 / 14.0), zero), one)
            lake = lakes[i, j] * np.float32(0.84) + np.float32(0.35) * valleys[1, y, x] - nodes[0, i, j]
            standing = lake > zero and flat > np.float32(0.15) and nodes[2, i, j] < np.float32(0.5)
            still = coarse[2, y, x] < zero or standing
            # Rivers are as wide as the rain of their region lets them be; the field's slope turns width into a level.
            width = nodes[1, i, j]
            brook = max(width - np.float32(9.0), zero) * np.float32(0.15 / _STREAM)
            flowing = abs(lines[0][y, x]) < width * np.float32(1.25 / _RIVER) or abs(lines[1][y, x]) < brook
            bank = max(valleys[0, y, x], np.float32(0.7) * valleys[1, y, x])
            shallow = min(max(lake + np.float32(0.6), zero), np.float32(0.6))
            wetness[i, j] = min(max(bank + np.float32(0.5) * shallow * flat, zero), np.float32(1.3))
            water[i, j], narrow[i, j] = still or flowing, flowing and not still
    return gradient, wetness, water, narrow


def make(world: World, block: Block, setting: Setting) -> Terrain:
    """The terrain of a block."""
    rows, columns = block.rows(), block.columns()
    # One pixel more on each side than the block shows, for the gradient.
    wide = np.arange(rows[0] - 1, rows[-1] + 2), np.arange(columns[0] - 1, columns[-1] + 2)
    key, trait, layer = noise.salt(world.seed, "terrain"), setting.trait, setting.layer
    around = np.stack([setting.height, setting.relief, setting.shore]).astype(np.float32).reshape(3, 4, 4)
    coarse = noise.upsample(around, *wide, 128.0, (block.row - 1, block.column - 1))
    coarse[2] += np.float32(0.9) * noise.fractal(key ^ 1, *wide, _COAST)
    river = noise.smooth(key ^ 2, *wide, _RIVER)
    river += np.float32(0.10) * noise.fractal(key ^ 3, *wide, ((110.0, 1.0), (40.0, 0.4)))
    stream = noise.smooth(key ^ 4, *wide, _STREAM)
    stream += np.float32(0.12) * noise.smooth(key ^ 5, *wide, 45.0)
    valleys = np.stack([river * np.float32(1.0 / 0.30), stream * np.float32(1.0 / 0.22)])
    np.exp(-np.square(valleys, out=valleys), out=valleys)
    height = _heights(coarse, noise.fractal(key ^ 6, *wide, _HILLS), valleys[0], valleys[1])
    lake_level = quantile(trait["lakes"]) - 0.55 * layer["lakes 14"]
    width = 7.0 * np.exp(0.9 * layer["rivers 40"]) * np.clip(1.0 - trait["bare"] * 1.5, 0.0, 1.0)
    nodes = block.spread(np.stack([lake_level, width, setting.ice]))
    lakes = noise.fractal(key ^ 7, rows, columns, _LAKES)
    gradient, wetness, water, narrow = _surface(height, coarse, (river, stream), valleys, lakes, nodes)
    inner = slice(1, -1)
    return Terrain(
        elevation=height[inner, inner],
        east=gradient[0],
        north=gradient[1],
        wetness=wetness,
        # A copy, so that the coarse fields around it are not kept.
        shore=coarse[2, inner, inner].copy(),
        water=water,
        narrow=narrow,
    )
