"""Which pixels of a lattice a region takes, and how much of each.

Source: "Reducing an image region" of Earth Engine's guide. Weighted reducers take pixels of which at least 0.5 % lie
in the region, and weigh them by that part; unweighted ones take pixels whose centre lies in it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import PixelGrid, Transform, inverse
from mmearth_data.emulator.values import Geometry, Projection

MAX_GRID_PIXELS = 10_000_000
LEAST_PART = 0.005


class Cover(NamedTuple):
    """A grid of the lattice that holds the region, and the weight of each of its pixels."""

    grid: PixelGrid
    weights: NDArray[np.float64]


def cover(geometry: Geometry, lattice: Projection, weighted: bool, max_pixels: float, where: str) -> Cover:
    """The pixels of a lattice that a region takes; a 400 if its bounds hold more than ``max_pixels``."""
    pixel = _in_pixels(geometry, lattice)
    west, north, east, south = pixel.bounds if not pixel.is_empty else (0.0, 0.0, 0.0, 0.0)
    if not all(map(math.isfinite, (west, north, east, south))):
        raise ServiceError(f"{where}: the region is unbounded; give a geometry with an edge.")
    column, row = math.floor(west), math.floor(north)
    width, height = max(1, math.ceil(east) - column), max(1, math.ceil(south) - row)
    if pixel.geom_type == "Point":
        return Cover(_part(lattice, row, column, 1, 1), np.ones((1, 1)))
    if width * height > min(max_pixels, MAX_GRID_PIXELS):
        raise ServiceError(
            f"{where}: Too many pixels in the region. Found {width * height}, but maxPixels allows only "
            f"{min(max_pixels, MAX_GRID_PIXELS):.0f}."
        )
    shape = shapely.transform(pixel, lambda xy: xy - (column, row))
    weights = _weights(shape, height, width, weighted)
    return Cover(_part(lattice, row, column, height, width), weights)


def coarsened(lattice: Projection, factor: float) -> Projection:
    """The lattice with pixels larger by a factor."""
    a, b, c, d, e, f = lattice.transform
    return Projection(lattice.crs, (a * factor, b * factor, c, d * factor, e * factor, f))


def pixels_within(geometry: Geometry, lattice: Projection) -> float:
    """How many pixels the region's bounds hold."""
    pixel = _in_pixels(geometry, lattice)
    if pixel.is_empty:
        return 0
    west, north, east, south = pixel.bounds
    return float(max(1.0, east - west) * max(1.0, south - north))


def _in_pixels(geometry: Geometry, lattice: Projection) -> BaseGeometry:
    """The region in columns and rows of the lattice."""
    a, b, c, d, e, f = inverse(lattice.transform)
    shape = geometry.within(lattice.crs)
    return shapely.transform(shape, lambda xy: np.column_stack((xy @ (a, b) + c, xy @ (d, e) + f)))


def _part(lattice: Projection, row: int, column: int, height: int, width: int) -> PixelGrid:
    a, b, c, d, e, f = lattice.transform
    transform: Transform = (a, b, a * column + b * row + c, d, e, d * column + e * row + f)
    return PixelGrid(lattice.crs, transform, height, width)


def _weights(shape: BaseGeometry, height: int, width: int, weighted: bool) -> NDArray[np.float64]:
    """The part of each pixel inside the shape, which is in columns and rows; lines and points take what they touch."""
    if shape.is_empty:
        return np.zeros((height, width))
    flat = shapely.get_dimensions(shape) < 2
    if not weighted and not flat:
        rows, columns = np.mgrid[:height, :width] + 0.5
        shapely.prepare(shape)
        inside: NDArray[np.float64] = shapely.contains_xy(shape, columns, rows).astype(np.float64)
        return inside
    outline = shape if flat else shapely.boundary(shape)
    touched = rasterize([(outline, 1)], (height, width), transform=Affine.identity(), all_touched=True, dtype="uint8")
    weights = np.zeros((height, width))
    if not flat:
        weights[rasterize([(shape, 1)], (height, width), transform=Affine.identity(), dtype="uint8") == 1] = 1
    # The burnt outline misses pixels that it only grazes: its neighbours are measured too.
    edge = np.zeros((height + 2, width + 2), dtype=np.bool_)
    for down in range(3):
        for right in range(3):
            edge[down : down + height, right : right + width] |= touched == 1
    rows, columns = np.nonzero(edge[1:-1, 1:-1])
    boxes = shapely.box(columns, rows, columns + 1, rows + 1)
    shapely.prepare(shape)
    if flat:
        weights[rows, columns] = shapely.intersects(boxes, shape)
        return weights
    parts = shapely.area(shapely.intersection(boxes, shape))
    weights[rows, columns] = np.where(parts >= LEAST_PART, np.minimum(parts, 1.0), 0.0)
    return weights
