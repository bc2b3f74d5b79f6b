"""A store of smaller tiles holds the middle of each larger one, and says where that lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyproj import Transformer

from mmearth_data import grid, statistics
from mmearth_data.convert.crop import crop_store
from mmearth_data.convert.journal import ConversionError
from mmearth_data.modalities import MODALITIES, STORED
from mmearth_data.store import Store, layout, open_store
from mmearth_data.store.shards import ShardData, commit_shard, verify
from mmearth_data.store.statistics import load
from tests.synthetic import ShardMaker

LARGE, SMALL, OFFSET = 32, 16, 8
NAMES = [modality.name for modality in STORED]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """In the crops of rows 0 to 3 are missing: one modality, one band, Sentinel-2, a clear sky."""
    path = tmp_path_factory.mktemp("large") / "store"
    maker = ShardMaker(56, LARGE, 11)
    layout.create(path, tile_pixels=LARGE, shard_rows=28, attrs={})
    layout.resize(path, 56)
    for shard in range(2):
        data = maker.shard(shard, 28)
        if shard == 0:
            data = _special(data)
        commit_shard(path, shard, data)
    statistics.finalize(path)
    return open_store(path)


def _special(data: ShardData) -> ShardData:
    inside = np.s_[..., OFFSET:-OFFSET, OFFSET:-OFFSET]
    data.arrays["aster"][0][inside] = -32768
    data.arrays["aster"][1, 1][inside] = -32768
    data.arrays["sentinel2"][2][inside] = 0
    data.arrays["cloud_score"][3][inside] = 10
    return data


@pytest.fixture(scope="module")
def small(large: Store) -> Store:
    crop_store(large.path, large.path.parent / "small", SMALL)
    return open_store(large.path.parent / "small")


def test_every_value_is_the_central_one(large: Store, small: Store) -> None:
    assert (small.rows, small.tile_pixels) == (large.rows, SMALL)
    kept = np.flatnonzero((small.status[:, 0] != 0) | (large.status[:, 0] == 0))
    assert sorted(set(range(large.rows)) - set(kept)) == [2]
    for modality in STORED:
        before, after = (store.read(modality.name, 0, store.rows)[kept] for store in (large, small))
        if modality.scope == "pixel":
            before = before[:, :, OFFSET : OFFSET + SMALL, OFFSET : OFFSET + SMALL]
        np.testing.assert_array_equal(after, before, err_msg=modality.name)


def test_the_pixels_lie_where_the_table_says_and_in_their_cell(large: Store, small: Store) -> None:
    before, after = (pq.read_table(store.path / "locations.parquet").to_pylist() for store in (large, small))
    for old, new in zip(before, after, strict=True):
        assert new["location_id"] == old["location_id"]
        assert (new["x0"] - old["x0"], old["y0"] - new["y0"]) == (10 * OFFSET, 10 * OFFSET)
        cell = grid.decode(new["location_id"])
        assert cell.x0[0] <= new["x0"] <= cell.x0[0] + 10 * (LARGE - SMALL)
        assert cell.y0[0] >= new["y0"] >= cell.y0[0] - 10 * (LARGE - SMALL)
        to_degrees = Transformer.from_crs(f"EPSG:{new['epsg']}", "EPSG:4326", always_xy=True)
        middle = to_degrees.transform(new["x0"] + 5 * SMALL, new["y0"] - 5 * SMALL)
        np.testing.assert_allclose(middle, (new["lon"], new["lat"]), atol=1e-9)
        if new["row"] > 3:
            same = set(new) - {"x0", "y0", "clear_fraction", *(f"valid_fraction_{name}" for name in NAMES)}
            assert {name: new[name] for name in same} == {name: old[name] for name in same}


def test_what_lay_outside_only_is_absent_with_a_reason(small: Store) -> None:
    table = pq.read_table(small.path / "locations.parquet").to_pylist()
    assert (table[0]["status_aster"], table[0]["absent_aster"]) == (3, "masked")
    assert (table[1]["status_aster"], table[1]["absent_aster"]) == (2, "")
    assert (table[2]["outcome"], table[2]["reason"], table[2]["sentinel2_id"]) == ("vacant", "gaps", None)
    assert all((small.read(m.name, 2, 3) == m.nodata).all() for m in STORED if m.name != "era5")
    assert table[3]["clear_fraction"] == 0.0


def test_the_store_is_whole_with_statistics_of_the_crops(small: Store) -> None:
    assert verify(small.path) == []
    rows = small.select("train")
    values = small.read("esa_worldcover", 0, small.rows)[rows]
    counts = load(small.path).get("esa_worldcover").class_counts
    expected = [(values == value).sum() for value in MODALITIES["esa_worldcover"].class_values]
    np.testing.assert_array_equal(counts, expected)


def test_tiles_that_do_not_fit_are_refused(large: Store, tmp_path: Path) -> None:
    for pixels in (LARGE, LARGE + 2, LARGE - 1):
        with pytest.raises(ConversionError, match=f"tiles of {pixels} px have no place"):
            crop_store(large.path, tmp_path / "out", pixels)
