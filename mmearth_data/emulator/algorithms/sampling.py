"""Pixels as features: those in regions, and those of a whole collection at a place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from mmearth_data.emulator.algorithms.regions import lattice_of
from mmearth_data.emulator.collections import EVERYTHING, Collection, Element, Listed, Query, index_of, single
from mmearth_data.emulator.coverage import cover
from mmearth_data.emulator.edges import DEGREES
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid, transformer
from mmearth_data.emulator.limits import bounded
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import Feature, Geometry, Image, Projection, time_of

MAX_SAMPLES = 100_000


def _centres(grid: PixelGrid, rows: Any, columns: Any) -> list[list[float]]:
    """Longitude and latitude of pixel centres."""
    a, b, c, d, e, f = grid.transform
    x, y = a * (columns + 0.5) + b * (rows + 0.5) + c, d * (columns + 0.5) + e * (rows + 0.5) + f
    if grid.crs != DEGREES:
        x, y = transformer(grid.crs, DEGREES).transform(x, y)
    places: list[list[float]] = np.column_stack([x, y]).tolist()
    return places


def _samples(
    image: Image, region: Geometry, lattice: Projection, frames: Frames, drop_nulls: bool, where: str
) -> list[tuple[dict[str, Any], list[float]]]:
    """The band values and the place of every pixel whose centre lies in a region."""
    part = cover(region, lattice, False, math.inf, where)
    rows, columns = np.nonzero(part.weights > 0)
    if len(rows) > MAX_SAMPLES:
        raise ServiceError(f"{where}: {len(rows)} pixels; the emulator samples at most {MAX_SAMPLES} per region.")
    values: dict[str, list[Any]] = {}
    whole = np.ones(len(rows), dtype=np.bool_)
    for band in image.bands:
        pixels, valid = band.pixels(part.grid, frames)
        kept = valid[rows, columns]
        whole &= kept
        own = pixels[rows, columns].tolist()
        values[band.name] = [value if known else None for value, known in zip(own, kept.tolist(), strict=True)]
    places = _centres(part.grid, rows, columns)
    return [
        ({name: column[k] for name, column in values.items()}, places[k])
        for k in range(len(rows))
        if whole[k] or not drop_nulls
    ]


@dataclass(frozen=True)
class _Sampled:
    """A feature for every pixel in the features of a collection."""

    image: Image
    parent: Collection
    properties: tuple[str, ...] | None
    lattice: Projection
    geometries: bool
    frames: Frames

    def elements(self, query: Query) -> Iterator[Element]:
        """The samples, region by region, row by row."""
        for element in self.parent.elements(EVERYTHING):
            feature = single(element, "Image.sampleRegions")
            if not isinstance(feature, Feature) or feature.geometry is None:
                raise ServiceError("Image.sampleRegions: every element must be a feature with a geometry.")
            own = {name: value for name, value in feature.properties.items() if not name.startswith("system:")}
            if self.properties is not None:
                own = {name: own.get(name) for name in self.properties}
            found = _samples(self.image, feature.geometry, self.lattice, self.frames, True, "Image.sampleRegions")
            for number, (values, place) in enumerate(found):
                geometry = Geometry(shapely.Point(place)) if self.geometries else None
                yield Feature(geometry, {**own, **values, "system:index": f"{index_of(element)}_{number}"})


@algorithm("Image.sampleRegions")
def sample_regions(
    context: Context,
    image: Image,
    collection: Collection,
    properties: list[str] | None,
    scale: float | None,
    projection: Projection | None,
    tileScale: float,
    geometries: bool,
) -> Collection:
    """A feature for every pixel whose centre lies in a region: the bands' values with the region's properties."""
    lattice = lattice_of(image, projection, None, scale, "Image.sampleRegions")
    names = None if properties is None else tuple(properties)
    return _Sampled(image, collection, names, lattice, geometries, context.frames)


@algorithm("Image.sample")
def sample(
    context: Context,
    image: Image,
    region: Geometry | None,
    scale: float | None,
    projection: Projection | None,
    factor: float | None,
    numPixels: int | None,
    seed: int,
    dropNulls: bool,
    tileScale: float,
    geometries: bool,
) -> Collection:
    """A feature for every pixel of a region, or for so many chosen by chance, or for that part of them."""
    where = "Image.sample"
    if region is None and image.footprint is None:
        raise ServiceError(f"{where}: the image has no edge; give a region.")
    if factor is not None and numPixels is not None:
        raise ServiceError(f"{where}: 'factor' and 'numPixels' exclude each other.")
    if (factor is not None and not 0 < factor <= 1) or (numPixels is not None and numPixels < 1):
        raise ServiceError(f"{where}: 'factor' must be between 0 and 1, 'numPixels' positive.")
    lattice = lattice_of(image, projection, None, scale, where)
    found = _samples(image, region or Geometry(image.footprint), lattice, context.frames, dropNulls, where)
    draws = np.random.default_rng(abs(seed))
    if factor is not None:
        found = [item for item, draw in zip(found, draws.random(len(found)), strict=True) if draw < factor]
    elif numPixels is not None and numPixels < len(found):
        found = [found[k] for k in sorted(draws.choice(len(found), numPixels, replace=False).tolist())]
    return Listed([Feature(Geometry(shapely.Point(p)) if geometries else None, values) for values, p in found])


@algorithm("ImageCollection.getRegion")
def get_region(
    context: Context,
    collection: Collection,
    geometry: Geometry,
    scale: float | None,
    crs: Projection,
    crsTransform: list[float] | None,
) -> list[list[Any]]:
    """A table of all pixels of all images in a region: id, longitude, latitude, time and the first image's bands."""
    where = "ImageCollection.getRegion"
    images = [element for element in bounded(collection.elements(EVERYTHING)) if isinstance(element, Image)]
    names = [band.name for band in images[0].bands] if images else []
    table: list[list[Any]] = [["id", "longitude", "latitude", "time", *names]]
    for image in images:
        lattice = lattice_of(image, crs, crsTransform, scale, where)
        for values, (lon, lat) in _samples(image, geometry, lattice, context.frames, False, where):
            table.append([index_of(image), lon, lat, time_of(image), *(values.get(name) for name in names)])
            if len(table) > MAX_SAMPLES:
                raise ServiceError(f"{where}: Too many values: more than {MAX_SAMPLES} rows.")
    return table
