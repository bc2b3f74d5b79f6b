"""Ecoregions: each biome's land divided among all the names that RESOLVE gives it, by realm as far as its land lets it.

Names, numbers and realms are facts of RESOLVE Ecoregions 2017 (Dinerstein et al. 2017, doi:10.1093/biosci/bix014);
where they lie is this world's own.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
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
_NEXT_REALMS: Mapping[str, tuple[str, ...]] = {
    "Nearctic": ("Neotropic", "Palearctic", "Oceania", "Indomalayan", "Afrotropic", "Australasia", "Antarctica"),
    "Neotropic": ("Nearctic", "Afrotropic", "Oceania", "Australasia", "Antarctica", "Indomalayan", "Palearctic"),
    "Palearctic": ("Indomalayan", "Nearctic", "Afrotropic", "Australasia", "Oceania", "Neotropic", "Antarctica"),
    "Afrotropic": ("Palearctic", "Neotropic", "Indomalayan", "Australasia", "Nearctic", "Oceania", "Antarctica"),
    "Indomalayan": ("Australasia", "Palearctic", "Oceania", "Afrotropic", "Nearctic", "Neotropic", "Antarctica"),
    "Australasia": ("Oceania", "Indomalayan", "Palearctic", "Neotropic", "Afrotropic", "Nearctic", "Antarctica"),
    "Oceania": ("Australasia", "Indomalayan", "Neotropic", "Palearctic", "Nearctic", "Afrotropic", "Antarctica"),
    "Antarctica": ("Australasia", "Neotropic", "Palearctic", "Nearctic", "Afrotropic", "Indomalayan", "Oceania"),
}
"""Whose names a realm's land takes once it has given all its own away, the likeliest first."""
_UNLIKE = 0.9
"""An ecoregion reaches exp(±this) times as far as its neighbours do: the real ones differ much in size."""


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
    """All 846 ecoregions and the ice, by OBJECTID."""
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
    ocean = ((lon > 160.0) | (lon < -135.0)) & (np.abs(lat) < 26.0)
    return np.select(
        [lat < -52.0, ocean, west & (lat > 18.0), west, lat > 24.0, lon < 62.0, lat > -9.0],
        ["Antarctica", "Oceania", "Nearctic", "Neotropic", "Palearctic", "Afrotropic", "Indomalayan"],
        default="Australasia",
    )


def _named(realms: Sequence[str], entries: Sequence[Ecoregion]) -> list[Ecoregion]:
    """As many ecoregions as realms, each once: of the realm itself while it has some, then of the next that has."""
    left: dict[str, list[Ecoregion]] = {}
    for entry in reversed(entries):
        left.setdefault(entry.realm, []).append(entry)
    found = {place: left[realm].pop() for place, realm in enumerate(realms) if left.get(realm)}
    for place, realm in enumerate(realms):
        if place not in found:
            found[place] = next(left[other] for other in _NEXT_REALMS[realm] if left.get(other)).pop()
    return [found[place] for place in range(len(realms))]


def partition(planet: Planet, biomes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Index into ``table()`` of every box's ecoregion, −1 at sea; each ecoregion of the table has a box at least.

    Raises ValueError if a biome has fewer boxes than ecoregions.
    """
    entries = table()
    realms = _realms(planet.seed)
    lon, lat = np.meshgrid(LONGITUDE, LATITUDE)
    position = noise.sphere(lon, lat).reshape(ROWS, COLUMNS, 3)
    wander = np.stack([field(planet.seed, f"borders {axis}", (0.15, 0.06), (1.0, 0.5)) for axis in "xyz"], axis=-1)
    number_of = {entry: index for index, entry in enumerate(entries)}
    result = np.full(biomes.shape, -1, dtype=np.int16)
    result[biomes == ICE] = next(i for i, entry in enumerate(entries) if entry.biome == "N/A")
    for number, biome in enumerate(NAMES, start=1):
        rows, columns = np.nonzero(biomes == number)
        own = [entry for entry in entries if entry.biome == biome]
        if len(rows) < len(own):
            raise ValueError(f"{biome} has {len(own)} ecoregions and {len(rows)} boxes; it needs as many at least")
        points = position[rows, columns] + 0.03 * wander[rows, columns]
        seeds = spread(points, len(own), noise.salt(planet.seed, biome) % len(rows))
        owner = np.zeros(len(rows), dtype=np.int16)
        nearest = np.full(len(rows), np.inf)
        for seed, entry in zip(seeds, _named(realms[rows[seeds], columns[seeds]].tolist(), own), strict=True):
            chance = noise.scalar_uniform(planet.seed, "reach", entry.name)
            distance = np.sum((points - points[seed]) ** 2, axis=1) * np.exp(2.0 * _UNLIKE * (2.0 * chance - 1.0))
            closer = distance < nearest
            owner[closer] = number_of[entry]
            nearest[closer] = distance[closer]
        result[rows, columns] = owner
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
