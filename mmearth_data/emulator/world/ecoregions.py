"""Ecoregions: each biome's land in each realm, divided among names that RESOLVE gives that biome there.

Names, numbers and realms are facts of RESOLVE Ecoregions 2017 (Dinerstein et al. 2017, doi:10.1093/biosci/bix014);
where they lie is this world's own.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.biomes import ICE, NAMES, SEA
from mmearth_data.emulator.world.partitions import outlines, spread
from mmearth_data.emulator.world.planet import COLUMNS, LATITUDE, LONGITUDE, ROWS, Planet, field

ASSET_ID = "RESOLVE/ECOREGIONS/2017"
_SMALLEST = 120
"""Boxes that an ecoregion must be able to hold; a biome with less land in a realm has fewer ecoregions there."""
_NEXT_REALM: Mapping[str, tuple[str, ...]] = {
    "Nearctic": ("Neotropic", "Palearctic", "Indomalayan", "Antarctica"),
    "Neotropic": ("Nearctic", "Afrotropic", "Australasia", "Antarctica"),
    "Palearctic": ("Indomalayan", "Nearctic", "Afrotropic"),
    "Afrotropic": ("Palearctic", "Neotropic", "Indomalayan", "Australasia", "Antarctica"),
    "Indomalayan": ("Australasia", "Palearctic", "Afrotropic", "Nearctic"),
    "Australasia": ("Indomalayan", "Palearctic", "Neotropic", "Nearctic"),
    "Antarctica": ("Australasia", "Neotropic", "Palearctic", "Nearctic"),
}


@dataclass(frozen=True)
class Ecoregion:
    """A row of RESOLVE's table; ``biome_num`` is 1–14 (Rock and Ice carries 11 and the biome "N/A")."""

    objectid: int
    eco_id: int
    name: str
    biome_num: int
    biome: str
    realm: str

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that the feature carries on the service."""
        return {
            "OBJECTID": self.objectid,
            "ECO_NAME": self.name,
            "BIOME_NUM": self.biome_num,
            "BIOME_NAME": self.biome,
            "REALM": self.realm,
            "ECO_ID": self.eco_id,
            "LICENSE": "CC-BY 4.0",
        }


@cache
def table() -> tuple[Ecoregion, ...]:
    """Every ecoregion that a planet may have, by OBJECTID."""
    text = resources.files("mmearth_data.emulator.world").joinpath("ecoregions.csv").read_text(encoding="utf-8")
    return tuple(
        Ecoregion(
            int(row["objectid"]), int(row["eco_id"]), row["ecoregion"], int(row["biome_num"]), row["biome"],
            row["realm"],
        )
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


def _realms(seed: int) -> NDArray[np.str_]:
    """The realm of every box, by where it lies: borders wander by several degrees."""
    lon, lat = np.meshgrid(LONGITUDE, LATITUDE)
    lon = lon + 9.0 * field(seed, "realms east", (0.3, 0.1), (1.0, 0.5))
    lat = lat + 5.0 * field(seed, "realms north", (0.3, 0.1), (1.0, 0.5))
    west = (lon < -25.0) & (lon > -172.0)
    return np.select(
        [lat < -52.0, west & (lat > 18.0), west, lat > 24.0, lon < 62.0, lat > -9.0],
        ["Antarctica", "Nearctic", "Neotropic", "Palearctic", "Afrotropic", "Indomalayan"],
        default="Australasia",
    )


def partition(planet: Planet, biomes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Index into ``table()`` of every box's ecoregion, −1 at sea."""
    entries = table()
    by_class: dict[tuple[str, str], list[int]] = {}
    for index, entry in enumerate(entries):
        by_class.setdefault((entry.biome, entry.realm), []).append(index)
    realms = _realms(planet.seed)
    lon, lat = np.meshgrid(LONGITUDE, LATITUDE)
    position = noise.sphere(lon, lat).reshape(ROWS, COLUMNS, 3)
    wander = np.stack([field(planet.seed, f"borders {axis}", (0.15, 0.06), (1.0, 0.5)) for axis in "xyz"], axis=-1)
    result = np.full(biomes.shape, -1, dtype=np.int16)
    result[biomes == ICE] = next(i for i, entry in enumerate(entries) if entry.biome == "N/A")
    for number, biome in enumerate(NAMES, start=1):
        here = biomes == number
        home = realms.copy()
        for realm, others in _NEXT_REALM.items():
            if (biome, realm) not in by_class:
                home[(realms == realm)] = next(other for other in others if (biome, other) in by_class)
        for realm in np.unique(home[here]):
            rows, columns = np.nonzero(here & (home == realm))
            names = by_class[(biome, str(realm))]
            count = max(1, min(len(names), len(rows) // _SMALLEST))
            points = position[rows, columns] + 0.03 * wander[rows, columns]
            seeds = spread(points, count, noise.salt(planet.seed, biome, realm) % len(rows))
            distances = np.stack([np.sum((points - points[seed]) ** 2, axis=1) for seed in seeds])
            result[rows, columns] = np.asarray(names)[np.argmin(distances, axis=0)]
    return result


def asset(regions: NDArray[np.int16]) -> FeatureAsset:
    """The feature table of a partition: one valid (multi)polygon of boxes per ecoregion that occurs, by OBJECTID."""
    entries = table()
    return FeatureAsset(ASSET_ID, tuple((geometry, entries[index].properties) for index, geometry in outlines(regions)))


def strips() -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """A planet of land alone for benchmarks: biomes as fourteen strips, an ecoregion each, ice at the poles."""
    entries = table()
    biomes = np.broadcast_to(np.arange(COLUMNS) * len(NAMES) // COLUMNS + 1, (ROWS, COLUMNS)).astype(np.uint8)
    biomes[(LATITUDE < -60.0) | (LATITUDE > 83.0)] = ICE
    first = [next(i for i, entry in enumerate(entries) if entry.biome == name) for name in (*NAMES, "N/A")]
    regions = np.asarray([-1, *first], dtype=np.int16)[biomes]
    return biomes, np.where(biomes == SEA, -1, regions).astype(np.int16)
