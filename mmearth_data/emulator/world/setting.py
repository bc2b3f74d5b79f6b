"""The setting of a block: everything about a place that changes over kilometres rather than metres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import biomes, climate, ecoregions, noise, traits
from mmearth_data.emulator.world.biomes import ICE
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.planet import COLUMNS, ROWS, Planet, between, box_of, make

F64 = NDArray[np.float64]

_EARTH_KM = 6371.0
_LAYERS: tuple[tuple[str, float], ...] = (
    ("hills 60", 60), ("hills 25", 25), ("hills 10", 10), ("hills 5", 5),
    ("shore 25", 25), ("shore 10", 10), ("shore 5", 5),
    ("farms 16", 16), ("farms 6", 6), ("growth 12", 12), ("growth 5", 5), ("lakes 14", 14), ("rivers 40", 40),
    ("people 45", 45), ("people 9", 9), ("soil 9", 9), ("stands 7", 7), ("marsh 8", 8),
)  # fmt: skip
"""Noise whose features are this many km wide, evaluated at a block's nodes."""


@dataclass(frozen=True)
class Setting:
    """Slow fields at a block's 16 nodes. ``layer`` holds named noise, ``trait`` the traits of the ecoregion there."""

    shore: F64
    height: F64
    relief: F64
    temperature: F64
    swing: F64
    layer: dict[str, F64]
    trait: dict[str, F64]
    ice: F64


class World:
    """A planet together with its map of ecoregions: what all rendering starts from."""

    def __init__(self, planet: Planet, biomes: NDArray[np.uint8], regions: NDArray[np.int16]) -> None:
        self.planet, self.biomes, self.regions = planet, biomes, regions
        self.seed = planet.seed
        self._homes = _fill(regions)
        self._key = noise.salt(planet.seed, "setting")

    def layer(self, name: str, lon: F64, lat: F64) -> F64:
        """The noise that settings hold under this name, at any points in degrees."""
        number = next(index for index, (known, _) in enumerate(_LAYERS) if known == name)
        key = noise.octave_key(self._key, number)
        return noise.space(key, noise.sphere(lon, lat), (_LAYERS[number][1] / _EARTH_KM,))[:, 0]

    def traits_at(self, lon: F64, lat: F64) -> dict[str, F64]:
        """The traits of the ecoregion at any points in degrees."""
        own = traits.by_ecoregion()[self._homes[box_of(lon, lat)]]
        return {name: own[:, index] for index, name in enumerate(traits.FIELDS)}

    def setting(self, block: Block) -> Setting:
        """The setting of a block."""
        planet, lon, lat = self.planet, block.lon, block.lat
        wavelengths = tuple(km / _EARTH_KM for _, km in _LAYERS)
        values = noise.space(self._key, block.sphere, wavelengths)
        layer = {name: values[:, index] for index, (name, _) in enumerate(_LAYERS)}
        row, column = box_of(lon, lat)
        own = traits.by_ecoregion()[self._homes[row, column]]
        rugged = between(planet.ruggedness, lon, lat)
        relief = 1.0 + 60.0 * rugged
        hills = 0.55 * layer["hills 60"] + 0.4 * layer["hills 25"] + 0.3 * layer["hills 10"] + 0.2 * layer["hills 5"]
        shore = between(planet.shore, lon, lat) + 10.0
        shore += 9.0 * layer["shore 25"] + 5.0 * layer["shore 10"] + 2.5 * layer["shore 5"]
        coarse = between(planet.height, lon, lat)
        height = coarse + hills * 12.0 * relief
        tidal = 1.0 - 2.2 * own[:, traits.COLUMN["mangroves"]]
        return Setting(
            shore=shore,
            height=np.maximum(height, 3.0 + 0.02 * np.maximum(coarse, 0.0)) * tidal,
            relief=relief,
            temperature=between(planet.temperature, lon, lat) - climate.LAPSE * (height - coarse),
            swing=between(planet.swing, lon, lat),
            layer=layer,
            trait={name: own[:, index] for index, name in enumerate(traits.FIELDS)},
            ice=(self.biomes[row, column] == ICE).astype(np.float64),
        )


@lru_cache(maxsize=4)
def world(seed: int) -> World:
    """The world of a seed; about a second for a new one."""
    globe = make(seed)
    classes = biomes.classify(globe)
    return World(globe, classes, ecoregions.partition(globe, classes))


def _fill(regions: NDArray[np.int16]) -> NDArray[np.int16]:
    """Ecoregions continued over the sea near them, so that a shore outside any polygon still has a kind of land."""
    filled = regions.copy()
    for _ in range(6):
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            moved = np.roll(filled, shift, axis=axis)
            filled = np.where(filled < 0, moved, filled)
    return np.where(filled < 0, np.int16(np.median(regions[regions >= 0])), filled).reshape(ROWS, COLUMNS)
