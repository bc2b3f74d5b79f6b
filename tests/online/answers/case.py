"""One question about an algorithm with its answer, and what the questions are asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ee

CRS = "EPSG:32633"
LEFT, TOP, SIDE = 500_000, 5_500_000, 10
"""A pixel grid in metres: pixels of ``SIDE`` whose first corner is on the central meridian."""
AFFINE = [SIDE, 0, LEFT, 0, -SIDE, TOP]
COLUMN, ROW = 14, 11
"""The pixel at which images are read; ``bumpy`` is not 0 there, nor what a statistic or a coarser pixel makes of it."""


@dataclass(frozen=True)
class Case:
    """An algorithm, an expression that uses it and what it is worth, within a relative tolerance."""

    algorithm: str
    ask: Callable[[], Any]
    expected: Any
    relative: float = 1e-6


def do(name: str, *values: Any, **named: Any) -> Any:
    """An algorithm's result for arguments by position or by name."""
    return ee.ApiFunction.call_(name, *values, **named)


def metres(x: float, y: float) -> list[float]:
    """A place so many pixels right of and below the grid's corner."""
    return [LEFT + SIDE * x, TOP - SIDE * y]


def point(x: float = COLUMN + 0.5, y: float = ROW + 0.5) -> ee.Geometry:
    """A place on the grid, by default the middle of the pixel that is read."""
    place: ee.Geometry = ee.Geometry.Point(metres(x, y), CRS)
    return place


def box(left: float, top: float, right: float, bottom: float) -> ee.Geometry:
    """A rectangle along the grid, in pixels."""
    (west, south), (east, north) = metres(left, bottom), metres(right, top)
    rectangle: ee.Geometry = ee.Geometry.Rectangle([west, south, east, north], CRS, False)
    return rectangle


def at(image: Any) -> Any:
    """The bands of an image at the pixel that is read."""
    return ee.Image(image).reduceRegion(ee.Reducer.first(), point(), crs=CRS, crsTransform=AFFINE)


def value_of(image: Any) -> Any:
    """The value of an image's only band at the pixel that is read."""
    return ee.Dictionary(at(image)).values().get(0)


def bumpy(x: float, y: float) -> float:
    """A number for every pixel that no two neighbours share."""
    return (17 * x * x + 31 * x * y + 5 * y * y * y) % 101


def bumps() -> ee.Image:
    """``bumpy`` on the grid's own pixels."""
    grid = ee.Projection(CRS, AFFINE)
    xy = ee.Image.pixelCoordinates(grid).floor()
    x, y = xy.select("x"), xy.select("y")
    number = x.multiply(x).multiply(17).add(x.multiply(y).multiply(31)).add(y.multiply(y).multiply(y).multiply(5))
    bumpy_image: ee.Image = number.mod(101).rename("r").reproject(grid)
    return bumpy_image


def around(reach: int) -> list[list[float]]:
    """``bumpy`` around the pixel that is read, row by row."""
    steps = range(-reach, reach + 1)
    return [[bumpy(COLUMN + i, ROW + j) for i in steps] for j in steps]
