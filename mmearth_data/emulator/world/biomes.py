"""The biome of every half-degree box of land, chosen by its climate.

Each biome has a niche: a smooth suitability over temperature, dryness, season of rain and height. A box takes the
biome it suits best after every biome's suitability was shifted until each holds about its share of the land, so all
fourteen exist on every seed's planet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world.planet import LATITUDE, Planet, field

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

NAMES: tuple[str, ...] = (
    "Tropical & Subtropical Moist Broadleaf Forests",
    "Tropical & Subtropical Dry Broadleaf Forests",
    "Tropical & Subtropical Coniferous Forests",
    "Temperate Broadleaf & Mixed Forests",
    "Temperate Conifer Forests",
    "Boreal Forests/Taiga",
    "Tropical & Subtropical Grasslands, Savannas & Shrublands",
    "Temperate Grasslands, Savannas & Shrublands",
    "Flooded Grasslands & Savannas",
    "Montane Grasslands & Shrublands",
    "Tundra",
    "Mediterranean Forests, Woodlands & Scrub",
    "Deserts & Xeric Shrublands",
    "Mangroves",
)
"""RESOLVE's biomes; BIOME_NUM is the index here plus one."""
ICE, SEA = 15, 0
"""Values beside BIOME_NUM 1–14 in the map of biomes."""

_SHARES = (0.135, 0.045, 0.018, 0.105, 0.045, 0.115, 0.130, 0.085, 0.020, 0.050, 0.070, 0.035, 0.135, 0.012)
_ROUNDS = 60


def _bell(values: F64, middle: float, width: float) -> F64:
    """Log suitability: 0 at the middle, falling off quadratically."""
    return -0.5 * ((values - middle) / width) ** 2


def _above(values: F64, limit: float, width: float) -> F64:
    return -np.logaddexp(0.0, (limit - values) / width)


def _below(values: F64, limit: float, width: float) -> F64:
    return -np.logaddexp(0.0, (values - limit) / width)


def _niches(planet: Planet) -> list[F64]:
    """Log suitability of each biome for every box, in the order of ``NAMES``."""
    t, h = planet.temperature, np.maximum(planet.height, 0.0)
    winter, summer = t - planet.swing, t + planet.swing
    # Moisture in units of what the warmth could evaporate, as Holdridge and Köppen do it.
    wet = np.log(planet.rain / (0.02 * np.maximum(t, -4.0) + 0.28 * np.exp(t * 0.012) + 0.05))
    season = planet.summer_rain
    latitude = np.abs(np.broadcast_to(LATITUDE[:, None], t.shape))
    land = planet.land
    sea_near = np.zeros_like(land)
    for step_row in (-1, 0, 1):
        for step_column in (-1, 0, 1):
            sea_near |= ~np.roll(np.roll(land, step_row, axis=0), step_column, axis=1)
    basins = field(planet.seed, "basins", (0.12, 0.05), (0.8, 0.6))
    forbidden = -1e3
    moist = _above(wet, 0.75, 0.18) + _above(winter, 13.0, 1.5)
    dry_forest = _bell(wet, 0.45, 0.25) + _above(winter, 12.0, 2.0) + _above(season, 0.35, 0.15)
    pine = _bell(h, 1400.0, 450.0) + _bell(t, 17.0, 4.0) + _above(wet, 0.1, 0.3) + _below(latitude, 30.0, 1.0)
    broadleaf = _bell(t, 10.0, 4.5) + _above(wet, 0.45, 0.25) + _below(h, 1200.0, 200.0) + _above(latitude, 27.0, 1.5)
    conifer = _bell(t, 5.0, 3.5) + _above(wet, 0.3, 0.25) + _bell(h, 1000.0, 500.0) + _above(latitude, 27.0, 1.5)
    boreal = (
        _bell(t, -2.5, 3.5)
        + _above(summer, 9.0, 1.5)
        + _above(wet, 0.1, 0.3)
        + _above(np.broadcast_to(LATITUDE[:, None], t.shape), 40.0, 1.0)
    )
    savanna = _bell(wet, 0.05, 0.35) + _above(winter, 11.0, 2.0) + _below(h, 1500.0, 250.0)
    steppe = _bell(wet, 0.05, 0.4) + _bell(t, 8.0, 5.0) + _below(h, 1600.0, 250.0) + _above(latitude, 27.0, 1.5)
    flooded = 2.2 * basins - 3.0 + _below(h, 320.0, 60.0) + _above(t, 6.0, 2.0) + _above(wet, -0.4, 0.4)
    flooded += _below(planet.ruggedness, 0.12, 0.03) + _below(latitude, 48.0, 1.5)
    montane = _above(h, 2100.0, 200.0) + _above(t, -7.0, 2.0) + _below(t, 14.0, 3.0)
    tundra = _below(summer, 9.0, 1.2) + _above(latitude, 48.0, 2.0)
    mediterranean = _bell(t, 15.0, 3.5) + _below(season, -0.1, 0.12) + _bell(wet, 0.1, 0.5) + _bell(latitude, 37.0, 4.0)
    desert = _below(wet, -0.55, 0.25) + _above(t, 2.0, 2.5)
    mangrove = np.where(sea_near, 0.6 * basins, forbidden) + _below(latitude, 27.0, 0.7) + _below(h, 150.0, 30.0)
    mangrove += _above(wet, -0.1, 0.3) + _above(winter, 15.0, 1.0)
    return [
        moist, dry_forest, pine, broadleaf, conifer, boreal, savanna, steppe, flooded, montane, tundra,
        mediterranean, desert, mangrove,
    ]  # fmt: skip


def classify(planet: Planet) -> U8:
    """BIOME_NUM of every box (1–14), ``ICE`` for rock and ice, ``SEA`` elsewhere."""
    ice = (planet.temperature + planet.swing < 1.0) | (LATITUDE[:, None] < -60.0) | (LATITUDE[:, None] > 83.0)
    ice &= planet.land
    chosen = planet.land & ~ice
    area = np.broadcast_to(np.cos(np.radians(LATITUDE))[:, None], chosen.shape)[chosen]
    niches = np.stack([niche[chosen] for niche in _niches(planet)])
    shares = np.asarray(_SHARES) / np.sum(_SHARES)
    bias = np.zeros(len(NAMES))
    best = np.zeros(niches.shape[1], dtype=np.int64)
    for number in range(_ROUNDS):
        best = np.argmax(niches + bias[:, None], axis=0)
        held = np.bincount(best, weights=area, minlength=len(NAMES)) / area.sum()
        bias += (0.9 / (1.0 + 0.05 * number)) * np.clip(np.log(shares / np.maximum(held, 1e-4)), -1.0, 1.0)
    result = np.full(planet.shore.shape, SEA, dtype=np.uint8)
    result[ice] = ICE
    result[chosen] = best + 1
    return result
