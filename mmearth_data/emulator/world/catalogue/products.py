"""Sentinel-2's products: a tile's passes follow from orbit geometry, their dates from arithmetic, their cloud from the
weather, so that none is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.catalogue import dates, metadata, mgrs
from mmearth_data.emulator.world.catalogue.orbits import (
    Constellation,
    HalfPlane,
    boxes_touch,
    clip_polygon,
    outline,
    within_globe,
)
from mmearth_data.emulator.world.scenes import Sky

ORBITS = Constellation(
    cycle_days=10, orbits=143, inclination=98.62, swath_km=290.0, anchor=dates.ms(2019, 6, 26, 23, 10, 56), node=168.63,
    ascending=False,
)  # fmt: skip
BEGIN, END = metadata.BEGIN, dates.ms(2023, 1, 1)
_L2A_EUROPE, _L2A_WORLD = dates.ms(2017, 3, 28), dates.ms(2018, 12, 13)
_EUROPE = (-15.0, 34.0, 45.0, 72.0)
_SMALLEST_PART = 0.02
"""Share of a tile that a swath must cover for a product to be published."""
_LOST, _L2A_LOST, _SCORE_LOST, _PROBABILITY_LOST = 0.03, 0.02, 0.03, 0.05
"""Shares of acquisitions, L2A products, Cloud Score+ images and MSK_CLDPRB bands that the archive lacks."""
_MASKED_ODDS = 0.3, 0.5
"""Odds that a pixel is in a product's cloud mask, relative to those of any cloud: the first at least, and up to the
second more."""
_LOWEST_SUN = 82.0
"""Solar zenith in degrees beyond which nothing is acquired."""
LABELLED_BELOW = 35.0
"""Dynamic World classifies products with less cloud than this (percent)."""

Kind = Literal["L1C", "L2A", "score", "labels"]


@dataclass(frozen=True, eq=False)
class Pass:
    """A tile as one relative orbit sees it; ``bounds`` of what it images may reach beyond ±180°, ``footprint`` not."""

    tile: mgrs.MgrsTile
    orbit: int
    edges: tuple[HalfPlane, ...]
    bounds: tuple[float, float, float, float]
    footprint: BaseGeometry


class Product(NamedTuple):
    """One acquisition of a tile, of which the collections publish what they have; the sun's angles in degrees.

    ``name`` is its system:index in all of them.
    """

    seen: Pass
    time: int
    month: float
    name: str
    datatake: int
    key: int
    satellite: int
    cloud: float
    has_l2a: bool
    has_score: bool
    has_probability: bool
    sun_zenith: float
    sun_azimuth: float

    def listed(self, kind: Kind) -> bool:
        """Whether a collection of this kind has the acquisition."""
        if kind == "L2A":
            return self.has_l2a
        if kind == "score":
            return self.has_score
        return kind == "L1C" or self.cloud < LABELLED_BELOW


@lru_cache(maxsize=4096)
def passes(tile: mgrs.MgrsTile) -> tuple[Pass, ...]:
    """Every relative orbit that images enough of a tile."""
    offsets, half = ORBITS.offsets(tile.lon, tile.lat), ORBITS.half_width(tile.lat)
    reach = half + 0.75 * mgrs.EXTENT / 1000.0 / (111.0 * np.cos(np.radians(min(abs(tile.lat), 83.0))))
    left, top = float(tile.left), float(tile.top)
    corners = np.array(
        [[left, top], [left, top - mgrs.EXTENT], [left + mgrs.EXTENT, top - mgrs.EXTENT], [left + mgrs.EXTENT, top]]
    )
    found = []
    for orbit in np.nonzero(np.abs(offsets) < reach)[0]:
        edges = ORBITS.edges(int(orbit), tile.lon, tile.lat, tile.epsg)
        seen = clip_polygon(corners, edges)
        if len(seen) < 3 or Polygon(seen).area < _SMALLEST_PART * mgrs.EXTENT**2:
            continue
        cutting = tuple(edge for edge in edges if (edge.depth(corners[:, 0], corners[:, 1]) < 0.0).any())
        shape = outline(tile.epsg, seen)
        found.append(Pass(tile, int(orbit), cutting, shape.bounds, within_globe(shape)))
    return tuple(found)


class Sentinel2:
    """Lists products: by tile, orbit and year, computed when asked for and kept for a while."""

    def __init__(self, seed: int, sky: Sky) -> None:
        self._seed, self._sky = seed, sky
        self.year = lru_cache(maxsize=1024)(self._year)
        self._imaged = lru_cache(maxsize=65536)(self._has_land)

    def _has_land(self, tile: mgrs.MgrsTile) -> bool:
        west, south, east, north = outline(tile.epsg, _corners(tile), 2).bounds
        return self._sky.imaged(west, south, east, north)

    def _year(self, seen: Pass, year: int) -> tuple[Product, ...]:
        tile, orbit = seen.tile, seen.orbit
        start, end = max(dates.ms(year), BEGIN), min(dates.ms(year + 1), END)
        # A datatake starts where its strip does; strips begin every twenty degrees of latitude.
        strip = float(np.clip(np.ceil(tile.lat / 20.0) * 20.0, -40.0, 80.0))
        times, starts, satellites = [], [], []
        for number, flown in enumerate(metadata.SATELLITES):
            cycles = ORBITS.visits(orbit, tile.lat, flown.phase, max(start, flown.since), end)
            times.append(ORBITS.times(orbit, tile.lat, flown.phase, cycles))
            starts.append(ORBITS.times(orbit, strip, flown.phase, cycles) // 1000)
            satellites.append(np.full(len(cycles), number))
        time, begun, satellite = (np.concatenate(parts) for parts in (times, starts, satellites))
        if not len(time):
            return ()
        order = np.argsort(time)
        time, begun, satellite = time[order], begun[order], satellite[order]
        takes = noise.hash_points(noise.salt(self._seed, "datatake", orbit), begun)
        months = np.array(dates.months_of(time // 1000))
        ring = np.array([[0.0, 0.0], [-0.3, -0.3], [0.3, -0.3], [-0.3, 0.3], [0.3, 0.3]])
        shrink = np.cos(np.radians(min(abs(tile.lat), 84.0)))
        share = self._sky.cloud(takes, months, tile.lon + ring[:, 0] / shrink, tile.lat + ring[:, 1]).mean(axis=1)
        keys = noise.hash_points(noise.salt(self._seed, "product", tile.name), takes)
        # The published percentage is that of the product's cloud mask, which misses what is thin or small.
        odds = _MASKED_ODDS[0] + _MASKED_ODDS[1] * noise.uniform(keys)
        cloud = 100.0 * share * odds / (1.0 - share + share * odds)
        west, south, east, north = _EUROPE
        early = west < tile.lon < east and south < tile.lat < north

        def lucky(name: str, lost: float) -> NDArray[np.bool_]:
            return noise.uniform(noise.hash_points(noise.salt(name), keys)) >= lost

        zenith, azimuth = dates.suns(time, tile.lon, tile.lat)
        kept = (zenith < _LOWEST_SUN) & lucky("kept", _LOST)
        l2a = lucky("l2a", _L2A_LOST) & (time >= (_L2A_EUROPE if early else _L2A_WORLD))
        score, probability = lucky("score", _SCORE_LOST), lucky("probability", _PROBABILITY_LOST)
        columns = (time, months, takes, keys, satellite, cloud, l2a, score, probability, zenith, azimuth, kept)
        names = zip(dates.stamps(begun), dates.stamps(time // 1000), strict=True)
        return tuple(
            Product(seen, at, month, f"{strip_begun}_{sensed}_T{tile.name}", take, key, flown, round(share, 4), *rest)
            for (strip_begun, sensed), (at, month, take, key, flown, share, *rest, is_kept) in zip(
                names, zip(*(column.tolist() for column in columns), strict=True), strict=True
            )
            if is_kept
        )

    def years(
        self, bounds: tuple[float, float, float, float] | None, start: int | None, end: int | None
    ) -> Iterator[tuple[Pass, int, int, int]]:
        """Passes whose footprint's bounds touch ``bounds``, year by year, with the [low, high) ms asked for."""
        low, high = max(start or BEGIN, BEGIN), min(END if end is None else end, END)
        if high <= low:
            return
        asked = (-180.0, -90.0, 180.0, 90.0) if bounds is None else bounds
        for tile in mgrs.tiles_touching(asked):
            if not self._imaged(tile):
                continue
            for seen in passes(tile):
                if boxes_touch(seen.bounds, asked):
                    for year in range(dates.year_of(low), dates.year_of(high - 1) + 1):
                        yield seen, year, low, high

    def product(self, index: str) -> Product | None:
        """The product of this system:index, or None."""
        parts = index.split("_")
        if len(parts) != 3 or not parts[2].startswith("T"):
            return None
        tile, time = mgrs.tile(parts[2][1:]), dates.parse(parts[1])
        if tile is None or time is None or not self._imaged(tile):
            return None
        for seen in passes(tile):
            if not _flown(seen, time):
                continue
            for product in self.year(seen, dates.year_of(time)):
                if product.name == index:
                    return product
        return None


def _flown(seen: Pass, second: int) -> bool:
    """Whether a satellite makes a pass within a second, given by its first ms, give or take some ms."""
    return any(
        len(ORBITS.visits(seen.orbit, seen.tile.lat, flown.phase, second - 10, second + 1010))
        for flown in metadata.SATELLITES
    )


def _corners(tile: mgrs.MgrsTile) -> NDArray[np.float64]:
    left, top = float(tile.left), float(tile.top)
    right, bottom = left + mgrs.EXTENT, top - mgrs.EXTENT
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]])
