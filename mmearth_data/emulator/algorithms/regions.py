"""Statistics of pixels in regions; regions are points here, so a region is the pixel that contains it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmearth_data.emulator.algorithms.geometries import metres_per_unit
from mmearth_data.emulator.collections import Collection, Element, Query, single
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid, Transform, inverse, transformer
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import DEGREES, Feature, Geometry, Image, Projection, Reducer

REDUCERS = ("first", "mean", "min", "max", "sum")
"""Of one pixel they are all its value."""


def _register(name: str) -> None:
    @algorithm(f"Reducer.{name}")
    def handler() -> Reducer:
        return Reducer(name)


for _name in REDUCERS:
    _register(_name)


def _lattice(
    image: Image, crs: Projection | None, crs_transform: list[float] | None, scale: float | None, where: str
) -> Projection:
    """The pixel grid to reduce on: as asked, by default that of the image's first band."""
    if scale is not None and crs_transform is not None:
        raise ServiceError(f"{where}: 'scale' and 'crsTransform' exclude each other.")
    native = image.bands[0].grid if image.bands else None
    base = crs or (Projection(DEGREES) if native is None else Projection(native.crs, native.transform))
    if crs_transform is not None:
        if len(crs_transform) != 6:
            raise ServiceError(f"{where}: 'crsTransform' must have 6 numbers; got {len(crs_transform)}.")
        a, b, c, d, e, f = map(float, crs_transform)
        return Projection(base.crs, (a, b, c, d, e, f))
    if scale is not None:
        step = scale / metres_per_unit(base.crs)
        return Projection(base.crs, (step, 0.0, 0.0, 0.0, -step, 0.0))
    return base


def _pixel_at(geometry: Geometry | None, lattice: Projection, where: str) -> PixelGrid:
    """The one pixel of the lattice that contains a point."""
    if geometry is None or geometry.shape.geom_type != "Point":
        kind = "nothing" if geometry is None else geometry.shape.geom_type
        raise ServiceError(f"{where}: the emulator reduces over points only; the region is {kind}.")
    x, y = geometry.shape.x, geometry.shape.y
    if geometry.crs != lattice.crs:
        x, y = transformer(geometry.crs, lattice.crs).transform(x, y)
    a, b, c, d, e, f = lattice.transform
    g, h, i, j, k, m = inverse(lattice.transform)
    column, row = math.floor(g * x + h * y + i), math.floor(j * x + k * y + m)
    corner: Transform = (a, b, a * column + b * row + c, d, e, d * column + e * row + f)
    return PixelGrid(lattice.crs, corner, 1, 1)


def _values(image: Image, pixel: PixelGrid, frames: Frames) -> dict[str, Any]:
    """Each band's value, null where masked."""
    result: dict[str, Any] = {}
    for band in image.bands:
        values, valid = band.pixels(pixel, frames)
        value: np.generic = values[0, 0]
        result[band.name] = value.item() if valid[0, 0] else None
    return result


@algorithm("Image.reduceRegion")
def reduce_region(
    context: Context,
    image: Image,
    reducer: Reducer,
    geometry: Geometry | None,
    scale: float | None,
    crs: Projection | None,
    crsTransform: list[float] | None,
    bestEffort: bool,
    maxPixels: int,
    tileScale: float,
) -> dict[str, Any]:
    """The bands' values at a point, by band name."""
    lattice = _lattice(image, crs, crsTransform, scale, "Image.reduceRegion")
    return _values(image, _pixel_at(geometry, lattice, "Image.reduceRegion"), context.frames)


@algorithm("Image.reduceRegions")
def reduce_regions(
    context: Context,
    image: Image,
    collection: Collection,
    reducer: Reducer,
    scale: float | None,
    crs: Projection | None,
    crsTransform: list[float] | None,
    tileScale: float,
) -> Collection:
    """The features with the bands' values at them; one band's value is called what the reducer is."""
    lattice = _lattice(image, crs, crsTransform, scale, "Image.reduceRegions")
    return _Sampled(collection, image, reducer, lattice, context.frames)


@dataclass(frozen=True)
class _Sampled:
    """Features of a collection with an image's values at their points."""

    parent: Collection
    image: Image
    reducer: Reducer
    lattice: Projection
    frames: Frames

    def elements(self, query: Query) -> Any:
        """The parent's elements, sampled."""
        for element in self.parent.elements(query):
            yield self._sample(element)

    def _sample(self, element: Element) -> Feature:
        feature = single(element, "Image.reduceRegions")
        if not isinstance(feature, Feature):
            raise ServiceError("Image.reduceRegions: the collection holds an image; it must hold features.")
        pixel = _pixel_at(feature.geometry, self.lattice, "Image.reduceRegions")
        values = _values(self.image, pixel, self.frames)
        if len(values) == 1:
            values = {self.reducer.name: next(iter(values.values()))}
        return replace(feature, properties={**feature.properties, **values})
