"""The world from afar: what covers it, how high it lies and which biome it has, at the pixels of a map of any scale.

Down to tens of metres a map shows the world's own pixels. Above that they are never computed: shares of cover follow
from the climate, the ecoregion and the kilometre-wide noise that the fine detail is made of, so a map of a continent
costs no more than one of a village and looks like it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world import biomes, blocks, climate, landcover, phenology, spectra
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import (
    BARE,
    CROPS,
    GRASS,
    MANGROVES,
    MOSS,
    SHRUB,
    SNOW,
    TREES,
    WATER,
    WETLAND,
    ground,
)
from mmearth_data.emulator.world.planet import COLUMNS, Planet, between, box_of
from mmearth_data.emulator.world.setting import World
from mmearth_data.emulator.world.terrain import quantile

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

_FINEST = 25.0
"""Metres per pixel (at the equator) up to which a map shows the world's own pixels."""
_RADIUS = 6_378_137.0
_MAX_LATITUDE = 85.06
_STEP_METRES = 600.0
"""Fields from afar are computed at points this close, or at every other pixel where pixels are wider."""
_GROWTH_SPREAD = np.sqrt(1.0 + 0.75**2 + 0.5**2)
"""Of the growth of plants, whose fine part has unit variance and whose two coarse parts 0.75² and 0.5²."""
_RGB = tuple(spectra.INDEX[band] for band in ("B4", "B3", "B2"))
_YEAR = 2019
_BELT_ROWS = 12
"""Half the boxes of latitude over which a map spreads what changes from one belt to the next."""
_PLAIN = 0.16
"""Metres that plains rise per metre of the planet's shore."""


@dataclass(frozen=True)
class View:
    """A square map in Web Mercator: its upper-left corner and its pixels in projected metres, its width in pixels."""

    west: float
    north: float
    metres: float
    size: int

    @property
    def grid(self) -> NativeGrid:
        """The map's pixels as a grid."""
        return NativeGrid("EPSG:3857", (self.metres, 0.0, self.west, 0.0, -self.metres, self.north))

    @property
    def fine(self) -> bool:
        """Whether the map shows the world's own pixels."""
        return self.metres <= _FINEST


@dataclass(frozen=True)
class Afar:
    """A map from afar: ``shore`` negative at sea, ``height`` in metres, the expected ``shares`` of cover classes.

    ``depth`` is the shore without steps, for the colour of the sea; nor has the height any (see ``_steps``). All but
    the shares (classes, size, size) have shape (size, size).
    """

    shore: F32
    depth: F32
    height: F32
    shares: F32


def _degrees(x: F64, y: F64) -> tuple[F64, F64]:
    """Longitude and latitude of points in Web Mercator's metres."""
    lat = np.degrees(2.0 * np.arctan(np.exp(y / _RADIUS)) - np.pi / 2.0)
    return np.mod(np.degrees(x / _RADIUS) + 180.0, 360.0) - 180.0, np.clip(lat, -_MAX_LATITUDE, _MAX_LATITUDE)


def _nodes(view: View) -> tuple[F64, F64, int]:
    """Longitude and latitude of points around a map, and how many of its pixels lie between two of them."""
    step = 2
    while step < 8 and view.metres * step * 2 < _STEP_METRES:
        step *= 2
    ticks = np.arange(-1, view.size // step + 3) * step
    lon, lat = _degrees(*np.meshgrid(view.west + ticks * view.metres, view.north - ticks * view.metres))
    return lon, lat, step


def _filled(nodes: F64, view: View, step: int) -> F32:
    """Fields at the points of ``_nodes`` (…, n, n), bilinear at the pixels' centres."""
    at = (np.arange(view.size) + 0.5) / step + 1.0
    low = at.astype(np.int64)
    part = (at - low).astype(np.float32)
    field = nodes.astype(np.float32)
    down = field[..., low, :] * (np.float32(1.0) - part)[:, None] + field[..., low + 1, :] * part[:, None]
    filled: F32 = down[..., low] * (np.float32(1.0) - part) + down[..., low + 1] * part
    return filled


def _shares(own: dict[str, F64], growth: F64, farms: F64, relief: F64, summer: F64, ice: F64) -> F64:
    """The expected share of each cover class, (classes, points), where only the coarse part of growth is known."""
    shares = np.zeros((len(landcover.VALUES), len(growth)))
    limits = np.clip(np.cumsum([own[name] for name in ("bare", "moss", "grass", "shrub")], axis=0), 0.0, 0.999)
    # The share of places that grow less densely than each limit does.
    below = [1.0 / (1.0 + np.exp(1.702 * (quantile(limit) * _GROWTH_SPREAD + growth))) for limit in limits]
    for cover, upper, lower in zip(
        (BARE, MOSS, GRASS, SHRUB, TREES), (*below, np.ones_like(growth)), (np.zeros_like(growth), *below), strict=True
    ):
        shares[cover] = np.maximum(upper - lower, 0.0)
    chance = 2.0 * (quantile(1.0 - own["crops"]) + farms) - np.clip((relief - 3.0) * 0.4, 0.0, 8.0)
    farmed = 1.0 / (1.0 + np.exp(-2.2 * chance))
    shares *= 1.0 - 0.97 * farmed
    shares[CROPS] += 0.86 * farmed
    shares[GRASS] += 0.11 * farmed
    for cover, name in ((WETLAND, "wetland"), (MANGROVES, "mangroves"), (WATER, "lakes")):
        shares *= 1.0 - own[name]
        shares[cover] += own[name]
    frozen = np.maximum(1.0 / (1.0 + np.exp((summer - 0.3) * 1.6)), 0.9 * ice)
    shares *= 1.0 - frozen
    shares[SNOW] += frozen
    return shares


@lru_cache(maxsize=4)
def _steps(planet: Planet) -> F64:
    """By how much the shore of each box stands out because its latitude has another share of land than the next.

    The sea level of a belt of latitude is its own, and near 52° S and 62° S it changes within a box. Light and colour
    would draw a line around the whole map there.
    """
    mean = planet.shore.mean(axis=1)
    weights = np.hanning(2 * _BELT_ROWS + 3)[1:-1]
    smooth = np.convolve(np.pad(mean, _BELT_ROWS, mode="edge"), weights / weights.sum(), mode="valid")
    return np.repeat((mean - smooth)[:, None], COLUMNS, axis=1)


def afar(world: World, view: View) -> Afar:
    """What a map shows where single pixels of the world are too small for it."""
    lon, lat, step = _nodes(view)
    shape = lon.shape
    lon, lat = lon.ravel(), lat.ravel()

    def layer(name: str) -> F64:
        # What is narrower than two points would only be aliased.
        wide = float(name.split()[1]) * 1000.0 > 2.0 * view.metres * step
        return world.layer(name, lon, lat) if wide else np.zeros(len(lon))

    planet = world.planet
    relief = 1.0 + 60.0 * between(planet.ruggedness, lon, lat)
    hills = 0.55 * layer("hills 60") + 0.4 * layer("hills 25") + 0.3 * layer("hills 10") + 0.2 * layer("hills 5")
    rise = hills * 12.0 * relief
    shore = between(planet.shore, lon, lat) + 10.0
    shore += 9.0 * layer("shore 25") + 5.0 * layer("shore 10") + 2.5 * layer("shore 5")
    summer = between(planet.temperature, lon, lat) + between(planet.swing, lon, lat) - climate.LAPSE * rise
    growth = 0.75 * layer("growth 12") + 0.5 * layer("growth 5")
    farms = 0.75 * layer("farms 16") + 0.5 * layer("farms 6")
    ice = (world.biomes[box_of(lon, lat)] == biomes.ICE).astype(np.float64)
    shares = _shares(world.traits_at(lon, lat), growth, farms, relief, summer, ice)
    steps = between(_steps(planet), lon, lat)
    height = between(planet.height, lon, lat) + rise - _PLAIN * steps
    fields = np.concatenate([[shore, shore - steps, height], shares])
    filled = _filled(fields.reshape(len(fields), *shape), view, step)
    return Afar(filled[0], filled[1], filled[2], filled[3:])


def biome(world: World, view: View) -> U8:
    """BIOME_NUM at each pixel, ``biomes.ICE`` for rock and ice and ``biomes.SEA`` at sea."""
    at = np.arange(view.size) + 0.5
    lon, lat = _degrees(*np.meshgrid(view.west + at * view.metres, view.north - at * view.metres))
    return world.biomes[box_of(lon, lat)]


def near(world: World, view: View) -> tuple[U8, F32]:
    """The world's own pixels on a fine map: class of cover, and metres above the sea."""

    def render(block: Block) -> F32:
        land = ground(world, block)
        return np.stack([land.cover.astype(np.float32), land.terrain.elevation])

    values = blocks.window(view.grid, 1, 0, 0, view.size, view.size, render)
    return values[0].astype(np.uint8), values[1].astype(np.float32)


def summer(world: World, view: View) -> F32:
    """Red, green and blue surface reflectance × 10⁴ of a fine map in its summer, (3, size, size)."""
    colours = spectra.ENDMEMBERS[:, _RGB]

    def render(block: Block) -> F32:
        shares = phenology.shares(world, block, 1.0 if block.south else 7.0, _YEAR)
        seen: F32 = np.tensordot(colours.T, shares, axes=1)
        return seen

    return blocks.window(view.grid, 1, 0, 0, view.size, view.size, render).astype(np.float32)
