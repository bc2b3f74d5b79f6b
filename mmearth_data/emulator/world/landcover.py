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
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.setting import Setting, World
from mmearth_data.emulator.world.terrain import Terrain, quantile

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
Bits = NDArray[np.bool_]

TREES, SHRUB, GRASS, CROPS, BUILT, BARE, SNOW, WATER, WETLAND, MANGROVES, MOSS = range(11)
VALUES = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], dtype=np.uint8)
"""WorldCover's value of each class index."""

_TALL = np.array([60.0, 6.0, 0, 0, 0, 0, 0, 0, 2.5, 25.0, 0], dtype=np.float32)
"""Metres that each class's plants reach at most, where they are as tall as trees let them be."""
_STATURE = np.array([1.0, 0.22, 0, 0, 0, 0, 0, 0, 0.10, 0.6, 0], dtype=np.float32)
"""Their height relative to trees that stood there."""
_GROWTH = ((230.0, 1.0), (85.0, 0.8), (33.0, 0.6), (13.0, 0.45), (5.0, 0.3))
_GROWTH_SCALE = 1.0 / np.sqrt(1.0 + 0.75**2 + 0.5**2)
"""To unit variance, together with the growth over kilometres."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What lies on a block at 10 m.

    ``cover`` is a class index; ``vigour`` (0–1) how well plants do at a pixel; ``parcel`` a random number per parcel of
    land; ``canopy`` the height of plants in metres; ``conifer`` the share of conifers among trees; ``town`` the density
    of settlement; ``road`` where what is built is a road or bridge. ``terrain`` and ``setting`` are what it rests on.
    """

    block: Block
    setting: Setting
    terrain: Terrain
    cover: U8
    vigour: F32
    parcel: U32
    canopy: F32
    conifer: F32
    town: F32
    road: Bits
    warmth: F32
    """Annual mean temperature in °C at the pixel's own height."""


@compiled
def _odds(growth: F32, ground: tuple[F32, F32, F32], warmth: F32, nodes: F32, pole: np.float32) -> F32:
    """Logits of how badly plants do at each pixel, and of how badly farming pays: (2, rows, columns).

    ``growth`` is noise, ``ground`` wetness, slope northwards and slope; ``nodes`` are fields at the pixels: growth over
    kilometres, temperature without the pixel's own height, farming over kilometres.
    """
    wetness, north, slope = ground
    out = np.empty((2, *growth.shape), dtype=np.float32)
    zero, scale = np.float32(0.0), np.float32(_GROWTH_SCALE)
    for i in range(growth.shape[0]):
        for j in range(growth.shape[1]):
            # Valleys are moister; slopes that face the sun are drier, the more so the steeper they are.
            field = (growth[i, j] + nodes[0, i, j]) * scale + (np.float32(0.55) * wetness[i, j] - np.float32(0.2))
            field += min(max(pole * north[i, j] * np.float32(-1.6), np.float32(-0.5)), np.float32(0.5))
            cold = (nodes[1, i, j] - warmth[i, j]) * np.float32(0.12)
            field -= min(max(cold, np.float32(-0.4)), np.float32(2.5))
            out[0, i, j] = np.float32(-1.702) * field
            steep = (slope[i, j] - np.float32(0.07)) * np.float32(40.0)
            chance = nodes[2, i, j] - min(max(steep, zero), np.float32(8.0))
            chance -= np.float32(1.5) if wetness[i, j] > np.float32(0.95) else zero
            out[1, i, j] = np.float32(-2.2) * chance
    return out


@compiled
def _grown(density: F32, farmed: F32, limits: F32, hedges: F32, patches: F32, slope: F32, parcel: U32, edge: F32) -> U8:
    """Cover that grows by itself where plants do as well as ``density``, with fields and hedges where ``farmed``.

    ``limits`` are the densities up to which ground is bare, moss, grass and shrub.
    """
    out = np.empty(density.shape, dtype=np.uint8)
    for i in range(density.shape[0]):
        for j in range(density.shape[1]):
            own, pays = density[i, j], farmed[i, j]
            mixed = own + np.float32(0.05) * patches[i, j]
            cover = TREES
            if mixed < limits[3, i, j]:
                cover = SHRUB
            if mixed < limits[2, i, j]:
                cover = GRASS
            if own < limits[1, i, j]:
                cover = MOSS
            if own < limits[0, i, j]:
                cover = BARE
            # Scree and rock on the steepest slopes.
            if slope[i, j] > np.float32(0.85) + np.float32(0.25) * own and cover != TREES:
                cover = BARE
            lot = np.float32(parcel[i, j] >> np.uint32(8)) * np.float32(2.0**-24)
            field = lot < pays * np.float32(0.86)
            if field or lot < pays * np.float32(0.97):
                cover = CROPS if field else GRASS
                if edge[i, j] < hedges[i, j] and pays > np.float32(0.45):
                    cover = TREES if parcel[i, j] & np.uint32(8) else GRASS
            out[i, j] = cover
    return out


def _sigmoid(odds: F32) -> F32:
    """1 / (1 + exp(odds)), in their place."""
    np.exp(odds, out=odds)
    odds += np.float32(1.0)
    return np.divide(np.float32(1.0), odds, out=odds)


def _plants(
    world: World, block: Block, setting: Setting, land: Terrain, warmth: F32, lots: parcels.Parcels
) -> tuple[U8, F32]:
    """Cover where nobody builds and no water stands, and the density (0–1) of what grows by itself."""
    rows, columns = block.rows(), block.columns()
    key, trait, layer = noise.salt(world.seed, "growth"), setting.trait, setting.layer
    farms = quantile(1.0 - trait["crops"]) + 0.75 * layer["farms 16"] + 0.5 * layer["farms 6"]
    share = [trait[name] for name in ("bare", "moss", "grass", "shrub")]
    growth = 0.75 * layer["growth 12"] + 0.5 * layer["growth 5"]
    hedges = trait["hedges"] * 1.6 - 0.4
    nodes = block.spread(np.stack([growth, setting.temperature, 2.0 * farms, hedges, *np.cumsum(share, axis=0)]))
    relief, pole = (land.wetness, land.north, land.slope), np.float32(-1.0 if block.south else 1.0)
    odds = _odds(noise.fractal(key, rows, columns, _GROWTH), relief, warmth, nodes, pole)
    density, farmed = _sigmoid(odds)
    patches = noise.smooth(key ^ 9, rows, columns, 3.0)
    return _grown(density, farmed, nodes[4:], nodes[3], patches, land.slope, lots.identity, lots.edge), density


@compiled
def _heights(cover: U8, density: F32, parcel: U32, cold: F32, mature: F32, managed: F32, rough: F32) -> F32:
    """Height of plants in metres: tall where they grow densely, young or cut in some stands."""
    out = np.zeros(cover.shape, dtype=np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(cover.shape[0]):
        for j in range(cover.shape[1]):
            kind = cover[i, j]
            if kind in (GRASS, CROPS, MOSS):
                out[i, j] = np.float32(0.8) * density[i, j]
            most, factor = _TALL[kind], _STATURE[kind]
            if most > zero:
                stand = np.float32(np.uint32(parcel[i, j] * np.uint32(2654435761)) >> np.uint32(8))
                young = (np.float32(0.55) - stand * np.float32(2.0**-24)) * np.float32(1.5)
                # Managed forest stands differ in age by parcel, the more the more people live nearby.
                age = one - managed[i, j] * min(max(young, zero), np.float32(0.75))
                site = np.float32(0.45) + np.float32(0.65) * density[i, j]
                trees = mature[i, j] * site * age * (one + np.float32(0.16) * rough[i, j])
                trees *= min(max(cold[i, j], np.float32(0.25)), one)
                out[i, j] = min(max(trees * factor, zero), most)
    return out


def _canopy(
    world: World, block: Block, setting: Setting, cover: U8, density: F32, lots: parcels.Parcels, cold: F32
) -> F32:
    """Height of plants in metres."""
    rough = noise.fractal(noise.salt(world.seed, "canopy"), block.rows(), block.columns(), ((9.0, 1.0), (3.0, 0.8)))
    mature = setting.trait["canopy"] * np.exp(0.18 * setting.layer["stands 7"])
    nodes = block.spread(np.stack([mature, np.clip(setting.trait["people"], 0.0, 0.9)]))
    return _heights(cover, density, lots.identity, cold, nodes[0], nodes[1], rough)


@lru_cache(maxsize=96)
def ground(world: World, block: Block) -> Ground:
    """What lies on a block."""
    setting = world.setting(block)
    land = terrain.make(world, block, setting)
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "cover")
    mean_height = block.spread(setting.height)
    warmth = block.spread(setting.temperature) - np.float32(climate.LAPSE) * (land.elevation - mean_height)
    lots = parcels.make(world, block, setting)
    cover, density = _plants(world, block, setting, land, warmth, lots)
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
        canopy=_canopy(world, block, setting, cover, density, lots, cold),
        conifer=np.clip((conifer - np.float32(0.5)) * np.float32(2.2) + np.float32(0.5), 0.0, 1.0)
        * (block.spread(setting.trait["conifer"]) > 0.01),
        town=town,
        road=road & (cover == BUILT),
        warmth=warmth,
    )
