"""Images of where pixels are, of how large they are, and of nothing but chance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator import geojson
from mmearth_data.emulator.bands import Band, Evaluate, Pixels
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid, inverse, known_crs
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image, Projection

SEMI_MAJOR, ECCENTRICITY_SQUARED = 6_378_137.0, 6.69437999014e-3
"""WGS 84."""


def _full(values: NDArray[Any]) -> Pixels:
    return Pixels(values, np.ones(values.shape, dtype=np.bool_))


def _coordinate(axis: int, crs: str) -> Evaluate:
    return lambda grid, frames: _full(frames.projected(grid, crs)[axis])


@algorithm("Image.pixelLonLat")
def lon_lat() -> Image:
    """Longitude and latitude of pixel centres, in degrees."""
    names = ("longitude", "latitude")
    return Image(tuple(Band(name, "float64", None, _coordinate(k, "EPSG:4326")) for k, name in enumerate(names)))


@algorithm("Image.pixelCoordinates")
def pixel_coordinates(projection: Projection) -> Image:
    """Column and row of pixel centres in a projection's grid."""
    code = geojson.crs_named(projection.crs)
    a, b, c, d, e, f = inverse(projection.transform)

    def band(name: str, p: float, q: float, r: float) -> Band:
        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            x, y = frames.projected(grid, code)
            return _full(p * x + q * y + r)

        return Band(name, "float64", None, pixels)

    return Image((band("x", a, b, c), band("y", d, e, f)))


@algorithm("Image.pixelArea")
def pixel_area() -> Image:
    """The area of pixels in m², on WGS 84."""
    return Image((Band("area", "float64", None, _areas),))


def _areas(grid: PixelGrid, frames: Frames) -> Pixels:
    a, b, _, d, e, _ = grid.transform
    own = abs(a * e - b * d)
    if known_crs(grid.crs).is_geographic:
        _, lat = frames.projected(grid, "EPSG:4326")
        return _full(own * _square_degree(lat))
    # The affine of degrees per unit at each centre, by differences over a hundredth of a pixel.
    step = 0.01
    shifted = [
        PixelGrid(grid.crs, (a, b, grid.transform[2] + u, d, e, grid.transform[5] + v), grid.height, grid.width)
        for u, v in ((step * a, step * d), (step * b, step * e))
    ]
    lon, lat = frames.projected(grid, "EPSG:4326")
    (lon1, lat1), (lon2, lat2) = (frames.projected(other, "EPSG:4326") for other in shifted)
    degrees = np.abs((lon1 - lon) * (lat2 - lat) - (lat1 - lat) * (lon2 - lon)) / step**2
    return _full(degrees * _square_degree(lat))


def _square_degree(lat: NDArray[Any]) -> NDArray[Any]:
    """m² of a square degree at a latitude."""
    sine, cosine = np.sin(np.radians(lat)), np.cos(np.radians(lat))
    root = 1 - ECCENTRICITY_SQUARED * sine**2
    return np.asarray(SEMI_MAJOR**2 * (1 - ECCENTRICITY_SQUARED) * cosine / root**2 * (np.pi / 180) ** 2)


@algorithm("Image.random")
def random(seed: int, distribution: str) -> Image:
    """A number in [0, 1) for every pixel, or a normal one, that depends on the seed and on where its centre is."""
    if distribution not in ("uniform", "normal"):
        raise ServiceError(f"Image.random: unknown distribution '{distribution}'; use uniform or normal.")

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        lon, lat = frames.projected(grid, "EPSG:4326")
        first = _scattered(lon, lat, 2 * seed)
        if distribution == "uniform":
            return _full(first)
        second = _scattered(lon, lat, 2 * seed + 1)
        return _full(np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second))

    return Image((Band("random", "float64", None, pixels),))


def _scattered(lon: NDArray[Any], lat: NDArray[Any], seed: int) -> NDArray[Any]:
    """Hashes of places to 10⁻⁷ degrees, as numbers in [0, 1)."""
    mixed = np.full(lon.shape, seed % 2**64, dtype=np.uint64)
    for part in (np.round(lon * 1e7), np.round(lat * 1e7)):
        mixed ^= part.astype(np.int64).view(np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) / 2**53)
