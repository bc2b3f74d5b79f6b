"""What a plan is asked for: its configuration, which is also its command line, and the checks of its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmearth_data import grid
from sampling.errors import SamplingError, YearsError

FIRST_YEAR = 2016
"""The first full calendar year of Sentinel-2."""
LARGEST_BUFFER_KM = 60.0
"""Blocks measure about 100 km; with more than this between them too little is left of each."""
_TILE_PIXELS = range(16, 4097)
Balance = Literal["area", "realm", "continent"]
Preset = Literal["default", "reference"]


@dataclass(frozen=True)
class SampleConfig:
    """What to sample and where to keep it."""

    locations: int
    """Locations to collect in all, shared equally by every biome and year; reserves come on top."""
    out: Path
    """Where the location table goes (GeoParquet)."""
    ecoregions: str = "ee"
    """A vector file of RESOLVE Ecoregions 2017, or 'ee' to fetch them from Earth Engine."""
    countries: str = ""
    """A vector file of countries with CONTINENT and ADMIN or NAME, or 'ee' for Earth Engine's, to fill in both."""
    years: str = "2017-2020"
    """The calendar years of acquisition, first and last."""
    seed: int = 0
    """Another seed chooses other cells; the same seed makes larger plans contain smaller ones."""
    tile_size: int = grid.TILE_PIXELS
    """Pixels along one edge of a tile, at 10 m."""
    balance: Balance = "area"
    """How a biome is shared: by ecoregions' areas, or first equally by the realms or continents that it lies in."""
    val_share: float = 0.1
    """Share of the blocks of about 100 km that go to the val split."""
    test_share: float = 0.1
    """Share of the blocks that go to the test split."""
    buffer_km: float = 0.0
    """Least distance in km between tiles of different blocks; what lies nearer to a block's border is left out."""
    hold_out: str = ""
    """Continents or realms, with commas between, whose blocks go to the held_out split whole."""
    preset: Preset = "default"
    """The plan of this product, or the published scheme of points drawn anew, which is for comparison only."""


def parse_years(text: str) -> tuple[int, ...]:
    """The years of a range such as '2017-2020' or '2019'; raises YearsError."""
    match = re.fullmatch(r"\s*(\d{4})(?:\s*-\s*(\d{4}))?\s*", text)
    if match is None:
        raise YearsError(f"years must be a range such as 2017-2020 or one year such as 2019, not {text!r}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or first < FIRST_YEAR:
        raise YearsError(
            f"years must run forward from {FIRST_YEAR} or later (Sentinel-2's first full year), not {text!r}"
        )
    return tuple(range(first, last + 1))


def check_config(config: SampleConfig) -> tuple[int, ...]:
    """The years of a configuration whose numbers make sense; raises SamplingError."""
    years = parse_years(config.years)
    if config.locations < 1:
        raise SamplingError(f"locations must be at least 1, not {config.locations}; one per biome and year makes 56")
    if config.tile_size not in _TILE_PIXELS:
        raise SamplingError(
            f"tile size must be {_TILE_PIXELS.start} to {_TILE_PIXELS[-1]} pixels, not {config.tile_size}"
        )
    if not 0 <= config.buffer_km <= LARGEST_BUFFER_KM:
        raise SamplingError(f"the buffer must be 0 to {LARGEST_BUFFER_KM:g} km, not {config.buffer_km}")
    return years
