"""A plan of full size as the command makes it, checked by other means than those that made it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from mmearth_data import grid
from mmearth_data.location import read_locations
from mmearth_data.modalities import ECOREGION_NAMES
from sampling.splits import blocks_at
from tests.commands import command
from tests.footprints import overlaps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
LOCATIONS = 1_200_000


def _sample(layer: Path, out: Path, locations: int) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(out.parent / "prefect")}
    asked = command("sample", "--locations", locations, "--ecoregions", layer, "--out", out)
    subprocess.run(asked, env=environment, check=True, capture_output=True, timeout=900)


@pytest.fixture(scope="module")
def layer(shared_data: Path) -> Path:
    return shared_data / "ecoregions2017" / "Ecoregions2017.shp"


@pytest.fixture(scope="module")
def raw(layer: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(layer).set_index("ECO_NAME")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, layer: Path) -> Path:
    path = tmp_path_factory.mktemp("plan") / "locations.parquet"
    _sample(layer, path, LOCATIONS)
    return path


@pytest.fixture(scope="module")
def plan(file: Path) -> gpd.GeoDataFrame:
    return read_locations(file)


def test_strata_differ_by_at_most_one(plan: gpd.GeoDataFrame) -> None:
    primaries = plan.loc[~plan["reserve"]].groupby(["biome", "year"]).size()
    assert len(primaries) == 56
    assert np.ptp(primaries) <= 1
    assert primaries.sum() == LOCATIONS
    reserves = plan.loc[plan["reserve"]].groupby(["biome", "year"]).size()
    assert (reserves == -(-primaries // 5)).all()


def test_no_two_footprints_overlap(plan: gpd.GeoDataFrame) -> None:
    """Zone by zone, each with the zone east of it; the last with the first."""
    ids = plan["location_id"].to_numpy()
    assert len(np.unique(ids)) == len(ids)
    zone = grid.decode(ids).zone
    crossings = 0
    for number in range(1, 61):
        largest, crossing = overlaps(ids[(zone == number) | (zone == number % 60 + 1)])
        assert largest < 1e-3
        crossings += crossing
    assert crossings > 100


def test_every_centre_lies_in_its_ecoregion(plan: gpd.GeoDataFrame, raw: gpd.GeoDataFrame) -> None:
    for name, rows in plan.groupby("ecoregion"):
        polygon = raw.geometry[name]
        shapely.prepare(polygon)
        assert shapely.contains_xy(polygon, rows["lon"], rows["lat"]).all()
        assert set(rows["biome"]) == {raw["BIOME_NAME"][name]}


def test_every_ecoregion_is_there_or_named_with_the_reason(
    plan: gpd.GeoDataFrame, raw: gpd.GeoDataFrame, file: Path
) -> None:
    present = set(plan["ecoregion"])
    without = json.loads(pq.read_schema(file).metadata[b"mmearth"])["ecoregions"]["without_cells"]
    assert present | set(without) == set(ECOREGION_NAMES)
    assert not present & set(without)
    south = {name for name in ECOREGION_NAMES if raw.geometry[name].bounds[3] < -56}
    assert set(without) == south
    assert len(south) == 16


def test_blocks_are_never_mixed(plan: gpd.GeoDataFrame) -> None:
    block = blocks_at(plan["lon"].to_numpy(), plan["lat"].to_numpy())
    assert plan["split"].groupby(block).nunique().max() == 1
    assert (plan.groupby("biome")["split"].nunique() == 3).all()


def test_smaller_plans_are_its_beginning_and_repeats_have_its_bytes(
    plan: gpd.GeoDataFrame, file: Path, layer: Path
) -> None:
    smaller = file.with_name("smaller.parquet")
    _sample(layer, smaller, 100_000)
    keys = ["location_id", "biome", "ecoregion", "year", "rank", "split"]
    part = pd.DataFrame(read_locations(smaller)[keys])
    assert len(part.merge(pd.DataFrame(plan[keys]), on=keys)) == len(part) > 100_000
    again = file.with_name("again.parquet")
    _sample(layer, again, LOCATIONS)
    assert again.read_bytes() == file.read_bytes()
