"""What a store is exported as is read by others: h5py by the published layout's rules, plain tarfile, TorchGeo."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mmearth_data import statistics
from mmearth_data.convert.from_published import import_published
from mmearth_data.convert.journal import ConversionError
from mmearth_data.convert.to_published import FileReport, export_published
from mmearth_data.convert.to_webdataset import TarReport, export_webdataset
from mmearth_data.modalities import STORED
from mmearth_data.store import Store, layout, open_store
from mmearth_data.store.rows import row_table
from mmearth_data.store.shards import ShardData, commit_shard, no_data
from tests.published import FLAT, LAYOUT
from tests.synthetic import ShardMaker, make_store

SIDE = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_store(tmp_path_factory.mktemp("store") / "store", rows=84, tile_pixels=SIDE, shard_rows=28))


@pytest.fixture(scope="module")
def table(store: Store) -> list[dict[str, Any]]:
    """The lines of the row table that hold a tile, in the order in which rows are exported."""
    lines: list[dict[str, Any]] = pq.read_table(store.path / "locations.parquet").to_pylist()
    return [line for line in lines if line["outcome"] == "stored"]


@pytest.fixture(scope="module")
def rows(table: list[dict[str, Any]]) -> NDArray[np.int64]:
    return np.array([line["row"] for line in table])


@pytest.fixture(scope="module")
def exported(store: Store) -> FileReport:
    return export_published(store.path, store.path.parent / "data_1M_v001_64")


def _json(exported: FileReport, part: str) -> Any:
    return json.loads((exported.data.parent / f"data_1M_v001_64_{part}.json").read_text())


def test_arrays_have_the_published_names_dtypes_shapes_and_chunks(exported: FileReport, rows: NDArray[Any]) -> None:
    with h5py.File(exported.data) as file:
        assert set(file) == {*LAYOUT, "metadata"}
        for name, (dtype, width) in LAYOUT.items():
            shape = (width,) if name in FLAT else (width, SIDE, SIDE)
            assert (file[name].dtype, file[name].shape, file[name].chunks) == (dtype, (len(rows), *shape), (1, *shape))
            assert (file[name].compression, file[name].compression_opts) == ("gzip", 4)
        assert file["metadata"].dtype == np.dtype([("tile_id", "S100"), ("S2_type", "S10")])


def test_every_value_reads_as_the_layout_has_it(
    store: Store, exported: FileReport, rows: NDArray[Any], table: list[dict[str, Any]]
) -> None:
    own = {modality.name: store.read(modality.name, 0, store.rows)[rows].astype(np.float64) for modality in STORED}
    with h5py.File(exported.data) as file:
        there = {name: file[name][:] for name in LAYOUT}
    for name in ("sentinel2", "sentinel2_cloudmask", "sentinel2_scl", "dynamic_world", "era5"):
        np.testing.assert_array_equal(there[name], own[name], err_msg=name)
    radar = np.where(own["sentinel1"] == -32768, -np.inf, own["sentinel1"] / 100)
    np.testing.assert_allclose(there["sentinel1"], radar, rtol=1e-6)
    np.testing.assert_array_equal(
        there["sentinel2_cloudprod"], np.where(own["sentinel2_cloudprod"] == 255, 65535, own["sentinel2_cloudprod"])
    )
    np.testing.assert_array_equal(
        there["esa_worldcover"], np.where(own["esa_worldcover"] == 0, 255, own["esa_worldcover"])
    )
    np.testing.assert_array_equal(
        there["canopy_height_eth"], np.where(own["canopy_height_eth"] == 255, 127, own["canopy_height_eth"])
    )
    np.testing.assert_array_equal(there["aster"][:, 0], own["aster"][:, 0])
    np.testing.assert_array_equal(there["aster"][:, 1], own["aster"][:, 1] // 100)
    for name in ("biome", "eco_region"):
        assert (there[name].sum(axis=1) == 1).all()
        np.testing.assert_array_equal(there[name].argmax(axis=1), own[name][:, 0])
    lon = np.rad2deg(np.arctan2(there["lon"][:, 0], there["lon"][:, 1]))
    np.testing.assert_allclose(lon, [line["lon"] for line in table], atol=1e-4)
    month = np.rad2deg(np.arctan2(there["month"][:, 0], there["month"][:, 1])) / 30 % 12
    acquired = np.array([line["time"] for line in table]).astype("M8[ms]").astype("M8[M]").astype(int)
    np.testing.assert_array_equal(np.rint(month) % 12, (acquired + 1) % 12)


def test_tables_say_what_a_reader_of_the_layout_asks(
    exported: FileReport, rows: NDArray[Any], table: list[dict[str, Any]]
) -> None:
    info, splits = _json(exported, "tile_info"), _json(exported, "splits")
    with h5py.File(exported.data) as file:
        names = [(entry[0].decode(), entry[1].decode()) for entry in file["metadata"]]
        radar = np.isfinite(file["sentinel1"][:]).any(axis=(2, 3))
    assert len(info) == len(rows)
    for at, (line, (name, level)) in enumerate(zip(table, names, strict=True)):
        facts = info[name]
        assert (facts["S2_type"], level) == (line["level"].lower(),) * 2
        assert (facts["lat"], facts["lon"], facts["CRS"]) == (line["lat"], line["lon"], f"EPSG:{line['epsg']}")
        assert facts["S2_DATE"] == str(np.datetime64(line["time"], "ms").astype("M8[D]"))
        for way, first in (("asc", 0), ("desc", 4)):
            seen = [
                band for band, has in zip(("VV", "VH", "HH", "HV"), radar[at, first : first + 4], strict=True) if has
            ]
            assert facts["BANDS"][f"sentinel1_{way}"] == (seen or None)
    for split in ("train", "val", "test"):
        assert splits[split] == [at for at, line in enumerate(table) if line["split"] == split]


def test_band_statistics_are_those_of_the_values_in_the_file(exported: FileReport) -> None:
    stats, train = _json(exported, "band_stats"), _json(exported, "splits")["train"]
    with h5py.File(exported.data) as file:
        levels = file["metadata"]["S2_type"][train]
        for name, missing in (("sentinel2", 0), ("sentinel1", -np.inf), ("canopy_height_eth", 127), ("era5", np.nan)):
            for suffix in ("_l1c", "_l2a") if name == "sentinel2" else ("",):
                values = file[name][:][train].astype(np.float64)
                if suffix:
                    values = values[levels == suffix[1:].encode()]
                values[(values == missing) | np.isneginf(values)] = np.nan
                flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
                known = ~np.isnan(flat).all(axis=1)
                for key, expected in (("mean", np.nanmean), ("std", np.nanstd), ("min", np.nanmin), ("max", np.nanmax)):
                    found = np.array(stats[name + suffix][key])
                    np.testing.assert_allclose(found[known], expected(flat[known], axis=1), rtol=1e-9)
                    assert np.isnan(found[~known]).all()
    assert np.isnan(stats["sentinel2_l2a"]["mean"][10])
    assert {"sentinel2_cloudmask_l1c", "aster", "lat", "lon", "month"} <= set(stats)


def test_a_round_trip_loses_only_what_the_layout_has_no_place_for(
    store: Store, exported: FileReport, rows: NDArray[Any], table: list[dict[str, Any]], tmp_path: Path
) -> None:
    import_published(exported.data.parent, tmp_path / "back", shard_rows=28)
    back = open_store(tmp_path / "back")
    count = len(rows)
    for modality in STORED:
        before, after = store.read(modality.name, 0, store.rows)[rows], back.read(modality.name, 0, count)
        if modality.name == "cloud_score":
            assert (after == 255).all()
            continue
        if modality.name == "aster":
            before[:, 1] -= before[:, 1] % 100
        np.testing.assert_array_equal(after, before, err_msg=modality.name)
    again = pq.read_table(back.path / "locations.parquet").to_pylist()[:count]
    for old, new in zip(table, again, strict=True):
        lost = {"row", "absent_cloud_score", "status_cloud_score", "valid_fraction_cloud_score"}
        assert {k: v for k, v in new.items() if k not in lost} == {k: v for k, v in old.items() if k not in lost}
    export_published(back.path, tmp_path / "data_1M_v001_64")
    second = h5py.File(tmp_path / "data_1M_v001_64" / exported.data.name)
    with second, h5py.File(exported.data) as first:
        for name in first:
            np.testing.assert_array_equal(second[name][:], first[name][:], err_msg=name)


def _torchgeo() -> Any:
    """TorchGeo's data sets; skips where it, or the torchvision that it imports, is not there or does not load."""
    try:
        from torchgeo import datasets
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchgeo does not load here: {error}")
    return datasets


def test_torchgeo_reads_it(exported: FileReport, table: list[dict[str, Any]]) -> None:
    datasets = _torchgeo()
    dataset = datasets.MMEarth(root=exported.data.parent.parent, subset="MMEarth64")
    train = [line for line in table if line["split"] == "train"]
    assert len(dataset) == len(train)
    for at in (0, len(train) - 1):
        sample = dataset[at]
        assert sample["tile_id"] == str(train[at]["location_id"])
        assert sample["image_sentinel2"].shape == (13, SIDE, SIDE)
        assert set(np.unique(sample["mask_esa_worldcover"])) <= {*range(11), 255}


@pytest.fixture(scope="module")
def tars(store: Store) -> tuple[Path, TarReport]:
    out = store.path.parent / "tars"
    return out, export_webdataset(store.path, out)


def test_plain_tarfile_reads_every_sample(
    store: Store, tars: tuple[Path, TarReport], table: list[dict[str, Any]]
) -> None:
    out, report = tars
    found: dict[int, dict[str, bytes]] = {}
    order: dict[str, list[str]] = {}
    for file in sorted(out.glob("*.tar")):
        with tarfile.open(file) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                order.setdefault(file.name, []).append(key)
                content = tar.extractfile(member)
                assert content is not None
                found.setdefault(int(key), {})[extension] = content.read()
                if extension == "json":
                    assert json.loads(found[int(key)]["json"]).get("split", "none") == file.name.split("-")[0]
    assert sorted(found) == [line["row"] for line in table]
    for keys in order.values():
        assert keys == sorted(keys), "the members of a sample must be neighbours"
    own = {modality.name: store.read(modality.name, 0, store.rows) for modality in STORED}
    for line in table:
        sample = found[line["row"]]
        assert set(sample) == {"json", *(f"{modality.name}.npy" for modality in STORED)}
        for modality in STORED:
            array = np.load(io.BytesIO(sample[f"{modality.name}.npy"]))
            assert array.dtype == modality.dtype
            np.testing.assert_array_equal(array, own[modality.name][line["row"]])
        facts = json.loads(sample["json"])
        for name in ("location_id", "lon", "lat", "epsg", "x0", "y0", "time", "level", "sentinel2_id"):
            assert facts[name] == line[name]
        assert facts["status"]["sentinel1"] == ("", "complete", "partial", "absent")[line["status_sentinel1"]]
    assert sum(report.samples.values()) == len(table)


def test_the_index_lists_the_tars_and_what_values_mean(tars: tuple[Path, TarReport]) -> None:
    out, _ = tars
    index = json.loads((out / "dataset.json").read_text())
    assert {tar["file"] for tar in index["tars"]} == {file.name for file in out.glob("*.tar")}
    for tar in index["tars"]:
        assert hashlib.sha256((out / tar["file"]).read_bytes()).hexdigest() == tar["sha256"]
    assert index["modalities"]["sentinel1"]["nodata"] == -32768
    assert index["modalities"]["era5"]["nodata"] is None
    assert index["modalities"]["esa_worldcover"]["classes"]["10"] == "Tree cover"


def test_a_changed_tar_is_noticed(store: Store, tmp_path: Path) -> None:
    export_webdataset(store.path, tmp_path)
    file = next(tmp_path.glob("train-*.tar"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConversionError, match=f"{file.name} is not what was written"):
        export_webdataset(store.path, tmp_path)


def test_a_store_that_lacks_a_shard_is_not_exported(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store", rows=28, tile_pixels=16, shard_rows=14)
    (path / "_commits" / "000001.json").unlink()
    for export in (export_published, export_webdataset):
        with pytest.raises(Exception, match=r"shard 1 of .* is not committed"):
            export(path, tmp_path / "out")


def _store_of(path: Path, vacant: set[int]) -> Path:
    """A store of two shards, all rows of the ``vacant`` ones vacant."""
    maker = ShardMaker(28, 16, seed=0)
    layout.create(path, tile_pixels=16, shard_rows=14, attrs={})
    layout.resize(path, 28)
    for shard in range(2):
        data = maker.shard(shard, 14)
        if shard in vacant:
            records = [{"row": 14 * shard + at} for at in range(14)]
            data = ShardData(no_data(16, 14), np.zeros_like(data.status), row_table(records))
        commit_shard(path, shard, data)
    statistics.finalize(path)
    return path


def test_a_shard_of_vacant_rows_adds_none(tmp_path: Path) -> None:
    report = export_published(_store_of(tmp_path / "store", {0}), tmp_path / "out")
    assert sum(report.rows.values()) == 14
    with h5py.File(report.data) as file:
        assert len(file["sentinel2"]) == len(file["metadata"]) == 14
    assert len(json.loads((tmp_path / "out" / "out_tile_info.json").read_bytes())) == 14


def test_a_store_without_a_tile_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="has no row with a tile; collect some"):
        export_published(_store_of(tmp_path / "store", {0, 1}), tmp_path / "out")
