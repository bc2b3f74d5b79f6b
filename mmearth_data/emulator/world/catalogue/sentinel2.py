"""Sentinel-2 in the archive: L1C and L2A products, as delivered and HARMONIZED, and what is made from each of them.

Dynamic World and Cloud Score+ list the same products under the same system:index.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world.catalogue import dates, metadata, mgrs
from mmearth_data.emulator.world.catalogue.products import ORBITS, Kind, Pass, Product, Sentinel2
from mmearth_data.emulator.world.scenes import Masked, OpticalScene, Pixels, Read, Series, Sky

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
_KEPT_YEARS = 128
"""Years of passes whose images a collection keeps: up to 80 images of 4 kB each, or 40 MB."""


@lru_cache(maxsize=8192)
def _grid(tile: mgrs.MgrsTile, metres: int) -> NativeGrid:
    size = mgrs.EXTENT // metres
    return NativeGrid(
        f"EPSG:{tile.epsg}",
        (float(metres), 0.0, float(tile.left), 0.0, -float(metres), float(tile.top)),
        (size, size),
    )


class _ProductImage(ImageAsset):
    """A product as an image; properties and bands are made when asked for, as most products are only counted."""

    _kind: Kind
    _product: Product
    _series: Series
    _pixels: Pixels
    _offset: int

    def __init__(
        self, asset_id: str, kind: Kind, product: Product, series: Series, pixels: Pixels, delivered: bool
    ) -> None:
        fields = self.__dict__
        fields["id"], fields["footprint"] = f"{asset_id}/{product.name}", product.seen.footprint
        fields["_offset"] = metadata.offset(product.time) if delivered else 0
        fields["_kind"], fields["_product"], fields["_series"], fields["_pixels"] = kind, product, series, pixels

    @cached_property
    def properties(self) -> Mapping[str, Any]:
        """What the service publishes about the product."""
        return _properties(self._kind, self._product)

    @property
    def bands(self) -> tuple[BandAsset, ...]:
        """The product's bands, in the service's order; made anew for each request, which needs them once."""
        return _bands(self._kind, self._product, self._series, self._pixels, self._offset)


class _Year:
    """What a collection lists of a pass and year, in order of time; images are made when they are first asked for."""

    def __init__(self, products: Sequence[Product], make: Callable[[Product, Series], ImageAsset]) -> None:
        self._products, self._make = products, make
        self._times = [product.time for product in products]
        self._series = Series(tuple((product.datatake, product.month) for product in products))
        self._images: dict[int, ImageAsset] = {}

    def between(self, low: int, high: int) -> Iterator[tuple[str, ImageAsset]]:
        """Images of [low, high) ms with their system:index."""
        for place in range(bisect_left(self._times, low), bisect_left(self._times, high)):
            product = self._products[place]
            image = self._images.get(place)
            if image is None:
                image = self._images.setdefault(place, self._make(product, self._series))
            yield product.name, image


class Sentinel2Collection:
    """One of the collections that list Sentinel-2 products; ``delivered`` tells those that keep their offset."""

    def __init__(
        self, asset_id: str, kind: Kind, catalogue: Sentinel2, pixels: Pixels, delivered: bool = False
    ) -> None:
        self.id, self._delivered = asset_id, delivered
        self._kind, self._catalogue, self._pixels = kind, catalogue, pixels
        self._of_year = lru_cache(maxsize=_KEPT_YEARS)(self._year)

    def query(
        self, bounds: tuple[float, float, float, float] | None, start: int | None, end: int | None
    ) -> Iterable[ImageAsset]:
        """Images that may touch ``bounds`` in [start, end) ms, by system:index."""
        found: list[tuple[str, ImageAsset]] = []
        for seen, year, low, high in self._catalogue.years(bounds, start, end):
            found.extend(self._of_year(seen, year).between(low, high))
        found.sort(key=lambda entry: entry[0])
        return [image for _, image in found]

    def image(self, index: str) -> ImageAsset | None:
        """The image with this system:index, or None."""
        product = self._catalogue.product(index)
        if product is None or not product.listed(self._kind):
            return None
        _, image = next(
            self._of_year(product.seen, dates.year_of(product.time)).between(product.time, product.time + 1)
        )
        return image

    def _year(self, seen: Pass, year: int) -> _Year:
        products = [product for product in self._catalogue.year(seen, year) if product.listed(self._kind)]
        return _Year(products, self._image)

    def _image(self, product: Product, series: Series) -> ImageAsset:
        return _ProductImage(self.id, self._kind, product, series, self._pixels, self._delivered)


def _shifted(read: Read, offset: int) -> Read:
    """A reader of values that are higher by an offset."""

    def shifted(row0: int, column0: int, height: int, width: int) -> Masked:
        values, valid = read(row0, column0, height, width)
        return (values.astype(np.int64) + offset).astype(values.dtype), valid

    return shifted if offset else read


def _masked(row0: int, column0: int, height: int, width: int) -> Masked:
    """Reads a window in which no pixel is valid."""
    return np.zeros((height, width), dtype=np.uint16), np.zeros((height, width), dtype=np.bool_)


def _bands(kind: Kind, product: Product, series: Series, pixels: Pixels, offset: int) -> tuple[BandAsset, ...]:
    tile = product.seen.tile
    scene = OpticalScene(
        level="L2A" if kind == "L2A" else "L1C",
        key=product.key,
        datatake=product.datatake,
        month=product.month,
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
            reader = _masked
        made.append(BandAsset(name, "uint8" if name in _BYTES else "uint16", grid, reader))
    return tuple(made)


def _properties(kind: Kind, product: Product) -> dict[str, Any]:
    tile = product.seen.tile
    common = {"system:index": product.name, "system:time_start": product.time}
    if kind == "score":
        return {**common, "MGRS_TILE": tile.name}
    if kind == "labels":
        return {**common, "dynamicworld_algorithm_version": "3.5.0"}
    return {
        **common,
        **metadata.published(
            index=product.name,
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
