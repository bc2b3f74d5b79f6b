"""A plan: which cells, in which years, for which split — from ecoregions and a seed to a location table."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

from mmearth_data import grid
from mmearth_data.grid import FloatArray, IdArray
from mmearth_data.modalities import BIOME_NAMES
from sampling import quotas
from sampling.candidates import CellStream, cell_streams
from sampling.countries import check_countries
from sampling.domains import domains
from sampling.ecoregions import check_ecoregions, covered_areas
from sampling.errors import SamplingError, TooFewCellsError, YearsError
from sampling.keyed import IntArray, key_of
from sampling.splits import blocks_at, deal_splits
from sampling.table import METADATA, location_table

logger = logging.getLogger(__name__)

FIRST_YEAR = 2016
"""The first full calendar year of Sentinel-2."""
_TILE_PIXELS = range(16, 4097)
Progress = Callable[[str, int, int], None]


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
    """A vector file of countries with CONTINENT and ADMIN or NAME, to fill country and continent."""
    years: str = "2017-2020"
    """The calendar years of acquisition, first and last."""
    seed: int = 0
    """Another seed chooses other cells; the same seed makes larger plans contain smaller ones."""
    tile_size: int = grid.TILE_PIXELS
    """Pixels along one edge of a tile, at 10 m."""


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


def sample_locations(
    config: SampleConfig,
    ecoregions: gpd.GeoDataFrame,
    countries: gpd.GeoDataFrame | None,
    progress: Progress | None = None,
) -> gpd.GeoDataFrame:
    """The location table for ``config``: columns of ``mmearth_data.location``, rows by biome, year and rank.

    ``ecoregions`` has ECO_NAME, BIOME_NAME, REALM and a CRS; ``countries`` CONTINENT and ADMIN or NAME. ``progress``
    is told a stage, how much of it is done, and of how much. The same inputs and seed give the same table, and a
    plan for fewer locations is contained in one for more, ranks and splits included. Raises SamplingError.
    """
    years = parse_years(config.years)
    if config.locations < 1:
        raise SamplingError(f"locations must be at least 1, not {config.locations}; one per biome and year makes 56")
    if config.tile_size not in _TILE_PIXELS:
        raise SamplingError(
            f"tile size must be {_TILE_PIXELS.start} to {_TILE_PIXELS[-1]} pixels, not {config.tile_size}"
        )
    told = progress or (lambda stage, done, total: None)
    regions = check_ecoregions(ecoregions, "the ecoregion layer")
    nations = None if countries is None else check_countries(countries, "the country layer")
    biomes = [name for name in BIOME_NAMES if (regions["BIOME_NAME"] == name).any()]
    if len(biomes) < len(BIOME_NAMES):
        absent = ", ".join(name for name in BIOME_NAMES if name not in biomes)
        logger.warning("the ecoregion layer has no polygon of %s: the plan is balanced over the others", absent)

    told("blocks", 0, 1)
    polygons = regions.geometry.to_numpy().copy()
    keys = [key_of(config.seed, "cells", name) for name in regions["ECO_NAME"]]
    streams = cell_streams(polygons, domains(polygons, config.tile_size), keys)
    told("blocks", 1, 1)
    members = [np.flatnonzero(regions["BIOME_NAME"] == biome) for biome in biomes]
    rounds = quotas.depth(config.locations, len(years), len(biomes))
    cells, region = _choose(config, biomes, members, streams, covered_areas(regions), (rounds, len(years)), told)
    barren = [regions["ECO_NAME"].iloc[k] for k, stream in enumerate(streams) if stream.bound == 0]
    if barren:
        logger.info("%d ecoregions hold no eligible cell: %s", len(barren), ", ".join(barren))

    told("table", 0, 1)
    lon, lat = (part.reshape(cells.shape) for part in grid.centres(cells.ravel()))
    split = _splits(cells, lon, lat, config.seed)
    primary = quotas.primaries(config.locations, len(years), len(biomes)).T[:, None, :]
    biome, rank, year = np.nonzero(np.arange(rounds)[:, None] < primary + quotas.reserves(primary))
    order = np.lexsort((rank, year, biome))
    planned = (biome[order], rank[order], year[order])
    table = location_table(
        ids=cells[planned],
        lon=lon[planned],
        lat=lat[planned],
        region=region[planned],
        year=np.array(years)[planned[2]],
        rank=planned[1],
        reserve=planned[1] >= primary[planned[0], 0, planned[2]],
        split=split[planned],
        regions=regions,
        nations=nations,
    )
    told("table", 1, 1)
    table.attrs[METADATA] = {
        "version": 1,
        "locations": config.locations,
        "years": list(years),
        "seed": config.seed,
        "tile_size": config.tile_size,
        "ecoregions": {
            "source": Path(config.ecoregions).name,
            "sha256": _checksum(regions, ("ECO_NAME", "BIOME_NAME", "REALM")),
            "repaired": regions.attrs["repaired"],
            "without_cells": barren,
        },
        "countries": None
        if nations is None
        else {"source": Path(config.countries).name, "sha256": _checksum(nations, ("CONTINENT", "ADMIN"))},
    }
    return table


def _choose(
    config: SampleConfig,
    biomes: Sequence[str],
    members: Sequence[IntArray],
    streams: Sequence[CellStream],
    areas: FloatArray,
    shape: tuple[int, int],
    told: Progress,
) -> tuple[IdArray, IntArray]:
    """Cell ids and positions of their ecoregions, each of shape (biomes, rounds, years): each biome's whole order."""
    rounds, years = shape
    cells: dict[int, IdArray] = {}
    region: dict[int, IntArray] = {}
    done, total = 0, len(streams)
    told("cells", done, total)
    # The smallest biome first: it is the one that a plan too large fails on.
    for number in sorted(range(len(biomes)), key=lambda k: float(areas[members[k]].sum())):
        belonging = members[number]
        mine = [streams[k] for k in belonging]
        seats = _seats(mine, quotas.weights(areas[belonging]), rounds * years)
        if len(seats) < rounds * years:
            raise _too_few(config, biomes, number, mine, shape, [float(areas[m].sum()) for m in members])
        chosen = np.empty(len(seats), dtype=np.int64)
        for place, stream in enumerate(mine):
            taken = seats == place
            chosen[taken] = stream.take(int(taken.sum()))
        order = quotas.year_order(key_of(config.seed, "years", biomes[number]), rounds, years)
        back = np.argsort(order, axis=1)
        cells[number] = np.take_along_axis(chosen.reshape(rounds, years), back, axis=1)
        region[number] = np.take_along_axis(belonging[seats].reshape(rounds, years), back, axis=1)
        done += len(belonging)
        told("cells", done, total)
    numbers = range(len(biomes))
    return np.stack([cells[k] for k in numbers]), np.stack([region[k] for k in numbers])


def _seats(streams: Sequence[CellStream], weight: FloatArray, seats: int) -> IntArray:
    """Which of one biome's ecoregions gets each seat; fewer than ``seats`` where the biome runs out of cells.

    How many cells an ecoregion holds is known only once its stream ran dry, so seats are apportioned again until
    every stream has what it was given; the outcome is that of caps known from the start.
    """
    while True:
        caps = np.array([stream.bound for stream in streams], dtype=np.int64)
        order = quotas.apportion(weight, caps, seats)
        wanted = np.bincount(order, minlength=len(streams))
        short = False
        for stream, count in zip(streams, wanted, strict=True):
            short |= len(stream.take(int(count))) < count
        if not short:
            return order


def _too_few(
    config: SampleConfig,
    biomes: Sequence[str],
    lacking: int,
    streams: Sequence[CellStream],
    shape: tuple[int, int],
    areas: Sequence[float],
) -> TooFewCellsError:
    """What to say where a biome has too few cells: how many each has, and the largest plan that fits."""
    cells = sum(len(stream.take(stream.bound)) for stream in streams)
    cell_km2 = (config.tile_size * grid.PIXEL_METRES / 1000) ** 2
    held = [cells if k == lacking else round(area / cell_km2) for k, area in enumerate(areas)]
    listed = ", ".join(f"{name} {'' if k == lacking else 'about '}{held[k]:,}" for k, name in enumerate(biomes))
    rounds, years = shape
    return TooFewCellsError(
        f"{config.locations:,} locations need {rounds * years:,} cells in each biome, reserves included, and "
        f"{biomes[lacking]} has {cells:,} eligible ones; ask for at most "
        f"{quotas.largest_plan(min(held), years, len(biomes)):,} (cells by biome: {listed})"
    )


def _splits(cells: IdArray, lon: FloatArray, lat: FloatArray, seed: int) -> IntArray:
    """The split of each cell of (biomes, rounds, years), an index into ``SPLITS``.

    Splits are dealt along the order in which plans grow, over whole rounds, so that a longer plan changes none.
    """
    biomes, rounds, years = cells.shape
    biome = np.tile(np.arange(biomes), rounds * years)
    grown_lon, grown_lat = (part.transpose(1, 2, 0).ravel() for part in (lon, lat))
    dealt = deal_splits(blocks_at(grown_lon, grown_lat), biome, seed)
    return dealt.reshape(rounds, years, biomes).transpose(2, 0, 1)


def _checksum(frame: gpd.GeoDataFrame, columns: Sequence[str]) -> str:
    """SHA-256 over names and polygons, so that a plan says which layer it came from."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update("\x1f".join(frame[column].fillna("").astype(str)).encode())
    for polygon in shapely.to_wkb(frame.geometry.to_numpy()):
        digest.update(polygon)
    return digest.hexdigest()
