"""A plan: which cells, in which years, for which split — from ecoregions and a seed to a location table."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from mmearth_data import grid
from mmearth_data.grid import FloatArray
from mmearth_data.modalities import BIOME_NAMES
from sampling import quotas
from sampling.balance import held_out_place, sharing_groups
from sampling.candidates import CellStream, cell_streams
from sampling.choice import Claimants, Progress, choose
from sampling.config import SampleConfig, check_config
from sampling.countries import check_countries
from sampling.domains import domains
from sampling.ecoregions import areas, check_ecoregions, covered_areas
from sampling.geography import geography
from sampling.keyed import IntArray, key_of
from sampling.splits import HELD_OUT, Hand, blocks_at, deal_splits, hand_of, held_out_blocks
from sampling.table import METADATA, location_table

logger = logging.getLogger(__name__)


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
    years = check_config(config)
    hand = hand_of(config.val_share, config.test_share)
    told = progress or (lambda stage, done, total: None)
    regions = check_ecoregions(ecoregions, "the ecoregion layer")
    nations = None if countries is None else check_countries(countries, "the country layer")
    groups = sharing_groups(regions, nations, config.balance)
    held_out = held_out_place(config.hold_out, regions, nations)
    biomes = [name for name in BIOME_NAMES if (regions["BIOME_NAME"] == name).any()]
    if len(biomes) < len(BIOME_NAMES):
        absent = ", ".join(name for name in BIOME_NAMES if name not in biomes)
        logger.warning("the ecoregion layer has no polygon of %s: the plan is balanced over the others", absent)

    told("blocks", 0, 1)
    polygons = regions.geometry.to_numpy().copy()
    keys = [key_of(config.seed, "cells", name) for name in regions["ECO_NAME"]]
    streams = cell_streams(polygons, domains(polygons, config.tile_size), keys, config.buffer_km)
    told("blocks", 1, 1)
    members = [np.flatnonzero(regions["BIOME_NAME"] == biome) for biome in biomes]
    rounds = quotas.depth(config.locations, len(years), len(biomes))
    covered = covered_areas(regions)
    claimants = Claimants(biomes, members, streams, covered, groups)
    cells, region = choose(config, claimants, (rounds, len(years)), told)

    told("table", 0, 1)
    lon, lat = (part.reshape(cells.shape) for part in grid.centres(cells.ravel()))
    split = _splits(lon, lat, config.seed, hand, held_out)
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
            "without_cells": _without_cells(regions, streams, covered),
            "used_up": [
                str(regions["ECO_NAME"].iloc[number])
                for number, (stream, taken) in enumerate(
                    zip(streams, np.bincount(region[planned], minlength=len(streams)), strict=True)
                )
                if stream.exhausted and 0 < taken == stream.bound
            ],
        },
        "countries": None
        if nations is None
        else {"source": Path(config.countries).name, "sha256": _checksum(nations, ("CONTINENT", "ADMIN"))},
        "balance": config.balance,
        "splits": {
            "val_share": config.val_share,
            "test_share": config.test_share,
            "buffer_km": config.buffer_km,
            "hold_out": config.hold_out,
        },
        "excluded": _excluded(config, areas(regions) - covered, streams),
        "geography": geography(table, regions, nations),
    }
    return table


def _without_cells(regions: gpd.GeoDataFrame, streams: Sequence[CellStream], covered: FloatArray) -> dict[str, str]:
    """Why each ecoregion without a cell has none."""
    why = {
        str(regions["ECO_NAME"].iloc[number]): "no whole cell has its centre there and is eligible"
        if covered[number] > 0
        else "lies wholly beyond Sentinel-2's coverage"
        for number, stream in enumerate(streams)
        if stream.bound == 0
    }
    if why:
        logger.info("%d ecoregions hold no eligible cell: %s", len(why), ", ".join(why))
    return why


def _excluded(config: SampleConfig, beyond: FloatArray, streams: Sequence[CellStream]) -> dict[str, Any]:
    """What was left out: land beyond coverage by its area, and the candidates that were looked at and refused."""
    cell_km2 = (config.tile_size * grid.PIXEL_METRES / 1000) ** 2
    km2 = float(beyond.sum())
    result = {
        "beyond_coverage_km2": round(km2),
        "beyond_coverage_cells": round(km2 / cell_km2),
        "candidates_at_borders": sum(stream.refused.at_borders for stream in streams),
        "candidates_in_buffer": sum(stream.refused.in_buffer for stream in streams),
    }
    logger.info(
        "left out: about %d cells beyond Sentinel-2's coverage; of the cells looked at, %d at borders of zones, "
        "hemispheres or coverage and %d in the buffer between blocks",
        *(result[name] for name in ("beyond_coverage_cells", "candidates_at_borders", "candidates_in_buffer")),
    )
    return result


def _splits(
    lon: FloatArray, lat: FloatArray, seed: int, hand: Hand, held_out: npt.NDArray[np.object_] | None
) -> IntArray:
    """The split of each cell of (biomes, rounds, years), an index into ``SPLITS``.

    Splits are dealt along the order in which plans grow, over whole rounds, so that a longer plan changes none.
    """
    biomes, rounds, years = lon.shape
    biome = np.tile(np.arange(biomes), rounds * years)
    block = blocks_at(*(part.transpose(1, 2, 0).ravel() for part in (lon, lat)))
    split = np.full(len(block), HELD_OUT)
    dealt = np.ones(len(block), dtype=np.bool_) if held_out is None else ~held_out_blocks(block, held_out)
    split[dealt] = deal_splits(block[dealt], biome[dealt], seed, hand)
    return split.reshape(rounds, years, biomes).transpose(2, 0, 1)


def _checksum(frame: gpd.GeoDataFrame, columns: Sequence[str]) -> str:
    """SHA-256 over names and polygons, so that a plan says which layer it came from."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update("\x1f".join(frame[column].fillna("").astype(str)).encode())
    for polygon in shapely.to_wkb(frame.geometry.to_numpy()):
        digest.update(polygon)
    return digest.hexdigest()
