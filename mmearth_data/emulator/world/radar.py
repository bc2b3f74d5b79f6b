"""Sentinel-1's pixels: backscatter in dB by cover, plants, moisture and terrain, with speckle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.landcover import BARE, BUILT, CROPS, WATER
from mmearth_data.emulator.world.phenology import surface
from mmearth_data.emulator.world.scenes import RadarScene
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]

# Order of cover classes: trees, shrub, grass, crops, built, bare, snow, water, wetland, mangroves, moss.
_GROUND = {
    "VV": np.array([-10.2, -12.0, -13.6, -13.0, -5.0, -16.0, -13.0, -21.0, -11.2, -9.4, -13.4], dtype=np.float32),
    "VH": np.array([-17.5, -19.5, -21.8, -20.6, -12.5, -24.5, -20.5, -28.5, -19.0, -15.8, -21.2], dtype=np.float32),
    "HH": np.array([-10.0, -12.2, -14.0, -13.2, -4.6, -16.5, -12.4, -22.5, -10.4, -9.0, -13.8], dtype=np.float32),
    "HV": np.array([-17.6, -19.6, -22.0, -20.8, -12.6, -24.8, -20.0, -29.0, -19.2, -15.9, -21.4], dtype=np.float32),
}
"""Backscatter without plants' and moisture's effect, in dB at an incidence of 38°."""
_PLANTS = {"VV": 1.4, "VH": 3.4, "HH": 1.5, "HV": 3.5}
"""What dense green plants add, in dB."""
_CANOPY = {"VV": 1.2, "VH": 3.2, "HH": 1.3, "HV": 3.3}
"""What a tall canopy adds, in dB; it saturates near 20 m as C-band does."""
_LOOKS = 4.9
"""Equivalent number of looks of IW GRD at high resolution."""
_MIDDLE = 38.0
_NEAR, _FAR, _WIDTH = 30.5, 45.8, 250_000.0


def _speckle(key: int, block: Block) -> F32:
    """Fully developed speckle of multi-looked intensity, in dB (gamma by Wilson and Hilferty's transformation)."""
    grain = noise.white(key, block.rows(), block.columns())
    spread = np.float32(1.0 / (3.0 * np.sqrt(_LOOKS)))
    root = np.float32(1.0 - 1.0 / (9.0 * _LOOKS)) + grain * spread
    result: F32 = np.float32(30.0) * np.log10(root)
    return result


@dataclass(frozen=True)
class _Echo:
    """What both polarisations of a scene share: the ``kind`` of ground (a cover class), and what changes its echo.

    The first two of ``parts`` are plants and canopy, weighted by polarisation; the others are dB.
    """

    kind: U8
    parts: F32


@compiled
def _parts(
    kind: U8, parcel: U32, state: tuple[F32, F32, F32, F32], wind: F32, gale: np.float32, tilt: F32, rough: F32,
    open_sky: F32,
) -> F32:  # fmt: skip
    """``_Echo.parts`` from a state's green, frost, moisture and snow."""
    green, frost, moisture, snow = state
    out = np.empty((9, *kind.shape), dtype=np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(kind.shape[0]):
        for j in range(kind.shape[1]):
            dry = zero if kind[i, j] == WATER else one
            wet, bare = one - dry, zero if kind[i, j] == BUILT else one
            plants = green[i, j] * (one - frost[i, j])
            lot = np.float32((parcel[i, j] ^ np.uint32(0xA511E9B3)) >> np.uint32(8)) * np.float32(2.0**-24)
            reach = np.float32(7.0) if kind[i, j] == BUILT else np.float32(0.6)
            reach = np.float32(3.0) if kind[i, j] == CROPS else reach
            out[0, i, j] = (plants - np.float32(0.4)) * dry * bare
            out[1, i, j] = one - open_sky[i, j]
            # Wet soil is bright where it can be seen.
            out[2, i, j] = np.float32(3.2) * (moisture[i, j] - np.float32(0.45)) * (one - plants) * dry
            out[3, i, j] = np.float32(-2.6) * frost[i, j] * dry
            out[4, i, j] = np.float32(7.0) * snow[i, j] * wet
            out[5, i, j] = (lot - np.float32(0.5)) * reach
            out[6, i, j] = (wind[i, j] * np.float32(1.6) + gale) * wet * (one - snow[i, j])
            # Slopes that face the antenna shine; steeper than the beam they lay over and saturate.
            out[7, i, j] = min(max(np.float32(0.20) * tilt[i, j], np.float32(-7.0)), np.float32(6.5)) * dry
            out[8, i, j] = np.float32(0.55) * rough[i, j]
    return out


@lru_cache(maxsize=16)
def _echo(world: World, block: Block, scene: RadarScene) -> _Echo:
    """What a scene's polarisations share over a block."""
    state = surface(world, block, scene.month, scene.year)
    land = state.ground
    # A road is as smooth as bare ground: none of a town's corners throws the beam back.
    kind = np.where(land.road, np.uint8(BARE), land.cover)
    wind = noise.smooth(noise.salt("wind", scene.key), block.rows(), block.columns(), 160.0)
    gale = np.float32(7.0 * noise.scalar_uniform("gale", scene.key) - 3.0)
    look = np.radians(scene.looks_azimuth)
    facing = land.terrain.east * np.float32(np.sin(look)) + land.terrain.north * np.float32(np.cos(look))
    tilt = np.degrees(np.arctan(facing))
    rough = noise.fractal(noise.salt(world.seed, "roughness"), block.rows(), block.columns(), ((11.0, 1.0), (4.0, 0.7)))
    open_sky = np.exp(land.canopy * np.float32(-0.11))
    fields = state.green, state.frost, state.moisture, state.snow
    return _Echo(kind, _parts(kind, land.parcel, fields, wind, gale, tilt, rough, open_sky))


@compiled
def _decibels(kind: U8, parts: F32, speckle: F32, ground: F32, plants: np.float32, canopy: np.float32) -> F32:
    """The echo of each pixel's ground and of what changes it, added one by one."""
    out = np.empty(kind.shape, dtype=np.float32)
    for i in range(kind.shape[0]):
        for j in range(kind.shape[1]):
            value = ground[kind[i, j]] + plants * parts[0, i, j]
            value += canopy * parts[1, i, j]
            for number in range(2, parts.shape[0]):
                value += parts[number, i, j]
            out[i, j] = value + speckle[i, j]
    return out


def backscatter(world: World, block: Block, scene: RadarScene, band: str) -> F32:
    """Backscatter of a polarisation in dB at 10 m, at the middle of the swath."""
    echo = _echo(world, block, scene)
    speckle = _speckle(noise.salt("speckle", scene.key, band), block)
    weights = np.float32(_PLANTS[band]), np.float32(_CANOPY[band])
    return _decibels(echo.kind, echo.parts, speckle, _GROUND[band], *weights)


def range_effect(depth: F64) -> F64:
    """What incidence adds in dB at a distance in metres from the swath's near edge."""
    incidence = _NEAR + (_FAR - _NEAR) * np.clip(depth / _WIDTH, 0.0, 1.0)
    result: F64 = -0.13 * (incidence - _MIDDLE)
    return result
