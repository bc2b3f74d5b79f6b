"""Dividing the planet's boxes: seeds far from each other, and the outline of every part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine
from shapely.geometry import MultiPolygon, shape
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.world.planet import BOX


def spread(points: NDArray[np.float64], count: int, first: int) -> NDArray[np.int64]:
    """Indices of ``count`` points far from each other, greedily from ``first``."""
    chosen = [first]
    distance = np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.sum((points - points[chosen[-1]]) ** 2, axis=1))
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen)


def outlines(parts: NDArray[np.int16]) -> list[tuple[int, BaseGeometry]]:
    """The number and the valid (multi)polygon of boxes, in degrees, of every part from 0 that occurs, by number."""
    transform = Affine(BOX, 0.0, -180.0, 0.0, BOX, -90.0)
    found: dict[int, list[BaseGeometry]] = {}
    for geometry, value in shapes(parts.astype(np.int16), mask=parts >= 0, connectivity=4, transform=transform):
        found.setdefault(int(value), []).append(shape(geometry))
    return [
        (number, polygons[0] if len(polygons) == 1 else MultiPolygon(polygons))
        for number, polygons in sorted(found.items())
    ]
