"""Terrain: slope of elevation, on the elevation's own pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.bands import Band, Pixels, at_native, mosaic
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, Window, known_crs
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image

SEMI_MAJOR, ECCENTRICITY_SQUARED = 6_378_137.0, 6.69437999014e-3
"""WGS 84, from which the metres of a degree follow."""


@algorithm("Terrain.slope")
def slope(input: Image) -> Image:
    """Slope in degrees of an elevation image in metres.

    The gradient is that of the four neighbours above, below, left and right, as the algorithm's description says;
    pixels that lack one of them are masked. It is taken on native pixels, whose spacing in degrees is turned into
    metres on WGS 84, and only then resampled.
    """
    if len(input.bands) != 1:
        raise ServiceError(f"Terrain.slope: the elevation image must have one band; it has {len(input.bands)}.")
    return replace(input, bands=(_slope(input.bands[0]),))


def _slope(elevation: Band) -> Band:
    if elevation.tiles:
        return mosaic([_slope(tile) for tile in elevation.tiles]).called("slope")
    grid = elevation.grid
    if grid is None:
        raise ServiceError("Terrain.slope: the elevation has no native projection (a constant or a composite).")
    if grid.transform[1] or grid.transform[3]:
        raise ServiceError("Terrain.slope: the emulator does not implement rotated elevation grids.")

    def native(window: Window, frames: Frames) -> Pixels:
        values, valid = elevation.pixels(window.padded(1).of(grid), frames)
        z = values.astype(np.float64)
        across, down = _spacing(grid, window)
        dx = (z[1:-1, 2:] - z[1:-1, :-2]) / (2 * across)
        dy = (z[2:, 1:-1] - z[:-2, 1:-1]) / (2 * down)
        known = valid[1:-1, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2] & valid[2:, 1:-1] & valid[:-2, 1:-1]
        return Pixels(np.degrees(np.arctan(np.hypot(dx, dy))), known)

    return Band("slope", "float64", grid, at_native(native, grid, "float64", elevation.extent), elevation.extent)


def _spacing(grid: NativeGrid, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres from pixel to pixel along rows and columns, one value per row, as columns of an array."""
    a, _, _, _, e, f = grid.transform
    crs = known_crs(grid.crs)
    if not crs.is_geographic:
        metres = crs.axis_info[0].unit_conversion_factor
        return np.array([[abs(a) * metres]]), np.array([[abs(e) * metres]])
    latitude = np.radians(e * (np.arange(window.row, window.row + window.height) + 0.5) + f)[:, None]
    root = np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    east = SEMI_MAJOR * np.cos(latitude) / root
    north = SEMI_MAJOR * (1 - ECCENTRICITY_SQUARED) / root**3
    return np.radians(abs(a)) * east, np.radians(abs(e)) * north
