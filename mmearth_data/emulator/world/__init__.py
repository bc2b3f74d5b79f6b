"""A procedural Earth and its archive: deterministic, seeded, the same at every scale and in every projection."""

from __future__ import annotations

from functools import cache
from typing import Literal

from mmearth_data.emulator.world import biomes, countries, ecoregions, setting
from mmearth_data.emulator.world.catalogue.archive import WorldArchive
from mmearth_data.emulator.world.earth import EarthPixels
from mmearth_data.emulator.world.flat import FlatPixels, FlatSky
from mmearth_data.emulator.world.sky import EarthSky

Kind = Literal["earth", "flat"]


def seen(kind: Kind, seed: int = 0) -> setting.World | None:
    """What a map of the world is drawn from; None for a world that looks the same everywhere."""
    return setting.world(seed) if kind == "earth" else None


def build(kind: Kind, seed: int = 0) -> WorldArchive:
    """The archive of a world: ``earth`` is procedural, ``flat`` has the same catalogue over constant pixels.

    The same kind and seed always give the same world. Raises ValueError for another kind.
    """
    if kind == "flat":
        tables = {
            ecoregions.ASSET_ID: cache(lambda: ecoregions.asset(ecoregions.strips()[1])),
            countries.ASSET_ID: cache(lambda: countries.asset(seed, ecoregions.strips()[0] != biomes.SEA)),
        }
        return WorldArchive(seed, FlatSky(), FlatPixels(), tables)
    if kind != "earth":
        raise ValueError(f"there is no world {kind!r}; choose earth or flat")
    earth = setting.world(seed)
    sky = EarthSky(earth.planet, earth.biomes)
    tables = {
        ecoregions.ASSET_ID: cache(lambda: ecoregions.asset(earth.regions)),
        countries.ASSET_ID: cache(lambda: countries.asset(seed, earth.planet.land)),
    }
    return WorldArchive(seed, sky, EarthPixels(earth), tables)
