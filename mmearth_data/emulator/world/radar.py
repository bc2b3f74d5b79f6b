"""Sentinel-1's pixels: backscatter in dB by cover, plants, moisture and terrain, with speckle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import BARE, BUILT, CROPS, WATER
from mmearth_data.emulator.world.phenology import surface
from mmearth_data.emulator.world.scenes import RadarScene
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

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

    ``plants`` and ``canopy`` are weighted by polarisation, ``added`` are dB, in the order in which they are added.
    """

    kind: U8
    plants: F32
    canopy: F32
    added: tuple[F32, ...]


@lru_cache(maxsize=16)
def _echo(world: World, block: Block, scene: RadarScene) -> _Echo:
    """What a scene's polarisations share over a block."""
    state = surface(world, block, scene.month, scene.year)
    land = state.ground
    # A road is as smooth as bare ground: none of a town's corners throws the beam back.
    cover = np.where(land.road, np.uint8(BARE), land.cover)
    built, wet = cover == BUILT, cover == WATER
    dry = ~wet
    plants = state.green * (np.float32(1.0) - state.frost)
    lot = noise.uniform(land.parcel ^ np.uint32(0xA511E9B3)) - np.float32(0.5)
    lot *= np.where(built, np.float32(7.0), np.where(cover == CROPS, np.float32(3.0), np.float32(0.6)))
    wind = noise.smooth(noise.salt("wind", scene.key), block.rows(), block.columns(), 160.0)
    wind = wind * np.float32(1.6) + np.float32(7.0 * noise.scalar_uniform("gale", scene.key) - 3.0)
    look = np.radians(scene.looks_azimuth)
    facing = land.terrain.east * np.float32(np.sin(look)) + land.terrain.north * np.float32(np.cos(look))
    tilt = np.degrees(np.arctan(facing))
    rough = noise.fractal(noise.salt(world.seed, "roughness"), block.rows(), block.columns(), ((11.0, 1.0), (4.0, 0.7)))
    return _Echo(
        kind=cover,
        plants=(plants - np.float32(0.4)) * dry * ~built,
        canopy=np.float32(1.0) - np.exp(land.canopy * np.float32(-0.11)),
        added=(
            # Wet soil is bright where it can be seen.
            np.float32(3.2) * (state.moisture - np.float32(0.45)) * (np.float32(1.0) - plants) * dry,
            np.float32(-2.6) * state.frost * dry,
            np.float32(7.0) * state.snow * wet,
            lot,
            wind * wet * (np.float32(1.0) - state.snow),
            # Slopes that face the antenna shine; steeper than the beam they lay over and saturate.
            np.clip(np.float32(0.20) * tilt, -7.0, 6.5) * dry,
            np.float32(0.55) * rough,
        ),
    )


def backscatter(world: World, block: Block, scene: RadarScene, band: str) -> F32:
    """Backscatter of a polarisation in dB at 10 m, at the middle of the swath."""
    echo = _echo(world, block, scene)
    value = _GROUND[band].take(echo.kind, mode="clip")
    value += np.float32(_PLANTS[band]) * echo.plants
    value += np.float32(_CANOPY[band]) * echo.canopy
    for part in echo.added:
        value += part
    value += _speckle(noise.salt("speckle", scene.key, band), block)
    return value


def range_effect(depth: F64) -> F64:
    """What incidence adds in dB at a distance in metres from the swath's near edge."""
    incidence = _NEAR + (_FAR - _NEAR) * np.clip(depth / _WIDTH, 0.0, 1.0)
    result: F64 = -0.13 * (incidence - _MIDDLE)
    return result
