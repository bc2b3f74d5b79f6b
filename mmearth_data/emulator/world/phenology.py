"""What grows, has withered, is bare or under snow at a date, and the shares of pure surfaces that this makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import climate, noise, spectra
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.compiled import compiled
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
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]


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


_PLANTS, _GAIN, _KEEPS, _THIRST, _LITTER, _WOODY, _SHELTER = range(7)
_GROWTH = np.stack([
    _table(trees=0.62, shrub=0.18, grass=0.30, crops=0.88, built=0.10, wetland=0.55, mangroves=0.72, moss=0.12),
    _table(trees=0.33, shrub=0.55, grass=0.60, built=0.16, bare=0.10, wetland=0.32, mangroves=0.22, moss=0.2),
    _table(shrub=0.40, grass=0.06, built=0.30, bare=0.3, wetland=0.22, mangroves=0.97, moss=0.2),
    _table(trees=0.55, shrub=0.75, grass=1.0, crops=0.6, built=0.5, bare=1.0, wetland=0.15, moss=0.3),
    _table(
        trees=0.55, shrub=0.6, grass=0.85, crops=0.35, built=0.4, bare=0.5, wetland=0.7, mangroves=0.3, moss=0.4
    ),
    _table(trees=1.0, shrub=0.55, built=0.5, wetland=0.08, mangroves=1.0),
    _table(trees=0.62, shrub=0.15, mangroves=0.6, built=0.25),
])  # fmt: skip
"""How plants grow on each cover class.

The share of a pixel that they cover at the poorest sites and what the best ones have more; the share of them that stays
green whatever the season; how far drought withers the others; the share of withered ones that still covers the ground;
the share that is woody; the share of a pixel that seasonal snow does not hide.
"""
_ON_MOSS, _ON_WET, _ON_BUILT, _ON_WATER, _ON_SNOW, _ON_SOIL = range(6)
_BENEATH = np.stack([
    _table(moss=0.8, trees=0.1),
    _table(wetland=0.75, mangroves=0.8, trees=0.15),
    _table(built=0.93),
    _table(water=1.0, wetland=0.2, mangroves=0.2),
    _table(snow=0.97),
])  # fmt: skip
_BENEATH = np.concatenate([_BENEATH, (1.0 - _BENEATH[0] - _BENEATH[1] - _BENEATH[2] - _BENEATH[3] - _BENEATH[4])[None]])
"""What lies under the plants of each cover class."""


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


_ONE, _HALF = np.float32(1.0), np.float32(0.5)


@compiled
def _weather(warmth: F32, vigour: F32, wetness: F32, nodes: F32, flakes: F32) -> F32:
    """Of each pixel: minus how warm it has been, how well watered, how snowy and how frosty it is, each in logits.

    ``nodes`` are fields at the pixels: what the month and the weeks before add to the annual ``warmth``, and water.
    """
    out = np.empty((4, *warmth.shape), dtype=np.float32)
    for i in range(warmth.shape[0]):
        for j in range(warmth.shape[1]):
            mean, now = warmth[i, j], nodes[0, i, j]
            balance = nodes[2, i, j] + np.float32(0.35) * wetness[i, j]
            out[0, i, j] = -((mean + nodes[1, i, j] - np.float32(6.5)) * np.float32(0.45))
            out[1, i, j] = -((balance + np.float32(0.3) * vigour[i, j] - np.float32(0.75)) * np.float32(4.5))
            snow = (np.float32(-1.5) - mean - now) * np.float32(0.8)
            out[2, i, j] = -(snow + np.float32(1.1) * flakes[i, j])
            out[3, i, j] = -((np.float32(-1.0) - mean - now) * np.float32(0.9))
    return out


@compiled
def _grown(
    cover: U8, vigour: F32, conifer: F32, wetness: F32, warmth: F32, odds: F32, nodes: F32, crops: F32, table: F32
) -> F32:
    """``Surface``'s fields in their order, from ``odds``: exponentials of ``_weather``."""
    out = np.empty((8, *cover.shape), dtype=np.float32)
    for i in range(cover.shape[0]):
        for j in range(cover.shape[1]):
            kind, site, needle = cover[i, j], vigour[i, j], conifer[i, j]
            warm, moist = _ONE / (_ONE + odds[0, i, j]), _ONE / (_ONE + odds[1, i, j])
            snow, frost = _ONE / (_ONE + odds[2, i, j]), _ONE / (_ONE + odds[3, i, j])
            plants = table[_PLANTS, kind] + table[_GAIN, kind] * site
            thirst = table[_THIRST, kind]
            keeps = table[_KEEPS, kind]
            if kind == TREES:
                keeps = needle + (_ONE - needle) * nodes[3, i, j]
            share = keeps + (_ONE - keeps) * (warm * (_ONE - thirst + thirst * moist))
            if kind == CROPS:
                watered = _ONE if site > np.float32(0.75) else moist
                share = crops[i, j] * (np.float32(0.35) + np.float32(0.65) * watered)
            green = plants * share
            # Under trees part of the snow is out of sight; still water freezes late and thaws late.
            hidden = np.float32(0.0)
            if snow > np.float32(0.12) and (kind != WATER or warmth[i, j] + nodes[0, i, j] < np.float32(-5.0)):
                hidden = snow * (_ONE - table[_SHELTER, kind] * (_HALF + _HALF * needle))
            moisture = moist * np.float32(0.75) + np.float32(0.3) * wetness[i, j]
            out[0, i, j] = green
            out[1, i, j] = green * table[_WOODY, kind]
            out[2, i, j] = plants * (_ONE - share) * table[_LITTER, kind]
            out[3, i, j] = green * (_ONE - hidden)
            out[4, i, j] = moist
            out[5, i, j] = min(max(moisture, np.float32(0.0)), _ONE)
            out[6, i, j] = hidden
            out[7, i, j] = frost
    return out


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


@compiled
def _lag(cover: U8, hashes: U32, starts: F32, month: np.float32) -> F32:
    """Minus the square of how far each field's crop is from its height, in spans of its growth; 0 on other cover."""
    out = np.zeros(cover.shape, dtype=np.float32)
    for i in range(cover.shape[0]):
        for j in range(cover.shape[1]):
            if cover[i, j] == CROPS:
                lot = np.float32(hashes[i, j] >> np.uint32(8)) * np.float32(2.0**-24)
                if lot < np.float32(0.42):
                    peak, length = np.float32(3.3) + lot * np.float32(2.0), np.float32(1.9)
                else:
                    peak, length = np.float32(4.6) + lot * np.float32(2.4), np.float32(1.5)
                ahead = (month - starts[i, j] - peak + np.float32(6.0)) % np.float32(12.0) - np.float32(6.0)
                out[i, j] = -((ahead / length) * (ahead / length))
    return out


def _crops(land: Ground, month: float, year: int) -> F32:
    """Greenness of each field's crop, which rotates from year to year: sown and harvested on dates of its own."""
    block = land.block
    # Fields are sown in spring, in the tropics with the rains of summer; half a year later in the south.
    starts = block.spread(np.where(np.abs(block.lat) < 23.0, 4.0, 2.0)) + np.float32(6.0 if block.south else 0.0)
    greenness = _lag(land.cover, noise.hash_points(noise.salt("crop", year), land.parcel), starts, np.float32(month))
    return np.exp(greenness, out=greenness)


@lru_cache(maxsize=16)
def surface(world: World, block: Block, month: float, year: int) -> Surface:
    """What a block's surface is made of at a date."""
    land = ground(world, block)
    swing = land.setting.swing
    # Air temperature of the month at each pixel's height; plants lag behind it by a fortnight.
    nodes = block.spread(
        np.stack([
            swing * climate.season(block.lat, month),
            swing * climate.season(block.lat, month - 0.5),
            _water(world, block, month, year),
            land.setting.trait["evergreen"],
        ])
    )  # fmt: skip
    key = noise.salt(world.seed, "snow", year, int(month * 3))
    flakes = noise.smooth(key, block.rows(), block.columns(), 42.0)
    odds = _weather(land.warmth, land.vigour, land.terrain.wetness, nodes, flakes)
    np.exp(odds, out=odds)
    crops = _crops(land, month, year) if (land.cover == CROPS).any() else np.zeros_like(land.vigour)
    return Surface(
        land,
        *_grown(
            land.cover, land.vigour, land.conifer, land.terrain.wetness, land.warmth, odds, nodes, crops, _GROWTH
        ),
    )  # fmt: skip


@compiled
def _divided(
    cover: U8, conifer: F32, state: tuple[F32, F32, F32, F32, F32, F32], nodes: F32, haze: F32, table: F32
) -> F32:
    """``shares`` from a state's plants, wood, dry, moist, moisture and snow, and how bright and red the soil is."""
    plants, wood, dry, moist, moisture, snow = state
    out = np.empty((12, *cover.shape), dtype=np.float32)
    for i in range(cover.shape[0]):
        for j in range(cover.shape[1]):
            kind, needle, red = cover[i, j], conifer[i, j], nodes[1, i, j]
            under = _ONE - plants[i, j] - dry[i, j]
            soil = under * table[_ON_SOIL, kind] * nodes[0, i, j] * (_ONE - np.float32(0.32) * moisture[i, j])
            water = under * table[_ON_WATER, kind]
            silt = np.float32(0.3) + np.float32(0.35) * haze[i, j] + np.float32(0.25) * (moist[i, j] - np.float32(0.4))
            silt = min(max(silt, np.float32(0.0)), _ONE)
            clear = _ONE - snow[i, j]
            out[spectra.BROADLEAF, i, j] = wood[i, j] * (_ONE - needle) * clear
            out[spectra.CONIFER, i, j] = wood[i, j] * needle * clear
            out[spectra.HERB, i, j] = (plants[i, j] - wood[i, j]) * clear
            out[spectra.DRY, i, j] = dry[i, j] * clear
            out[spectra.GREY_SOIL, i, j] = soil * (_ONE - red) * clear
            out[spectra.RED_SOIL, i, j] = soil * red * clear
            out[spectra.WATER, i, j] = water * (_ONE - silt) * clear
            out[spectra.TURBID, i, j] = water * silt * clear
            out[spectra.SNOW, i, j] = under * table[_ON_SNOW, kind] * clear + snow[i, j]
            out[spectra.BUILT, i, j] = under * table[_ON_BUILT, kind] * clear
            out[spectra.MOSS, i, j] = under * table[_ON_MOSS, kind] * clear
            out[spectra.WET, i, j] = under * table[_ON_WET, kind] * clear
    return out


def shares(world: World, block: Block, month: float, year: int) -> F32:
    """A block at a date as shares of pure surfaces, in the order of ``spectra.ENDMEMBERS``: (12, rows, columns)."""
    state = surface(world, block, month, year)
    land = state.ground
    trait, patches = land.setting.trait, land.setting.layer["soil 9"]
    bright = trait["soil_bright"] * np.exp(0.10 * patches)
    nodes = block.spread(np.stack([bright, np.clip(trait["soil_red"] + 0.15 * patches, 0.0, 1.0)]))
    haze = noise.smooth(noise.salt(world.seed, "silt"), block.rows(), block.columns(), 130.0)
    fields = state.plants, state.wood, state.dry, state.moist, state.moisture, state.snow
    return _divided(land.cover, land.conifer, fields, nodes, haze, _BENEATH)


def snowiness(state: Surface) -> F32:
    """The share of snow alone among a state's ``shares``."""
    lasting = (np.float32(1.0) - state.plants - state.dry) * _BENEATH[_ON_SNOW].take(state.ground.cover, mode="clip")
    alone: F32 = lasting * (np.float32(1.0) - state.snow) + state.snow
    return alone
