"""What a renderer needs to know of a scene: the geometry and the facts that the catalogue settled, no pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world.catalogue.orbits import HalfPlane

Masked = tuple[NDArray[np.generic], NDArray[np.bool_]]
Read = Callable[[int, int, int, int], Masked]


@dataclass(frozen=True)
class OpticalScene:
    """A Sentinel-2 product: ``datatake`` keys what its pass shares (weather), ``key`` what is the product's own.

    ``month`` counts from 0 at the year's start. Sun angles are in degrees, azimuth clockwise from north. Pixels
    outside ``edges`` were not imaged.
    """

    level: Literal["L1C", "L2A"]
    key: int
    datatake: int
    month: float
    year: int
    sun_zenith: float
    sun_azimuth: float
    edges: tuple[HalfPlane, ...]


@dataclass(frozen=True, eq=False)
class Series:
    """The scenes of a place that composites read together: (datatake, month) of each."""

    scenes: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class RadarScene:
    """A Sentinel-1 GRD product. ``near`` is the swath's near edge, ``looks_azimuth`` where it looks, in degrees."""

    key: int
    month: float
    year: int
    ascending: bool
    near: HalfPlane
    looks_azimuth: float
    edges: tuple[HalfPlane, ...]


class Pixels(Protocol):
    """Renders every product of the archive; each method gives a reader of windows of one band's native grid."""

    def optical(self, scene: OpticalScene, band: str, grid: NativeGrid) -> Read:
        """A Sentinel-2 band (B1 … B12, QA60, SCL, MSK_CLDPRB) or a Cloud Score+ band (cs, cs_cdf)."""
        ...

    def labels(self, scene: OpticalScene, series: Series, grid: NativeGrid) -> Read:
        """Dynamic World's label of a Sentinel-2 product; ``series`` has it and the others of its year."""
        ...

    def radar(self, scene: RadarScene, band: str, grid: NativeGrid) -> Read:
        """A polarisation of a Sentinel-1 product in dB."""
        ...

    def fixed(self, product: str, grid: NativeGrid) -> Read:
        """A map without time: worldcover, worldcover_2021, canopy, canopy_sd or elevation."""
        ...

    def water_history(self, band: str, grid: NativeGrid) -> Read:
        """A layer of the Global Surface Water maps."""
        ...

    def built_up(self, band: str, year: int, grid: NativeGrid) -> Read:
        """A band of the built-up surface of an epoch, in square metres of each cell."""
        ...

    def monthly(self, variable: str, year: int, month: int, grid: NativeGrid) -> Read:
        """An ERA5-Land variable of a month (1–12)."""
        ...


class Sky(Protocol):
    """What the catalogue must know of the world itself."""

    def imaged(self, west: float, south: float, east: float, north: float) -> bool:
        """Whether satellites acquire this area, which they do where it has land."""
        ...

    def cloud(
        self,
        datatakes: NDArray[np.uint32],
        months: NDArray[np.float64],
        lon: NDArray[np.float64],
        lat: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Cloud fraction of each datatake at each point, shape (datatakes, points)."""
        ...

    def radar_passes(self, lon: float, lat: float) -> tuple[str, ...]:
        """The directions (ASCENDING, DESCENDING) from which Sentinel-1 observes the region of a point."""
        ...

    def cold(self, lon: float, lat: float) -> bool:
        """Whether a place is polar ice, where radar is acquired in HH and HV."""
        ...
