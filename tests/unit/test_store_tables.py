"""The table of all rows as other tools see it, and the state of a store at any moment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmearth_data import grid
from mmearth_data.status import status
from mmearth_data.store import StoreError, consolidate, layout
from mmearth_data.store.rows import row_table
from mmearth_data.store.shards import ShardData, commit_shard
from tests.synthetic import ShardMaker, make_store

ROWS, SHARD_ROWS, PIXELS = 84, 28, 16


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards, the last of them not committed; row 5 has no location."""
    store = tmp_path_factory.mktemp("tables") / "s"
    layout.create(store, tile_pixels=PIXELS, shard_rows=SHARD_ROWS, attrs={})
    layout.resize(store, ROWS)
    maker = ShardMaker(ROWS, PIXELS, seed=1)
    for shard in range(2):
        commit_shard(store, shard, _without_a_location(maker.shard(shard, SHARD_ROWS), 5))
    consolidate(store)
    return store


def _without_a_location(data: ShardData, row: int) -> ShardData:
    records = data.table.to_pylist()
    if records[row]["row"] != row:
        return data
    records[row], data.status[row] = {"row": row}, 0
    for array, empty in zip(data.arrays.values(), _empty_row(), strict=True):
        array[row] = empty
    return ShardData(data.arrays, data.status, row_table(records))


def _empty_row() -> list[float]:
    return [0, 65535, 255, 255, 255, -32768, -32768, 0, 255, 0, np.nan, 255, 65535]


@pytest.fixture(scope="module")
def table(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path / "locations.parquet")


def test_geopandas_opens_the_table_with_cell_centres_as_points(table: gpd.GeoDataFrame) -> None:
    assert len(table) == 2 * SHARD_ROWS
    assert table.crs is not None
    assert table.crs.to_authority() == ("OGC", "CRS84")
    located = table[table["location_id"] != 0]
    assert len(located) == len(table) - 1
    lon, lat = grid.centres(located["location_id"].to_numpy())
    np.testing.assert_allclose(located.geometry.x, lon)
    np.testing.assert_allclose(located.geometry.y, lat)
    assert list(table.index[table.geometry.isna()]) == [5]


def test_the_table_names_a_covering_by_which_readers_skip_places(path: Path, table: gpd.GeoDataFrame) -> None:
    file = path / "locations.parquet"
    geo = json.loads(pq.read_schema(file).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    sides = ("xmin", "ymin", "xmax", "ymax")
    assert geo["columns"]["geometry"]["covering"] == {"bbox": {side: ["bbox", side] for side in sides}}
    located = table[table["location_id"] != 0]
    boxes = pq.read_table(file, columns=["row", "bbox"]).to_pandas().set_index("row")["bbox"]
    assert boxes.isna().tolist() == table.geometry.isna().tolist()
    np.testing.assert_array_equal(
        np.array([[box[side] for side in sides] for box in boxes.dropna()]), located.geometry.bounds.to_numpy()
    )
    north = gpd.read_parquet(file, bbox=(-180, 30, 180, 90))
    assert 0 < len(north) < len(located)
    assert set(north["location_id"]) == set(located["location_id"][located.geometry.y >= 30])


def test_what_is_not_known_of_an_empty_slot_is_null(table: gpd.GeoDataFrame) -> None:
    row = table.loc[5]
    assert (row["outcome"], row["reason"], row["attempts"], row["location_id"]) == ("vacant", "", 0, 0)
    assert row[["lon", "biome", "year", "split", "level", "time", "sentinel2_id"]].isna().all()
    assert row["status_sentinel2"] == 0


def test_a_location_that_gave_way_keeps_its_place_and_reason(table: gpd.GeoDataFrame) -> None:
    row = table.loc[28]
    assert (row["outcome"], row["reason"], row["status_aster"]) == ("vacant", "cloudy", 0)
    assert row["biome"]
    assert row.geometry is not None


def test_consolidating_again_changes_no_byte(path: Path) -> None:
    def content() -> dict[str, str]:
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in path.rglob("*") if f.is_file()}

    before = content()
    consolidate(path)
    assert content() == before


def test_status_counts_what_the_table_says(path: Path, table: gpd.GeoDataFrame) -> None:
    found = status(path)
    stored = table[table["outcome"] == "stored"]
    gave_way = table[(table["outcome"] == "vacant") & (table["location_id"] != 0)]
    assert (found.rows, found.shards, found.committed) == (ROWS, 3, 2)
    assert (found.stored, found.gave_way, found.empty) == (len(stored), len(gave_way), 1)
    assert found.stored + found.gave_way + found.empty == 2 * SHARD_ROWS
    assert found.refusals == gave_way["reason"].value_counts().to_dict()
    assert found.levels == stored["level"].value_counts().to_dict()
    assert found.splits == stored["split"].value_counts().to_dict()
    for name in ("sentinel1", "canopy_height_eth", "era5", "sentinel2_scl", "aster"):
        reasons = stored[f"absent_{name}"]
        assert found.absences.get(name, {}) == reasons[reasons != ""].value_counts().to_dict()
    strata = stored.groupby(["biome", "year"]).size().to_dict()
    assert {(s.biome, s.year): s.stored for s in found.strata if s.stored} == strata
    assert found.quota is None
    assert {s.quota for s in found.strata} == {None}
    assert found.bytes_on_disk == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def test_quotas_are_the_primaries_of_the_adopted_table(path: Path, table: gpd.GeoDataFrame) -> None:
    located = table[table["location_id"] != 0]
    reserve = np.arange(len(located)) % 5 == 0
    planned = pa.table({"biome": located["biome"], "year": located["year"].astype("int16"), "reserve": reserve})
    (path / "_plan").mkdir()
    pq.write_table(planned, path / "_plan" / "locations.parquet")
    found = status(path)
    assert found.quota == (~reserve).sum()
    expected = located[~reserve].groupby(["biome", "year"]).size()
    assert {(s.biome, s.year): s.quota for s in found.strata if s.quota} == expected.to_dict()
    (path / "_plan" / "locations.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"_plan/locations.parquet is damaged"):
        status(path)


def test_status_as_json_holds_the_same(tmp_path: Path) -> None:
    found = status(make_store(tmp_path / "s", rows=28, tile_pixels=16, shard_rows=28))
    document = json.loads(found.to_json())
    assert document["stored"] == found.stored
    assert document["absences"] == found.absences
    assert [stratum["biome"] for stratum in document["strata"]] == [stratum.biome for stratum in found.strata]


def test_an_empty_store_has_a_status_too(tmp_path: Path) -> None:
    layout.create(tmp_path / "s", tile_pixels=8, shard_rows=4, attrs={})
    found = status(tmp_path / "s")
    assert (found.rows, found.committed, found.stored, found.strata) == (0, 0, 0, ())
