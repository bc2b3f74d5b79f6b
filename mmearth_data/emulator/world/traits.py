"""What distinguishes biomes and ecoregions on the ground: how much of each cover they have, and of what kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.biomes import ICE
from mmearth_data.emulator.world.ecoregions import table


@dataclass(frozen=True)
class BiomeTraits:
    """Typical shares of a biome's land.

    ``bare`` … ``trees`` divide what is not farmed; ``crops`` is the share of land in fields, ``people`` the density of
    settlements, ``wetland``, ``lakes`` and ``mangroves`` shares of land. ``canopy`` is the height of mature trees in
    metres, ``conifer`` the share of trees that are conifers, ``evergreen`` that of the others which keep their leaves.
    """

    bare: float
    moss: float
    grass: float
    shrub: float
    trees: float
    crops: float
    people: float
    wetland: float
    lakes: float
    mangroves: float
    canopy: float
    conifer: float
    evergreen: float


BIOMES: tuple[BiomeTraits, ...] = (
    BiomeTraits(0.01, 0.00, 0.09, 0.07, 0.83, 0.12, 0.35, 0.03, 0.020, 0.01, 34, 0.00, 0.95),
    BiomeTraits(0.04, 0.00, 0.22, 0.26, 0.48, 0.24, 0.55, 0.01, 0.008, 0.01, 18, 0.00, 0.25),
    BiomeTraits(0.03, 0.00, 0.18, 0.17, 0.62, 0.11, 0.35, 0.01, 0.008, 0.00, 23, 0.75, 0.55),
    BiomeTraits(0.01, 0.00, 0.25, 0.07, 0.67, 0.32, 1.00, 0.01, 0.015, 0.00, 24, 0.22, 0.08),
    BiomeTraits(0.05, 0.01, 0.18, 0.09, 0.67, 0.07, 0.35, 0.01, 0.018, 0.00, 29, 0.85, 0.05),
    BiomeTraits(0.02, 0.06, 0.15, 0.11, 0.66, 0.02, 0.10, 0.10, 0.050, 0.00, 15, 0.80, 0.00),
    BiomeTraits(0.06, 0.00, 0.47, 0.28, 0.19, 0.12, 0.35, 0.01, 0.005, 0.01, 11, 0.00, 0.35),
    BiomeTraits(0.06, 0.00, 0.73, 0.12, 0.09, 0.33, 0.55, 0.01, 0.008, 0.00, 12, 0.25, 0.05),
    BiomeTraits(0.03, 0.00, 0.55, 0.18, 0.24, 0.09, 0.25, 0.30, 0.060, 0.01, 13, 0.00, 0.55),
    BiomeTraits(0.21, 0.05, 0.52, 0.17, 0.05, 0.05, 0.15, 0.01, 0.010, 0.00, 9, 0.45, 0.20),
    BiomeTraits(0.19, 0.38, 0.27, 0.15, 0.01, 0.00, 0.02, 0.10, 0.070, 0.00, 4, 0.30, 0.00),
    BiomeTraits(0.08, 0.00, 0.28, 0.35, 0.29, 0.24, 1.00, 0.00, 0.006, 0.00, 12, 0.35, 0.75),
    BiomeTraits(0.72, 0.00, 0.14, 0.13, 0.01, 0.03, 0.12, 0.00, 0.002, 0.00, 5, 0.05, 0.60),
    BiomeTraits(0.02, 0.00, 0.13, 0.12, 0.73, 0.13, 0.45, 0.06, 0.040, 0.36, 20, 0.00, 0.90),
    BiomeTraits(0.40, 0.20, 0.25, 0.10, 0.05, 0.00, 0.00, 0.02, 0.030, 0.00, 3, 0.30, 0.00),
)
"""By BIOME_NUM − 1, with rock and ice last (for what little of it is free of snow)."""

FIELDS = (
    "bare", "moss", "grass", "shrub", "trees", "crops", "people", "wetland", "lakes", "mangroves", "canopy", "conifer",
    "evergreen", "soil_bright", "soil_red", "field_size", "hedges",
)  # fmt: skip
COLUMN = {name: index for index, name in enumerate(FIELDS)}


def _vary(name: str, trait: str, spread: float) -> float:
    """A factor between exp(−spread) and exp(spread) that belongs to an ecoregion."""
    return float(np.exp(spread * (2.0 * noise.scalar_uniform("trait", name, trait) - 1.0)))


@cache
def by_ecoregion() -> NDArray[np.float64]:
    """Traits of every ecoregion in ``ecoregions.table()``, varied about its biome's: (ecoregions, len(FIELDS))."""
    rows = []
    for entry in table():
        traits = BIOMES[ICE - 1 if entry.biome == "N/A" else entry.biome_num - 1]
        cover = np.array(
            [
                getattr(traits, kind) * _vary(entry.name, kind, 0.45)
                for kind in ("bare", "moss", "grass", "shrub", "trees")
            ]
        )
        cover /= cover.sum()
        dry = traits.bare > 0.5
        rows.append(
            [
                *cover,
                min(traits.crops * _vary(entry.name, "crops", 0.6), 0.6),
                traits.people * _vary(entry.name, "people", 0.5),
                traits.wetland * _vary(entry.name, "wetland", 0.5),
                traits.lakes * _vary(entry.name, "lakes", 0.6),
                traits.mangroves,
                traits.canopy * _vary(entry.name, "canopy", 0.25),
                float(np.clip(traits.conifer * _vary(entry.name, "conifer", 0.3), 0.0, 1.0)),
                float(np.clip(traits.evergreen * _vary(entry.name, "evergreen", 0.3), 0.0, 1.0)),
                (1.25 if dry else 0.85) * _vary(entry.name, "bright", 0.25),
                noise.scalar_uniform("trait", entry.name, "red"),
                _vary(entry.name, "fields", 0.7),
                noise.scalar_uniform("trait", entry.name, "hedges"),
            ]
        )
    return np.array(rows)
