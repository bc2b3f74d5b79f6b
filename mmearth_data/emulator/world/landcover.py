"""Land cover at 10 m, in WorldCover's classes, and the state of the vegetation that stands on it.

Cover follows from setting and terrain: plants thin out towards dryness and cold along one density field, fields lie on
gentle ground in parcels, settlements grow around centres that roads link, water collects in valleys. Everything else
that a satellite sees is derived from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import climate, noise, parcels, roads, settlements, terrain
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.setting import Setting, World
from mmearth_data.emulator.world.terrain import Terrain, quantile

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
Bits = NDArray[np.bool_]

TREES, SHRUB, GRASS, CROPS, BUILT, BARE, SNOW, WATER, WETLAND, MANGROVES, MOSS = range(11)
VALUES = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], dtype=np.uint8)
"""WorldCover's value of each class index."""

_GROWTH = ((230.0, 1.0), (85.0, 0.8), (33.0, 0.6), (13.0, 0.45), (5.0, 0.3))


@dataclass(frozen=True, eq=False)
class Ground:
    """What lies on a block at 10 m.

    ``cover`` is a class index; ``vigour`` (0–1) how well plants do at a pixel; ``parcel`` a random number per parcel of
    land, ``edge`` the distance in pixels to its border; ``canopy`` the height of plants in metres; ``conifer`` the
    share of conifers among trees; ``town`` the density of settlement; ``road`` where what is built is a road or bridge.
    ``terrain`` and ``setting`` are what it rests on.
    """

    block: Block
    setting: Setting
    terrain: Terrain
    cover: U8
    vigour: F32
    parcel: U32
    edge: F32
    canopy: F32
    conifer: F32
    town: F32
    road: Bits
    warmth: F32
    """Annual mean temperature in °C at the pixel's own height."""


def _natural(world: World, block: Block, setting: Setting, ground: Terrain, warmth: F32) -> tuple[U8, F32]:
    """Cover where nobody farms or builds, and the density field (0–1) that decided it."""
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "growth")
    field = noise.fractal(key, rows, columns, _GROWTH)
    field += block.spread(0.75 * setting.layer["growth 12"] + 0.5 * setting.layer["growth 5"])
    field *= np.float32(1.0 / np.sqrt(1.0 + 0.75**2 + 0.5**2))
    # Valleys are moister; slopes that face the sun are drier, the more so the steeper they are.
    pole = np.float32(-1.0 if block.south else 1.0)
    field += np.float32(0.55) * ground.wetness - np.float32(0.2)
    field += np.clip(pole * ground.north * np.float32(-1.6), -0.5, 0.5)
    cold = np.clip((block.spread(setting.temperature) - warmth) * np.float32(0.12), -0.4, 2.5)
    field -= cold
    density: F32 = np.float32(1.0) / (np.float32(1.0) + np.exp(np.float32(-1.702) * field))
    share = [setting.trait[name] for name in ("bare", "moss", "grass", "shrub")]
    limits = [block.spread(limit) for limit in np.cumsum(share, axis=0)]
    mixed = density + np.float32(0.05) * noise.smooth(key ^ 9, rows, columns, 3.0)
    cover = np.full(density.shape, TREES, dtype=np.uint8)
    cover[mixed < limits[3]] = SHRUB
    cover[mixed < limits[2]] = GRASS
    cover[density < limits[1]] = MOSS
    cover[density < limits[0]] = BARE
    # Scree and rock on the steepest slopes.
    cover[(ground.slope > 0.85 + 0.25 * density) & (cover != TREES)] = BARE
    return cover, density


def _farmed(world: World, block: Block, setting: Setting, ground: Terrain, cover: U8, parcel: parcels.Parcels) -> U8:
    """Cover with fields, pastures and hedges laid over it where farming pays."""
    chance = block.spread(
        2.0
        * (quantile(1.0 - setting.trait["crops"]) + 0.75 * setting.layer["farms 16"] + 0.5 * setting.layer["farms 6"])
    )
    chance = chance - np.clip((ground.slope - np.float32(0.07)) * np.float32(40.0), 0.0, 8.0)
    chance -= np.float32(1.5) * (ground.wetness > 0.95)
    farmed = np.float32(1.0) / (np.float32(1.0) + np.exp(np.float32(-2.2) * chance))
    lot = noise.uniform(parcel.identity)
    fields = lot < farmed * np.float32(0.86)
    pasture = ~fields & (lot < farmed * np.float32(0.97))
    result = cover.copy()
    result[pasture] = GRASS
    result[fields] = CROPS
    hedged = (parcel.edge < block.spread(setting.trait["hedges"] * 1.6 - 0.4)) & (farmed > 0.45)
    result[hedged & (fields | pasture)] = np.where(parcel.identity[hedged & (fields | pasture)] & 8, TREES, GRASS)
    return result


def _canopy(
    world: World, block: Block, setting: Setting, cover: U8, density: F32, parcel: parcels.Parcels, cold: F32
) -> F32:
    """Height of plants in metres: tall where they grow densely, young or cut in some stands."""
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "canopy")
    mature = block.spread(setting.trait["canopy"] * np.exp(0.18 * setting.layer["stands 7"]))
    site = np.float32(0.45) + np.float32(0.65) * density
    stand = noise.uniform(parcel.identity * np.uint32(2654435761))
    # Managed forest stands differ in age by parcel, the more the more people live nearby.
    managed = block.spread(np.clip(setting.trait["people"], 0.0, 0.9))
    age = np.float32(1.0) - managed * np.clip((np.float32(0.55) - stand) * np.float32(1.5), 0.0, 0.75)
    rough = np.float32(1.0) + np.float32(0.16) * noise.fractal(key, rows, columns, ((9.0, 1.0), (3.0, 0.8)))
    trees = mature * site * age * rough * np.clip(cold, 0.25, 1.0)
    height = np.zeros(cover.shape, dtype=np.float32)
    for kind, factor, most in ((TREES, 1.0, 60.0), (MANGROVES, 0.6, 25.0), (SHRUB, 0.22, 6.0), (WETLAND, 0.10, 2.5)):
        here = cover == kind
        height[here] = np.clip(trees[here] * np.float32(factor), 0.0, np.float32(most))
    low = (cover == GRASS) | (cover == CROPS) | (cover == MOSS)
    height[low] = np.float32(0.8) * density[low]
    return height


@lru_cache(maxsize=96)
def ground(world: World, block: Block) -> Ground:
    """What lies on a block."""
    setting = world.setting(block)
    land = terrain.make(world, block, setting)
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "cover")
    mean_height = block.spread(setting.height)
    warmth = block.spread(setting.temperature) - np.float32(climate.LAPSE) * (land.elevation - mean_height)
    cover, density = _natural(world, block, setting, land, warmth)
    lots = parcels.make(world, block, setting)
    cover = _farmed(world, block, setting, land, cover, lots)
    marsh = noise.fractal(key, rows, columns, ((120.0, 1.0), (40.0, 0.6), (12.0, 0.3))) * np.float32(0.8)
    marsh += np.float32(1.1) * (land.wetness - np.float32(0.45)) + block.spread(0.6 * setting.layer["marsh 8"])
    marsh -= np.float32(6.0) * land.slope
    cover[marsh > block.spread(quantile(setting.trait["wetland"]) * 1.2)] = WETLAND
    creek = np.float32(0.8) * noise.fractal(key ^ 2, rows, columns, ((75.0, 1.0), (28.0, 0.7), (9.0, 0.3)))
    tide = creek + block.spread(0.6 * setting.layer["marsh 8"] - 0.004 * np.maximum(setting.shore - 40.0, 0.0))
    mangroves = (tide > block.spread(quantile(setting.trait["mangroves"]))) & (land.elevation < 18.0)
    cover[mangroves & (block.spread(setting.trait["mangroves"]) > 0.004)] = MANGROVES
    tidal = (np.abs(creek) < 0.035) & (block.spread(setting.trait["mangroves"]) > 0.1)
    people = settlements.people(block, setting)
    town = settlements.density(world, block, people)
    texture = noise.fractal(key ^ 3, rows, columns, ((26.0, 1.0), (9.0, 0.8), (3.5, 0.7)))
    built = (
        town + np.float32(0.2) * texture + np.float32(0.3) * (noise.uniform(lots.identity) - np.float32(0.5))
    ) > 0.36
    cover[built & (land.slope < 0.35) & (town > 0.0)] = BUILT
    cover[land.water | tidal] = WATER
    road = roads.over(world, block, people) & (land.slope < 0.5) & (land.narrow | ~land.water)
    cover[road] = BUILT
    summer = warmth + block.spread(setting.swing) - np.float32(1.5) * noise.smooth(key ^ 4, rows, columns, 60.0)
    frozen = (summer < 0.3) | ((block.spread(setting.ice) > 0.5) & (density < 0.9))
    cover[frozen & ~land.water] = SNOW
    cold = (summer - np.float32(6.0)) * np.float32(0.16) + np.float32(0.35)
    conifer = block.spread(setting.trait["conifer"]) + np.float32(0.28) * noise.fractal(
        key ^ 5, rows, columns, ((90.0, 1.0), (22.0, 0.6))
    )
    return Ground(
        block=block,
        setting=setting,
        terrain=land,
        cover=cover,
        vigour=density,
        parcel=lots.identity,
        edge=lots.edge,
        canopy=_canopy(world, block, setting, cover, density, lots, cold),
        conifer=np.clip((conifer - np.float32(0.5)) * np.float32(2.2) + np.float32(0.5), 0.0, 1.0)
        * (block.spread(setting.trait["conifer"]) > 0.01),
        town=town,
        road=road & (cover == BUILT),
        warmth=warmth,
    )
