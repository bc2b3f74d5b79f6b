"""Sentinel-2 in the archive: L1C and L2A products, as delivered and HARMONIZED, and what is made from each of them.

Products are never stored: a tile's passes follow from orbit geometry, their dates from arithmetic, their cloud from
the weather. Dynamic World and Cloud Score+ list the same products under the same system:index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
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
from mmearth_data.emulator.world.scenes import Masked, OpticalScene, Pixels, Read, Series, Sky

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

_RESOLUTION = {
    **dict.fromkeys(("B2", "B3", "B4", "B8"), 10),
    **dict.fromkeys(("B5", "B6", "B7", "B8A", "B11", "B12", "SCL", "MSK_CLDPRB"), 20),
    **dict.fromkeys(("B1", "B9", "B10", "QA60"), 60),
}
_OPTICAL = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
L1C_BANDS = (*_OPTICAL, "QA60")
L2A_BANDS = (*(band for band in _OPTICAL if band != "B10"), "SCL", "MSK_CLDPRB", "QA60")
SCORE_BANDS = ("cs", "cs_cdf")
_BYTES = ("SCL", "MSK_CLDPRB")

DELIVERED = ("COPERNICUS/S2", "COPERNICUS/S2_SR")
"""Collections of products as they were delivered, with the offset of their baseline."""

Kind = Literal["L1C", "L2A", "score", "labels"]


@dataclass(frozen=True)
class Pass:
    """A tile as one relative orbit sees it; ``footprint`` is the ``outline`` of what it images as published."""

    tile: mgrs.MgrsTile
    orbit: int
    edges: tuple[HalfPlane, ...]
    outline: Polygon
    footprint: BaseGeometry


@dataclass(frozen=True)
class Product:
    """One acquisition of a tile, of which the collections publish what they have; the sun's angles in degrees."""

    seen: Pass
    time: int
    index: str
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


@lru_cache(maxsize=8192)
def _grid(tile: mgrs.MgrsTile, metres: int) -> NativeGrid:
    size = mgrs.EXTENT // metres
    return NativeGrid(
        f"EPSG:{tile.epsg}",
        (float(metres), 0.0, float(tile.left), 0.0, -float(metres), float(tile.top)),
        (size, size),
    )


@lru_cache(maxsize=8192)
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
        found.append(Pass(tile, int(orbit), cutting, shape, within_globe(shape)))
    return tuple(found)


class Sentinel2:
    """Lists products: by tile, orbit and year, computed when asked for and kept for a while."""

    def __init__(self, seed: int, sky: Sky) -> None:
        self._seed, self._sky = seed, sky
        self.year = lru_cache(maxsize=4096)(self._year)
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
        months = np.array([dates.month_of(int(value)) for value in time])
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
        kept, l2a = (
            (zenith < _LOWEST_SUN) & lucky("kept", _LOST),
            lucky("l2a", _L2A_LOST) & (time >= (_L2A_EUROPE if early else _L2A_WORLD)),
        )
        score, probability = lucky("score", _SCORE_LOST), lucky("probability", _PROBABILITY_LOST)
        return tuple(
            Product(
                seen, int(time[i]), f"{dates.stamp(int(begun[i]) * 1000)}_{dates.stamp(int(time[i]))}_T{tile.name}",
                int(takes[i]), int(keys[i]), int(satellite[i]), round(float(cloud[i]), 4), bool(l2a[i]),
                bool(score[i]), bool(probability[i]), float(zenith[i]), float(azimuth[i]),
            )
            for i in np.nonzero(kept)[0]
        )  # fmt: skip

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
                if boxes_touch(seen.outline.bounds, asked):
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
            for product in self.year(seen, dates.year_of(time)):
                if product.index == index:
                    return product
        return None


def _corners(tile: mgrs.MgrsTile) -> NDArray[np.float64]:
    left, top = float(tile.left), float(tile.top)
    right, bottom = left + mgrs.EXTENT, top - mgrs.EXTENT
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]])


class _ProductImage(ImageAsset):
    """A product as an image; properties and bands are made when first asked for, as most products are only counted."""

    _kind: Kind
    _product: Product
    _series: Series
    _pixels: Pixels
    _offset: int

    def __init__(
        self, asset_id: str, kind: Kind, product: Product, series: Series, pixels: Pixels, delivered: bool
    ) -> None:
        fields = self.__dict__
        fields["id"], fields["footprint"] = f"{asset_id}/{product.index}", product.seen.footprint
        fields["_offset"] = metadata.offset(product.time) if delivered else 0
        fields["_kind"], fields["_product"], fields["_series"], fields["_pixels"] = kind, product, series, pixels

    @cached_property
    def properties(self) -> Mapping[str, Any]:
        """What the service publishes about the product."""
        return _properties(self._kind, self._product)

    @cached_property
    def bands(self) -> tuple[BandAsset, ...]:
        """The product's bands, in the service's order."""
        return _bands(self._kind, self._product, self._series, self._pixels, self._offset)


class Sentinel2Collection:
    """One of the collections that list Sentinel-2 products; ``delivered`` tells those that keep their offset."""

    def __init__(
        self, asset_id: str, kind: Kind, catalogue: Sentinel2, pixels: Pixels, delivered: bool = False
    ) -> None:
        self.id, self._delivered = asset_id, delivered
        self._kind, self._catalogue, self._pixels = kind, catalogue, pixels
        self._of_year = lru_cache(maxsize=2048)(self._images)

    def query(
        self, bounds: tuple[float, float, float, float] | None, start: int | None, end: int | None
    ) -> Iterable[ImageAsset]:
        """Images that may touch ``bounds`` in [start, end) ms, by system:index."""
        found: list[tuple[str, ImageAsset]] = []
        for seen, year, low, high in self._catalogue.years(bounds, start, end):
            found.extend((index, image) for index, time, image in self._of_year(seen, year) if low <= time < high)
        found.sort(key=lambda entry: entry[0])
        return [image for _, image in found]

    def image(self, index: str) -> ImageAsset | None:
        """The image with this system:index, or None."""
        product = self._catalogue.product(index)
        if product is None or not product.listed(self._kind):
            return None
        year = self._of_year(product.seen, dates.year_of(product.time))
        return next(image for known, _, image in year if known == index)

    def _image(self, product: Product, series: Series) -> ImageAsset:
        return _ProductImage(self.id, self._kind, product, series, self._pixels, self._delivered)

    def _images(self, seen: Pass, year: int) -> tuple[tuple[str, int, ImageAsset], ...]:
        products = [product for product in self._catalogue.year(seen, year) if product.listed(self._kind)]
        series = Series(tuple((product.datatake, dates.month_of(product.time)) for product in products))
        return tuple((product.index, product.time, self._image(product, series)) for product in products)


def _shifted(read: Read, offset: int) -> Read:
    """A reader of values that are higher by an offset."""

    def shifted(row0: int, column0: int, height: int, width: int) -> Masked:
        values, valid = read(row0, column0, height, width)
        return (values.astype(np.int64) + offset).astype(values.dtype), valid

    return shifted if offset else read


def _masked(read: Read) -> Read:
    """A reader of the same window in which no pixel is valid."""

    def masked(row0: int, column0: int, height: int, width: int) -> Masked:
        values, valid = read(row0, column0, height, width)
        return values, np.zeros_like(valid)

    return masked


def _bands(kind: Kind, product: Product, series: Series, pixels: Pixels, offset: int) -> tuple[BandAsset, ...]:
    tile = product.seen.tile
    scene = OpticalScene(
        level="L2A" if kind == "L2A" else "L1C",
        key=product.key,
        datatake=product.datatake,
        month=dates.month_of(product.time),
        year=dates.year_of(product.time),
        sun_zenith=product.sun_zenith,
        sun_azimuth=product.sun_azimuth,
        edges=product.seen.edges,
    )
    ten = _grid(tile, 10)
    if kind == "labels":
        return (BandAsset("label", "uint8", ten, pixels.labels(scene, series, ten)),)
    if kind == "score":
        return tuple(BandAsset(name, "float32", ten, pixels.optical(scene, name, ten)) for name in SCORE_BANDS)
    made = []
    for name in L1C_BANDS if kind == "L1C" else L2A_BANDS:
        if name == "MSK_CLDPRB" and not product.has_probability:
            continue
        grid = _grid(tile, _RESOLUTION[name])
        reader = pixels.optical(scene, name, grid)
        if name in _OPTICAL:
            reader = _shifted(reader, offset)
        elif name == "QA60" and metadata.without_mask(product.time):
            reader = _masked(reader)
        made.append(BandAsset(name, "uint8" if name in _BYTES else "uint16", grid, reader))
    return tuple(made)


def _properties(kind: Kind, product: Product) -> dict[str, Any]:
    tile = product.seen.tile
    common = {"system:index": product.index, "system:time_start": product.time}
    if kind == "score":
        return {**common, "MGRS_TILE": tile.name}
    if kind == "labels":
        return {**common, "dynamicworld_algorithm_version": "3.5.0"}
    return {
        **common,
        **metadata.published(
            index=product.index,
            tile=tile.name,
            level="L1C" if kind == "L1C" else "L2A",
            satellite=product.satellite,
            orbit=product.seen.orbit + 1,
            absolute_orbit=int((product.time - metadata.SATELLITES[product.satellite].launch) / ORBITS.per_orbit_ms),
            time=product.time,
            generated=product.time + 9_000_000 + product.key % 14_400_000,
        ),
        "CLOUDY_PIXEL_PERCENTAGE": product.cloud,
        "CLOUD_COVERAGE_ASSESSMENT": product.cloud,
        "MEAN_SOLAR_ZENITH_ANGLE": product.sun_zenith,
        "MEAN_SOLAR_AZIMUTH_ANGLE": product.sun_azimuth,
    }


def collections(seed: int, sky: Sky, pixels: Pixels) -> dict[str, Sentinel2Collection]:
    """The collections by asset id, sharing one catalogue of products."""
    catalogue = Sentinel2(seed, sky)
    kinds: dict[str, Kind] = {
        "COPERNICUS/S2": "L1C",
        "COPERNICUS/S2_SR": "L2A",
        "COPERNICUS/S2_HARMONIZED": "L1C",
        "COPERNICUS/S2_SR_HARMONIZED": "L2A",
        "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED": "score",
        "GOOGLE/DYNAMICWORLD/V1": "labels",
    }
    return {
        asset_id: Sentinel2Collection(asset_id, kind, catalogue, pixels, delivered=asset_id in DELIVERED)
        for asset_id, kind in kinds.items()
    }
