"""What Sentinel-2 products say about themselves: satellites, processing baselines, and the names made of both.

Source: Sentinel-2 Products Specification Document, and the Earth Engine catalogue's pages of COPERNICUS/S2 and S2_SR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mmearth_data.emulator.world.catalogue import dates

BEGIN = dates.ms(2016, 1, 1)


@dataclass(frozen=True)
class Satellite:
    """``phase`` in days of the repeat cycle; ``since`` when products begin; orbits are counted from ``launch``."""

    name: str
    short: str
    phase: float
    since: int
    launch: int


SATELLITES = (
    Satellite("Sentinel-2A", "S2A", 0.0, BEGIN, dates.ms(2015, 6, 23)),
    Satellite("Sentinel-2B", "S2B", 5.0, dates.ms(2017, 7, 1), dates.ms(2017, 3, 7)),
)
_BASELINES = (
    (dates.ms(2016, 6, 15), "02.04"), (dates.ms(2017, 5, 23), "02.05"), (dates.ms(2017, 10, 23), "02.06"),
    (dates.ms(2018, 11, 6), "02.07"), (dates.ms(2019, 7, 8), "02.08"), (dates.ms(2020, 2, 4), "02.09"),
    (dates.ms(2021, 3, 30), "03.00"), (dates.ms(2021, 7, 1), "03.01"), (dates.ms(2022, 1, 25), "04.00"),
    (dates.ms(2022, 12, 6), "05.09"),
)  # fmt: skip
_OFFSET, _OFFSET_SINCE = 1000, "04.00"
"""What products add to reflectance × 10⁴ since a baseline, which the HARMONIZED collections take away again."""
_NO_MASK = (dates.ms(2022, 1, 25), dates.ms(2024, 2, 29))
"""Products from the first to before the second came without the mask that QA60 is made of (the catalogue's page)."""
_QUALITY = ("GENERAL_QUALITY", "GEOMETRIC_QUALITY", "RADIOMETRIC_QUALITY", "SENSOR_QUALITY", "FORMAT_CORRECTNESS")


def baseline(time: int) -> str:
    """Version of the processing that products of a time went through."""
    return next((version for since, version in reversed(_BASELINES) if time >= since), "02.04")


def offset(time: int) -> int:
    """What products of a time add to reflectance × 10⁴."""
    return _OFFSET if baseline(time) >= _OFFSET_SINCE else 0


def without_mask(time: int) -> bool:
    """Whether QA60 is masked throughout in products of a time."""
    return _NO_MASK[0] <= time < _NO_MASK[1]


def published(
    index: str,
    tile: str,
    level: Literal["L1C", "L2A"],
    satellite: int,
    orbit: int,
    absolute_orbit: int,
    time: int,
    generated: int,
) -> dict[str, Any]:
    """The properties that name a product; ``orbit`` is the relative one from 1, ``index`` the system:index."""
    short, version = SATELLITES[satellite].short, baseline(time)
    begun, sensed, _ = index.split("_")
    processed = dates.stamp(generated)
    run = f"N{version.replace('.', '')}_R{orbit:03d}"
    return {
        "PROCESSING_BASELINE": version,
        "MGRS_TILE": tile,
        "SPACECRAFT_NAME": SATELLITES[satellite].name,
        "SENSING_ORBIT_NUMBER": orbit,
        "SENSING_ORBIT_DIRECTION": "DESCENDING",
        "PRODUCT_ID": f"{short}_MSI{level}_{begun}_{run}_T{tile}_{processed}",
        "GRANULE_ID": f"{level}_T{tile}_A{absolute_orbit:06d}_{sensed}",
        "DATASTRIP_ID": f"{short}_OPER_MSI_{level}_DS_EPAE_{processed}_S{begun}_N{version}",
        "DATATAKE_IDENTIFIER": f"G{short}_{begun}_{absolute_orbit:06d}_N{version}",
        "DATATAKE_TYPE": "INS-NOBS",
        "GENERATION_TIME": generated,
        **dict.fromkeys(_QUALITY, "PASSED"),
    }
