"""A world without detail: the whole catalogue over nothing but land, with constant pixels and no cloud.

For benchmarks: resolving and fetching work as on the procedural Earth, and pixels cost nothing to make.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world.scenes import Masked, OpticalScene, RadarScene, Read, Series

_OPTICAL = {"QA60": 0, "SCL": 4, "MSK_CLDPRB": 0, "B10": 15}
_SCORES = ("cs", "cs_cdf")
_REFLECTANCE = 1500
_BACKSCATTER = {"VV": -10.0, "VH": -17.0, "HH": -12.0, "HV": -20.0}
_FIXED: dict[str, tuple[int, str]] = {
    "worldcover": (10, "uint8"), "worldcover_2021": (10, "uint8"),
    "canopy": (18, "uint8"), "canopy_sd": (4, "uint8"), "elevation": (120, "int16"),
}  # fmt: skip
_MONTHLY = {
    "temperature_2m": 285.0, "temperature_2m_min": 275.0, "temperature_2m_max": 295.0, "total_precipitation_sum": 0.06,
}  # fmt: skip
_WATER: dict[str, tuple[int, str]] = {
    "occurrence": (100, "uint8"), "change_abs": (0, "int8"), "change_norm": (0, "int8"), "seasonality": (12, "uint8"),
    "recurrence": (100, "uint8"), "transition": (1, "uint8"), "max_extent": (1, "uint8"),
}  # fmt: skip
_BUILT = {"built_surface": 1200, "built_surface_nres": 300}
_BYTES = ("SCL", "MSK_CLDPRB")


def _constant(value: float, dtype: str) -> Read:
    """A reader of one value, valid everywhere, that allocates nothing."""
    one, valid = np.asarray(value, dtype=dtype), np.asarray(True)

    def read(row0: int, column0: int, height: int, width: int) -> Masked:
        return np.broadcast_to(one, (height, width)), np.broadcast_to(valid, (height, width))

    return read


class FlatPixels:
    """The same value for every pixel of a band."""

    def optical(self, scene: OpticalScene, band: str, grid: NativeGrid) -> Read:
        """A Sentinel-2 or Cloud Score+ band."""
        if band in _SCORES:
            return _constant(1.0, "float32")
        return _constant(_OPTICAL.get(band, _REFLECTANCE), "uint8" if band in _BYTES else "uint16")

    def labels(self, scene: OpticalScene, series: Series, grid: NativeGrid) -> Read:
        """Trees everywhere."""
        return _constant(1, "uint8")

    def radar(self, scene: RadarScene, band: str, grid: NativeGrid) -> Read:
        """One backscatter per polarisation."""
        return _constant(_BACKSCATTER[band], "float64")

    def fixed(self, product: str, grid: NativeGrid) -> Read:
        """One value per map."""
        return _constant(*_FIXED[product])

    def water_history(self, band: str, grid: NativeGrid) -> Read:
        """One value per layer: water that was always there."""
        return _constant(*_WATER[band])

    def built_up(self, band: str, year: int, grid: NativeGrid) -> Read:
        """One built-up surface per band."""
        return _constant(_BUILT[band], "uint16")

    def monthly(self, variable: str, year: int, month: int, grid: NativeGrid) -> Read:
        """One value per variable."""
        return _constant(_MONTHLY[variable], "float64")


class FlatSky:
    """Land everywhere, never a cloud."""

    def imaged(self, west: float, south: float, east: float, north: float) -> bool:
        """Everything is acquired."""
        return True

    def cloud(
        self, datatakes: NDArray[np.uint32], months: NDArray[np.float64], lon: NDArray[np.float64],
        lat: NDArray[np.float64],
    ) -> NDArray[np.float64]:  # fmt: skip
        """No cloud."""
        return np.zeros((len(datatakes), len(lon)))

    def radar_passes(self, lon: float, lat: float) -> tuple[str, ...]:
        """Both directions everywhere."""
        return ("ASCENDING", "DESCENDING")

    def cold(self, lon: float, lat: float) -> bool:
        """Nowhere is ice."""
        return False
