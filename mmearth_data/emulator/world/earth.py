"""Readers of the procedural Earth's products: windows of any grid, and which of their pixels are valid."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world import blocks, built_up, charts, climate, labels, optics, radar, water_history
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.catalogue.orbits import HalfPlane
from mmearth_data.emulator.world.planet import between
from mmearth_data.emulator.world.scenes import Masked, OpticalScene, RadarScene, Read, Series
from mmearth_data.emulator.world.setting import World

_KELVIN = 273.15
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _depth(edge: HalfPlane, grid: NativeGrid, row0: int, column0: int, height: int, width: int) -> NDArray[np.float64]:
    """Metres from an edge at the pixel centres of a window."""
    a, _, c, _, e, f = grid.transform
    x = c + a * (np.arange(column0, column0 + width, dtype=np.float64) + 0.5)
    y = f + e * (np.arange(row0, row0 + height, dtype=np.float64) + 0.5)
    return edge.depth(x[None, :], y[:, None])


@lru_cache(maxsize=64)
def _inside(
    edges: tuple[HalfPlane, ...], grid: NativeGrid, row0: int, column0: int, height: int, width: int
) -> NDArray[np.bool_]:
    """Which pixel centres of a window lie within every edge."""
    mask = np.ones((height, width), dtype=np.bool_)
    for edge in edges:
        mask &= _depth(edge, grid, row0, column0, height, width) >= 0.0
    mask.flags.writeable = False
    return mask


_MAPS: dict[str, tuple[Callable[[World, Block], NDArray[np.generic]], int]] = {
    "worldcover": (charts.worldcover, 0),
    "worldcover_2021": (charts.worldcover_2021, 0),
    "canopy": (charts.canopy, charts.NO_CANOPY),
    "canopy_sd": (charts.canopy_sd, charts.NO_CANOPY),
    "elevation": (charts.elevation, charts.VOID),
}
"""Renderer of each map and the value that means none."""


class EarthPixels:
    """Renders every product of the archive from one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def optical(self, scene: OpticalScene, band: str, grid: NativeGrid) -> Read:
        """A Sentinel-2 or Cloud Score+ band; masked outside the swath."""
        world = self._world
        level, mask_renderer = optics.MASKS.get(band, (round(grid.transform[0] / 10.0), None))

        def render(block: Block) -> NDArray[np.generic]:
            if mask_renderer is not None:
                return mask_renderer(world, block, scene)
            return optics.reflectance(world, block, scene, band, level)

        def read(row0: int, column0: int, height: int, width: int) -> Masked:
            values = blocks.window(grid, level, row0, column0, height, width, render)
            return values, _inside(scene.edges, grid, row0, column0, height, width)

        return read

    def labels(self, scene: OpticalScene, series: Series, grid: NativeGrid) -> Read:
        """Dynamic World's label; masked outside the swath and under clouds."""

        def render(block: Block) -> NDArray[np.generic]:
            return labels.labels(self._world, block, scene, series)

        def read(row0: int, column0: int, height: int, width: int) -> Masked:
            values = blocks.window(grid, 1, row0, column0, height, width, render)
            clear = values != labels.CLOUDED
            if scene.edges:
                clear &= _inside(scene.edges, grid, row0, column0, height, width)
            return values, clear

        return read

    def radar(self, scene: RadarScene, band: str, grid: NativeGrid) -> Read:
        """A polarisation in dB; masked outside the slice."""

        def read(row0: int, column0: int, height: int, width: int) -> Masked:
            window = row0, column0, height, width
            middle = blocks.window(
                grid, 1, *window, lambda block: radar.backscatter(self._world, block, scene, band)
            ).astype(np.float64)
            effect = radar.range_effect(_depth(scene.near, grid, *window))
            return middle + effect, _inside(scene.edges, grid, *window)

        return read

    def fixed(self, product: str, grid: NativeGrid) -> Read:
        """A map without time; masked where it has no value."""
        renderer, missing = _MAPS[product]

        def read(row0: int, column0: int, height: int, width: int) -> Masked:
            values = blocks.window(grid, 1, row0, column0, height, width, lambda block: renderer(self._world, block))
            return values, values != missing

        return read

    def water_history(self, band: str, grid: NativeGrid) -> Read:
        """A layer of the Global Surface Water maps; masked where water was never seen."""
        return water_history.reader(self._world, band, grid)

    def built_up(self, band: str, year: int, grid: NativeGrid) -> Read:
        """A band of the built-up surface of an epoch; masked at sea."""
        return built_up.reader(self._world, band, year, grid)

    def monthly(self, variable: str, year: int, month: int, grid: NativeGrid) -> Read:
        """An ERA5-Land variable of a month; masked over the sea."""
        planet = self._world.planet

        def read(row0: int, column0: int, height: int, width: int) -> Masked:
            a, _, c, _, e, f = grid.transform
            lon, lat = np.meshgrid(c + a * (column0 + 0.5 + np.arange(width)), f + e * (row0 + 0.5 + np.arange(height)))
            lon, lat = lon.ravel(), np.clip(lat.ravel(), -90.0, 90.0)
            warmer, wetter = climate.anomaly(planet, lon, lat, year, month)
            if variable == "total_precipitation_sum":
                values = climate.rain_in(planet, lon, lat, month - 0.5) * wetter * _MONTH_DAYS[month - 1] / 30.4
            else:
                values = climate.temperature_in(planet, lon, lat, month - 0.5) + warmer + _KELVIN
                # Extremes of single days around the month's mean: wider in dry and continental places.
                reach = 5.0 + 0.35 * between(planet.swing, lon, lat) + 3.0 * np.exp(-between(planet.rain, lon, lat))
                if variable == "temperature_2m_min":
                    values = values - 1.25 * reach
                elif variable == "temperature_2m_max":
                    values = values + 1.15 * reach
            land = between(planet.shore, lon, lat) > -5.0
            return values.reshape(height, width), land.reshape(height, width)

        return read
