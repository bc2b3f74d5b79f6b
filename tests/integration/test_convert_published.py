"""MMEarth's published layout comes in with every value where it belongs and its no-data recovered."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from mmearth_data import grid
from mmearth_data.convert.from_published import import_published
from mmearth_data.convert.journal import ConversionError
from mmearth_data.convert.stores import StoreReport
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_NAMES
from mmearth_data.store import Store, open_store
from mmearth_data.store.shards import verify
from tests.published import RADAR, Published, write_published

SHARD_ROWS = 32


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return write_published(tmp_path_factory.mktemp("published") / "data_test_v001")


@pytest.fixture(scope="module")
def report(published: Published) -> StoreReport:
    return import_published(published.folder, published.folder.parent / "store", shard_rows=SHARD_ROWS)


@pytest.fixture(scope="module")
def store(published: Published, report: StoreReport) -> Store:
    return open_store(published.folder.parent / "store")


@pytest.fixture(scope="module")
def rows(published: Published) -> list[int]:
    """Rows with a tile: all but the one without any Sentinel-2 pixel."""
    return [row for row in range(len(published.ids)) if row != published.empty]


def test_the_layout_itself_has_the_values_that_are_to_be_recovered(published: Published) -> None:
    with h5py.File(published.folder / "data_test_v001.h5") as file:
        canopy, aster = file["canopy_height_eth"][:], file["aster"][:]
        assert set(np.unique(canopy[canopy > 110])) == {127}
        assert (canopy == -128).any()
        assert (aster == -32768).any()
        assert file["biome"][published.classless].sum() == 14


def test_every_optical_and_land_cover_value(published: Published, store: Store, rows: list[int]) -> None:
    for name, nodata, missing in (
        ("sentinel2", 0, (0,)),
        ("sentinel2_cloudmask", 65535, (65535,)),
        ("sentinel2_cloudprod", 255, (65535,)),
        ("sentinel2_scl", 255, (0, 255)),
        ("dynamic_world", 0, (0,)),
        ("esa_worldcover", 0, (255,)),
    ):
        truth = published.pixels[name][rows]
        expected = np.where(np.isinf(truth) | np.isin(truth, missing), nodata, truth)
        np.testing.assert_array_equal(store.read(name, 0, len(published.ids))[rows], expected, err_msg=name)


def test_radar_is_within_half_a_hundredth_of_a_decibel(published: Published, store: Store, rows: list[int]) -> None:
    truth, stored = published.pixels["sentinel1"][rows], store.read("sentinel1", 0, len(published.ids))[rows]
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored == -32768, np.isneginf(truth))
    seen = np.isfinite(truth)
    assert np.abs(stored[seen] * 0.01 - truth[seen].astype(np.float64)).max() < 0.00501


def test_terrain_and_canopy(published: Published, report: StoreReport, store: Store, rows: list[int]) -> None:
    truth, stored = published.pixels["aster"][rows], store.read("aster", 0, len(published.ids))[rows]
    gone = np.isneginf(truth)
    np.testing.assert_array_equal(stored == -32768, gone)
    np.testing.assert_array_equal(stored[:, 0][~gone[:, 0]], np.trunc(truth[:, 0][~gone[:, 0]]))
    np.testing.assert_array_equal(stored[:, 1][~gone[:, 1]], 100 * np.trunc(truth[:, 1][~gone[:, 1]]))
    canopy, heights = (
        store.read("canopy_height_eth", 0, len(published.ids))[rows],
        published.pixels["canopy_height_eth"],
    )
    expected = np.where((heights >= 0) & (heights <= 100), heights, 255)[rows]
    np.testing.assert_array_equal(canopy, expected)
    assert report.counted["canopy_height_eth"] == published.blended > 0
    assert not any(count for name, count in report.counted.items() if name not in ("canopy_height_eth", "gaps"))


def test_values_of_whole_tiles(published: Published, store: Store, rows: list[int]) -> None:
    era5, biome, region = (store.read(name, 0, len(published.ids)) for name in ("era5", "biome", "eco_region"))
    table = pq.read_table(store.path / "locations.parquet").to_pylist()
    for row in rows:
        facts = published.info[published.ids[row]]
        expected = [np.nan if v is None else v for part in ("month1", "month2", "year") for v in facts["era5"][part]]
        np.testing.assert_array_equal(era5[row], np.array(expected, dtype=np.float32))
        if row == published.classless:
            assert (biome[row, 0], region[row, 0]) == (255, 65535)
            assert table[row]["absent_biome"] == table[row]["absent_eco_region"] == "not_published"
            continue
        assert (biome[row, 0], region[row, 0]) == (facts["biome"], facts["eco_region"])
        assert table[row]["biome"] == BIOME_NAMES[facts["biome"]]
        assert table[row]["ecoregion"] == ECOREGION_NAMES[facts["eco_region"]]


def test_facts_that_the_layout_has_and_none_that_it_has_not(
    published: Published, store: Store, rows: list[int]
) -> None:
    table = pq.read_table(store.path / "locations.parquet").to_pylist()
    of_row = {row: split for split, members in published.splits.items() for row in members}
    for row in rows:
        record, facts = table[row], published.info[published.ids[row]]
        assert record["location_id"] == -1 - int(published.ids[row])
        assert (record["lon"], record["lat"], f"EPSG:{record['epsg']}") == (facts["lon"], facts["lat"], facts["CRS"])
        assert np.datetime64(record["time"], "ms") == np.datetime64(facts["S2_DATE"], "ms")
        assert (record["level"].lower(), str(record["year"])) == (facts["S2_type"], facts["S2_DATE"][:4])
        assert record["split"] == of_row.get(row)
        for unknown in ("x0", "y0", "sentinel2_id", "scene_cloud", "baseline", "rank", "sentinel1_asc_id"):
            assert record[unknown] is None, unknown
        clouded = published.pixels["sentinel2_cloudmask"][row, 0] != 0
        seen = np.isfinite(published.pixels["sentinel2"][row, 0])
        assert record["clear_fraction"] == pytest.approx((~clouded)[seen].mean())
    assert len(set(store.location_id[rows])) == len(rows)
    for split, members in published.splits.items():
        assert set(store.select(split)) <= set(members)


def test_no_imported_tile_is_taken_for_a_cell(store: Store, rows: list[int]) -> None:
    for identifier in store.location_id[rows]:
        with pytest.raises(ValueError, match="not a location id"):
            grid.decode(identifier)


def test_a_tile_without_sentinel2_is_vacant_and_absences_are_explained(published: Published, store: Store) -> None:
    table = pq.read_table(store.path / "locations.parquet").to_pylist()
    assert (table[published.empty]["outcome"], table[published.empty]["reason"]) == ("vacant", "gaps")
    assert (store.status[published.empty] == 0).all()
    for row, name in enumerate(published.ids):
        if row == published.empty:
            continue
        record, facts = table[row], published.info[name]
        assert record["absent_cloud_score"] == "not_published"
        assert record["absent_sentinel2_scl"] == ("not_at_level" if facts["S2_type"] == "l1c" else "")
        radar = np.isfinite(published.pixels["sentinel1"][row]).any(axis=(1, 2))
        passes = [facts["BANDS"][f"sentinel1_{way}"] for way in ("asc", "desc")]
        assert record["absent_sentinel1"] == ("" if any(passes) else "no_pass")
        listed = {f"{way}_{b}" for way, found in zip(("asc", "desc"), passes, strict=True) for b in found or ()}
        assert {band for band, has in zip(RADAR, radar, strict=True) if has} == listed
        assert record["status_sentinel1"] == (3 if not any(passes) else 1 if all(passes) else 2)
    assert table[5]["absent_canopy_height_eth"] == "masked"


def test_the_store_is_whole_and_a_second_run_changes_nothing(published: Published, store: Store) -> None:
    assert verify(store.path) == []
    before = {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    import_published(published.folder, store.path, shard_rows=SHARD_ROWS)
    assert {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()} == before


def test_impossible_values_are_said(published: Published, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mmearth_data.convert"):
        import_published(published.folder, store.path, shard_rows=SHARD_ROWS)
    assert f"canopy_height_eth: {published.blended} impossible values became no-data" in caplog.text


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "data_x_splits.json").unlink(), "data_x_splits.json is missing"),
        (lambda f: (f / "data_x_tile_info.json").write_text('{"1": {}, '), "is no JSON object of tiles"),
        (lambda f: (f / "data_x_splits.json").write_text('{"train": [0, 900]}'), "names rows beyond"),
        (lambda f: (f / "data_x_splits.json").write_text('{"train": [0], "val": [0]}'), "names a row twice"),
        (lambda f: (f / "data_x.h5").write_bytes(b"no HDF5"), "cannot be read as HDF5"),
        (lambda f: _edit_h5(f, lambda file: file.__delitem__("aster")), "lacks the array 'aster'"),
        (lambda f: _edit_h5(f, lambda file: file["metadata"].__setitem__(0, ("a7", "l2a"))), "no whole number"),
        (lambda f: _edit_h5(f, lambda file: file["metadata"].__setitem__(1, file["metadata"][0])), "named twice"),
        (lambda f: _forget(f), "has no entry of tile"),
        (lambda f: _flip(f), "rows .* of sentinel2 in .* cannot be read"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tmp_path: Path, break_it: object, says: str) -> None:
    folder = write_published(tmp_path / "data_x", tiles=21, side=4).folder
    break_it(folder)  # type: ignore[operator]
    with pytest.raises(ConversionError, match=says) as error:
        import_published(folder, tmp_path / "store")
    assert "\n" not in str(error.value)


def _edit_h5(folder: Path, edit: object) -> None:
    with h5py.File(folder / "data_x.h5", "r+") as file:
        edit(file)  # type: ignore[operator]


def _flip(folder: Path) -> None:
    """Change bytes in the middle of one compressed tile."""
    with h5py.File(folder / "data_x.h5") as data:
        chunk = data["sentinel2"].id.get_chunk_info(7)
    with (folder / "data_x.h5").open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(b"\x00" * 16)


def _forget(folder: Path) -> None:
    file = folder / "data_x_tile_info.json"
    entries = json.loads(file.read_text())
    with h5py.File(folder / "data_x.h5") as data:
        del entries[data["metadata"][4][0].decode()]
    file.write_text(json.dumps(entries))


def test_another_source_into_the_same_store_is_refused(tmp_path: Path) -> None:
    first, second = (write_published(tmp_path / name, tiles=21, side=4, seed=at).folder for at, name in enumerate("ab"))
    import_published(first, tmp_path / "store", shard_rows=32)
    with pytest.raises(ConversionError, match="another source"):
        import_published(second, tmp_path / "store", shard_rows=32)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(ConversionError, match=r"holds 'thesis\.tex'"):
        import_published(first, tmp_path / "full", shard_rows=32)
