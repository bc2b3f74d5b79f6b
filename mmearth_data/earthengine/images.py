"""One image builder per pixel modality: how each band is read, resampled, scaled and told apart from no-data.

A builder names the bands that an acquisition can have and returns an image with exactly those bands, in that order.
``resample`` takes effect where Earth Engine later reads the image on the cell's grid, so rounding and casting apply to
resampled values. What gives pixels their no-data value is ``unmask`` with ``sameFootprint=False``: by default pixels
beyond a footprint stay masked, and masked pixels arrive as 0.
"""

# mypy: disable-error-code="no-any-return"
# (the client builds its objects through a metaclass, which mypy sees as Any)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ee

from mmearth_data.modalities import MODALITIES
from mmearth_data.source import Acquisition

NATIVE_10M_BANDS = ("B2", "B3", "B4", "B8")
"""Sentinel-2 bands on the cell's own pixels: copied. The others (20 and 60 m) are interpolated."""
NOTHING_THERE = 254
"""Sent, for the collections below, where no image of the collection lies over the cell at all.

The registry's no-data value is sent where images are there but masked; the two are different facts. Tiles never keep
this value.
"""
TOLD_APART = frozenset({"cloud_score", "dynamic_world"})
"""Modalities whose pixels may be ``NOTHING_THERE``."""
BUILT_YEAR = 2020
"""Epoch of GHSL that is fetched: the last one that was observed; later ones are extrapolated."""
_DAY_MS = 86_400_000
_CLOUD_SCORE_FACTOR, _DECIBEL_FACTOR, _SLOPE_FACTOR = 100, 100, 100


@dataclass(frozen=True)
class Cell:
    """A cell of the tile grid as Earth Engine needs it: CRS, upper-left corner in metres, width in pixels."""

    crs: str
    x0: int
    y0: int
    pixels: int

    @property
    def region(self) -> ee.Geometry:
        """The cell's footprint, planar in its own CRS."""
        size = self.pixels * 10
        corners = [self.x0, self.y0 - size, self.x0 + size, self.y0]
        return ee.Geometry.Rectangle(corners, proj=self.crs, geodesic=False)


Builder = Callable[[Acquisition, Cell, tuple[str, ...]], ee.Image]


def _nodata(name: str) -> int:
    return int(MODALITIES[name].nodata)


def _sentinel2(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """Reflectance × 10⁴; a measured 0 becomes 1 (10⁻⁴), since 0 is no-data."""
    product = ee.Image(acquisition.sentinel2_id)
    copied = [band for band in bands if band in NATIVE_10M_BANDS]
    interpolated = [band for band in bands if band not in NATIVE_10M_BANDS]
    image = product.select(copied).addBands(product.select(interpolated).resample("bilinear"))
    return image.select(list(bands)).round().max(1).toUint16().unmask(_nodata("sentinel2"), False)


def _cloudmask(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    flags = ee.Image(acquisition.sentinel2_id).select(list(bands)).toUint16()
    return flags.unmask(_nodata("sentinel2_cloudmask"), False)


def _level2_mask(name: str) -> Builder:
    def build(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
        return ee.Image(acquisition.sentinel2_id).select(list(bands)).toUint8().unmask(_nodata(name), False)

    return build


def _cloud_score(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """The twin has the product's system:index, at both levels; dates and bounds only narrow the search."""
    twins = (
        ee.ImageCollection(MODALITIES["cloud_score"].assets[0])
        .filterDate(acquisition.time - _DAY_MS, acquisition.time + _DAY_MS)
        .filterBounds(cell.region)
        .filter(ee.Filter.eq("system:index", acquisition.sentinel2_id.rpartition("/")[2]))
        .select(list(bands))
        .max()
    )
    scaled = _or_else(twins, NOTHING_THERE / _CLOUD_SCORE_FACTOR, bands).multiply(_CLOUD_SCORE_FACTOR)
    return scaled.round().toUint8().unmask(_nodata("cloud_score"), False)


def _sentinel1(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """Backscatter × 100, interpolated in dB as MMEarth does."""
    passes = {"asc": acquisition.ascending, "desc": acquisition.descending}
    parts = []
    for prefix, radar in passes.items():
        names = [band for band in bands if band.startswith(f"{prefix}_")]
        if radar is not None and names:
            image = ee.Image(radar.image_id).select([name.partition("_")[2] for name in names], names)
            parts.append(image.resample("bilinear"))
    scaled = _stacked(parts).multiply(_DECIBEL_FACTOR).round().toInt16()
    return scaled.unmask(_nodata("sentinel1"), False)


def _aster(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """Elevation in m; slope × 100 from the elevation's own grid, then interpolated."""
    elevation = ee.Image(MODALITIES["aster"].assets[0]).select("b1")
    slope = ee.Terrain.slope(elevation).resample("bilinear").multiply(_SLOPE_FACTOR)
    image = elevation.resample("bilinear").addBands(slope).rename(list(bands))
    return image.round().toInt16().unmask(_nodata("aster"), False)


def _dynamic_world(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """The mode of the calendar year's labels, plus 1: 0 is no-data."""
    labels = (
        ee.ImageCollection(MODALITIES["dynamic_world"].assets[0])
        .filterDate(f"{acquisition.year}-01-01", f"{acquisition.year + 1}-01-01")
        .filterBounds(cell.region)
        .select(["label"], list(bands))
        .mode()
    )
    return _or_else(labels, NOTHING_THERE - 1, bands).add(1).toUint8().unmask(_nodata("dynamic_world"), False)


def _canopy_height(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    image = _stacked([ee.Image(asset) for asset in MODALITIES["canopy_height_eth"].assets]).rename(list(bands))
    return image.resample("bilinear").round().toUint8().unmask(_nodata("canopy_height_eth"), False)


def _worldcover(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    image = ee.ImageCollection(MODALITIES["esa_worldcover"].assets[0]).first().select(["Map"], list(bands))
    return image.toUint8().unmask(_nodata("esa_worldcover"), False)


def _surface_water(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """Within its footprint the asset masks where water was never detected, a measured 0; beyond it nothing was seen."""
    image = ee.Image(MODALITIES["jrc_surface_water"].assets[0]).select(list(bands)).unmask(0, sameFootprint=True)
    return image.toUint8().unmask(_nodata("jrc_surface_water"), False)


def _built_surface(acquisition: Acquisition, cell: Cell, bands: tuple[str, ...]) -> ee.Image:
    """Square metres of each 100 m cell, at every pixel of it: an interpolated total would be that of no cell."""
    image = ee.Image(f"{MODALITIES['ghsl_built_surface'].assets[0]}/{BUILT_YEAR}").select(list(bands))
    return image.round().toUint16().unmask(_nodata("ghsl_built_surface"), False)


def _or_else(reduced: ee.Image, value: float, bands: tuple[str, ...]) -> ee.Image:
    """``reduced``, or ``value`` in every pixel where the reduced collection was empty and the image has no band."""
    return ee.Image.constant(value).rename(list(bands)).addBands(reduced, overwrite=True)


def _stacked(images: list[ee.Image]) -> ee.Image:
    stack = images[0]
    for image in images[1:]:
        stack = stack.addBands(image)
    return stack


BUILDERS: dict[str, Builder] = {
    "sentinel2": _sentinel2,
    "sentinel2_cloudmask": _cloudmask,
    "sentinel2_cloudprod": _level2_mask("sentinel2_cloudprod"),
    "sentinel2_scl": _level2_mask("sentinel2_scl"),
    "cloud_score": _cloud_score,
    "sentinel1": _sentinel1,
    "aster": _aster,
    "dynamic_world": _dynamic_world,
    "canopy_height_eth": _canopy_height,
    "esa_worldcover": _worldcover,
    "jrc_surface_water": _surface_water,
    "ghsl_built_surface": _built_surface,
}
"""The builder of every pixel modality, by name."""


def tile_image(acquisition: Acquisition, cell: Cell, bands: dict[str, tuple[str, ...]]) -> ee.Image:
    """One image of the given bands of each pixel modality, in order; modalities without a band are left out."""
    return _stacked([BUILDERS[name](acquisition, cell, wanted) for name, wanted in bands.items() if wanted])
