"""What grows, has withered, is bare or under snow at a date, and the shares of pure surfaces that this makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import climate, noise, spectra
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import (
    BARE,
    BUILT,
    CROPS,
    GRASS,
    MANGROVES,
    MOSS,
    SHRUB,
    SNOW,
    TREES,
    WATER,
    WETLAND,
    Ground,
    ground,
)
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def _table(**values: float) -> F32:
    """One number per cover class, by lower-case name; the rest 0."""
    names = {
        "trees": TREES, "shrub": SHRUB, "grass": GRASS, "crops": CROPS, "built": BUILT, "bare": BARE, "snow": SNOW,
        "water": WATER, "wetland": WETLAND, "mangroves": MANGROVES, "moss": MOSS,
    }  # fmt: skip
    table = np.zeros(len(names), dtype=np.float32)
    for name, value in values.items():
        table[names[name]] = value
    return table


_PLANTS = _table(
    trees=0.62, shrub=0.18, grass=0.30, crops=0.88, built=0.10, bare=0.0, wetland=0.55, mangroves=0.72, moss=0.12
)
_PLANTS_GAIN = _table(trees=0.33, shrub=0.55, grass=0.60, built=0.16, bare=0.10, wetland=0.32, mangroves=0.22, moss=0.2)
"""Share of a pixel that plants cover: the first at the poorest sites, plus the second at the best."""
_KEEPS = _table(shrub=0.40, grass=0.06, built=0.30, bare=0.3, wetland=0.22, mangroves=0.97, moss=0.2)
"""Share of plants that stay green whatever the season."""
_THIRST = _table(
    trees=0.55, shrub=0.75, grass=1.0, crops=0.6, built=0.5, bare=1.0, wetland=0.15, mangroves=0.0, moss=0.3
)
"""How far drought withers the others."""
_LITTER = _table(
    trees=0.55, shrub=0.6, grass=0.85, crops=0.35, built=0.4, bare=0.5, wetland=0.7, mangroves=0.3, moss=0.4
)
"""Share of withered plants that still cover the ground."""
_WOODY = _table(trees=1.0, shrub=0.55, built=0.5, wetland=0.08, mangroves=1.0)
_ON_MOSS, _ON_WET = _table(moss=0.8, trees=0.1), _table(wetland=0.75, mangroves=0.8, trees=0.15)
_ON_BUILT, _ON_WATER = _table(built=0.93), _table(water=1.0, wetland=0.2, mangroves=0.2)
_ON_SNOW = _table(snow=0.97)
_ON_SOIL = 1.0 - _ON_MOSS - _ON_WET - _ON_BUILT - _ON_WATER - _ON_SNOW
"""What lies under the plants."""
_SHELTER = _table(trees=0.62, shrub=0.15, mangroves=0.6, built=0.25)
"""Share of a pixel that seasonal snow does not hide."""


@dataclass(frozen=True)
class Surface:
    """What grows on a block at a date, and the weather it is in; ``shares`` tells what it looks like.

    ``plants`` is the share of living plants, ``wood`` that of shrubs and trees among them, ``dry`` that of withered
    ones; ``green`` are the living ones that snow does not hide. ``moist`` (0–1) is how well plants are watered,
    ``moisture`` that of the top soil, ``snow`` seasonal snow, ``frost`` how frozen the ground is (0–1).
    """

    ground: Ground
    plants: F32
    wood: F32
    dry: F32
    green: F32
    moist: F32
    moisture: F32
    snow: F32
    frost: F32


def _sigmoid(values: F32) -> F32:
    result: F32 = np.float32(1.0) / (np.float32(1.0) + np.exp(-values))
    return result


def _water(world: World, block: Block, month: float, year: int) -> F64:
    """How much water plants had over the last weeks relative to what they could use, at nodes."""
    planet, total = world.planet, np.zeros(len(block.lon))
    for back, weight in ((0.0, 0.6), (1.0, 0.4)):
        when = (month - back) % 12.0
        number = int(when) + 1
        _, wetter = climate.anomaly(planet, block.lon, block.lat, year - (month < back), number)
        total += weight * wetter * climate.rain_in(planet, block.lon, block.lat, when)
    warmth = np.maximum(climate.temperature_in(planet, block.lon, block.lat, month), 0.0)
    result: F64 = total / (0.018 + 0.0042 * warmth)
    return result


def _crops(parcel: NDArray[np.uint32], month: float, year: int, season_start: F32) -> F32:
    """Greenness of each parcel's crop, which rotates from year to year: sown and harvested on dates of its own."""
    lot = noise.uniform(noise.hash_points(noise.salt("crop", year), parcel))
    early = lot < np.float32(0.42)
    peak = np.where(early, np.float32(3.3) + lot * np.float32(2.0), np.float32(4.6) + lot * np.float32(2.4))
    length = np.where(early, np.float32(1.9), np.float32(1.5))
    ahead = np.mod(np.float32(month) - season_start - peak + np.float32(6.0), np.float32(12.0)) - np.float32(6.0)
    result: F32 = np.exp(-np.square(ahead / length))
    return result


@lru_cache(maxsize=48)
def surface(world: World, block: Block, month: float, year: int) -> Surface:
    """What a block's surface is made of at a date."""
    land = ground(world, block)
    cover, vigour = land.cover, land.vigour

    def by_cover(table: F32) -> F32:
        return table.take(cover, mode="clip")

    # Air temperature of the month at each pixel's height; plants lag behind it by a fortnight.
    now = block.spread(land.setting.swing * climate.season(block.lat, month))
    lagged = block.spread(land.setting.swing * climate.season(block.lat, month - 0.5))
    warm = _sigmoid((land.warmth + lagged - np.float32(6.5)) * np.float32(0.45))
    balance = block.spread(_water(world, block, month, year)) + np.float32(0.35) * land.terrain.wetness
    moist = _sigmoid((balance + np.float32(0.3) * vigour - np.float32(0.75)) * np.float32(4.5))
    plants = by_cover(_PLANTS) + by_cover(_PLANTS_GAIN) * vigour
    thirst = by_cover(_THIRST)
    season = warm * (np.float32(1.0) - thirst + thirst * moist)
    keeps = by_cover(_KEEPS)
    needle = land.conifer
    trees = cover == TREES
    leaves = block.spread(land.setting.trait["evergreen"])
    np.copyto(keeps, needle + (np.float32(1.0) - needle) * leaves, where=trees)
    green_share = keeps + (np.float32(1.0) - keeps) * season
    fields = cover == CROPS
    if fields.any():
        # Fields are sown in spring, in the tropics with the rains of summer; half a year later in the south.
        start = block.spread(np.where(np.abs(block.lat) < 23.0, 4.0, 2.0)) + np.float32(6.0 if block.south else 0.0)
        growing = _crops(land.parcel[fields], month, year, start[fields])
        growing *= np.float32(0.35) + np.float32(0.65) * np.maximum(moist[fields], vigour[fields] > 0.75)
        green_share[fields] = growing
    green: F32 = plants * green_share
    dry = plants * (np.float32(1.0) - green_share) * by_cover(_LITTER)
    snow = _sigmoid(
        (np.float32(-1.5) - land.warmth - now) * np.float32(0.8)
        + np.float32(1.1)
        * noise.smooth(noise.salt(world.seed, "snow", year, int(month * 3)), block.rows(), block.columns(), 42.0)
    )
    snow *= snow > np.float32(0.12)
    wood = green * by_cover(_WOODY)
    moisture = np.clip(moist * np.float32(0.75) + np.float32(0.3) * land.terrain.wetness, 0.0, 1.0)
    # Still water freezes late and thaws late; under trees part of the snow is out of sight.
    hidden = snow * (np.float32(1.0) - by_cover(_SHELTER) * (np.float32(0.5) + np.float32(0.5) * needle))
    hidden *= (cover != WATER) | (land.warmth + now < np.float32(-5.0))
    return Surface(
        ground=land,
        plants=green,
        wood=wood,
        dry=dry,
        green=(green * (np.float32(1.0) - hidden)).astype(np.float32),
        moist=moist,
        moisture=moisture,
        snow=hidden.astype(np.float32),
        frost=_sigmoid((np.float32(-1.0) - land.warmth - now) * np.float32(0.9)),
    )


@lru_cache(maxsize=48)
def shares(world: World, block: Block, month: float, year: int) -> F32:
    """A block at a date as shares of pure surfaces, in the order of ``spectra.ENDMEMBERS``: (12, rows, columns)."""
    state = surface(world, block, month, year)
    land = state.ground

    def by_cover(table: F32) -> F32:
        return table.take(land.cover, mode="clip")

    under = np.float32(1.0) - state.plants - state.dry
    bright = block.spread(land.setting.trait["soil_bright"] * np.exp(0.10 * land.setting.layer["soil 9"]))
    soil = under * by_cover(_ON_SOIL) * bright * (np.float32(1.0) - np.float32(0.32) * state.moisture)
    red = block.spread(np.clip(land.setting.trait["soil_red"] + 0.15 * land.setting.layer["soil 9"], 0.0, 1.0))
    water = under * by_cover(_ON_WATER)
    silt = np.clip(
        np.float32(0.3)
        + np.float32(0.35) * noise.smooth(noise.salt(world.seed, "silt"), block.rows(), block.columns(), 130.0)
        + np.float32(0.25) * (state.moist - np.float32(0.4)),
        0.0,
        1.0,
    )
    made = np.empty((len(spectra.ENDMEMBERS), *land.cover.shape), dtype=np.float32)
    made[spectra.BROADLEAF] = state.wood * (np.float32(1.0) - land.conifer)
    made[spectra.CONIFER] = state.wood * land.conifer
    made[spectra.HERB] = state.plants - state.wood
    made[spectra.DRY] = state.dry
    made[spectra.GREY_SOIL] = soil * (np.float32(1.0) - red)
    made[spectra.RED_SOIL] = soil * red
    made[spectra.WATER] = water * (np.float32(1.0) - silt)
    made[spectra.TURBID] = water * silt
    made[spectra.SNOW] = under * by_cover(_ON_SNOW)
    made[spectra.BUILT] = under * by_cover(_ON_BUILT)
    made[spectra.MOSS] = under * by_cover(_ON_MOSS)
    made[spectra.WET] = under * by_cover(_ON_WET)
    made *= np.float32(1.0) - state.snow
    made[spectra.SNOW] += state.snow
    return made
