"""Statistics against numpy over the whole arrays at once."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mmearth_data import statistics
from mmearth_data.modalities import MODALITIES, STORED, Modality, UnknownModalityError
from mmearth_data.store import layout, open_store
from mmearth_data.store import statistics as store_statistics
from mmearth_data.store.shards import commit_shard
from tests.synthetic import ShardMaker, make_store


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("statistics") / "s", rows=112, tile_pixels=16, shard_rows=56, seed=2)


@pytest.fixture(scope="module")
def raw(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, mask_and_scale=False, decode_times=False).load()


def _rows(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Rows that count, per group, from the table alone."""
    table = pq.read_table(path / "locations.parquet").to_pandas()
    counted = (table["split"] == "train") & (table["status_sentinel2"] == 1)
    levels = {level: (counted & (table["level"] == level)).to_numpy() for level in ("L1C", "L2A")}
    return {**levels, "all": counted.to_numpy()}


def _groups(modality: Modality) -> tuple[str, ...]:
    return ("L1C", "L2A") if modality.name == "sentinel2" else ("all",)


def test_numbers_are_those_of_brute_force(path: Path, raw: xr.Dataset) -> None:
    rows, found = _rows(path), open_store(path).statistics
    assert found.rows == rows["all"].sum()
    assert 0 < found.rows < 100
    for modality in STORED:
        if modality.kind == "categorical":
            continue
        assert set(found.modalities[modality.name]) == set(_groups(modality))
        for group in _groups(modality):
            ours = found.get(modality.name, group)
            assert ours.bands == modality.bands
            for band in range(len(modality.bands)):
                values = raw[modality.name].values[rows[group], band].astype(np.float64)
                values = values[~np.isnan(values) & (values != modality.nodata)]
                assert ours.count[band] == values.size
                if not values.size:
                    assert (modality.name, group, modality.bands[band]) == ("sentinel2", "L2A", "B10")
                    assert np.isnan([ours.mean[band], ours.std[band], ours.min[band], ours.max[band]]).all()
                    continue
                expected = [values.mean(), values.std(), values.min(), values.max()]
                actual = [ours.mean[band], ours.std[band], ours.min[band], ours.max[band]]
                np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


def test_class_counts_are_those_of_brute_force(path: Path, raw: xr.Dataset) -> None:
    rows, found = _rows(path), open_store(path).statistics
    for modality in STORED:
        if modality.kind != "categorical":
            assert not found.get(modality.name, _groups(modality)[0]).class_values.size
            continue
        ours, values = found.get(modality.name), raw[modality.name].values[rows["all"]]
        np.testing.assert_array_equal(ours.class_values, [value for value, _ in modality.classes])
        np.testing.assert_array_equal(ours.class_counts, [(values == value).sum() for value, _ in modality.classes])
        assert ours.class_counts.sum() == ours.count[0] == (values != modality.nodata).sum() > 0
        assert np.isnan(ours.mean).all(), "class ids are names, not numbers"


def test_rows_outside_the_train_split_do_not_count(path: Path, raw: xr.Dataset) -> None:
    rows = _rows(path)["all"]
    assert (raw["split"].values[rows] == 0).all()
    everything = raw["esa_worldcover"].values
    counted = open_store(path).statistics.get("esa_worldcover").count[0]
    assert counted < (everything != 0).sum()


def test_derived_modalities_have_none_and_unknown_groups_are_named(path: Path) -> None:
    found = open_store(path).statistics
    assert set(found.modalities) == {modality.name for modality in STORED}
    with pytest.raises(UnknownModalityError, match="no statistics of 'month'"):
        found.get("month")
    with pytest.raises(KeyError, match="L1C, L2A, not 'all'"):
        found.get("sentinel2")


def test_the_file_keeps_every_digit_and_the_same_store_gives_the_same_bytes(path: Path) -> None:
    before = (path / "statistics.json").read_bytes()
    loaded = store_statistics.load(path)
    computed = statistics.compute(path)
    store_statistics.save(path, computed)
    assert (path / "statistics.json").read_bytes() == before
    for name, groups in computed.modalities.items():
        for group, ours in groups.items():
            for fact in ("count", "mean", "std", "min", "max", "class_values", "class_counts"):
                np.testing.assert_array_equal(getattr(loaded.get(name, group), fact), getattr(ours, fact))
    assert json.loads(before)["units"] == "stored"


def test_picking_bands_goes_by_name(path: Path) -> None:
    found = open_store(path).statistics.get("sentinel2", "L1C")
    mean, std = found.of_bands(("B12", "B1"))
    bands = MODALITIES["sentinel2"].bands
    assert list(mean) == [found.mean[bands.index("B12")], found.mean[bands.index("B1")]]
    assert list(std) == [found.std[bands.index("B12")], found.std[bands.index("B1")]]


def test_progress_counts_up_to_the_total(path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    statistics.finalize(path, lambda *step: seen.append(step))
    assert seen[0] == ("consolidation", 1, 1)
    total = seen[-1][2]
    assert seen[1:] == [("statistics", done, total) for done in range(1, total + 1)]


def test_a_store_without_training_rows_has_empty_statistics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, maker = tmp_path / "s", ShardMaker(4, 16, seed=0)
    maker.split[:] = 1
    layout.create(path, tile_pixels=16, shard_rows=4, attrs={})
    layout.resize(path, 4)
    commit_shard(path, 0, maker.shard(0, 4))
    statistics.finalize(path)
    store = open_store(path)
    assert "no complete row in its train split" in caplog.text
    assert store.statistics.rows == 0
    assert not store.statistics.get("aster").count.any()
    assert np.isnan(store.statistics.get("aster").mean).all()


@given(
    st.lists(st.lists(st.integers(-30000, 30000), min_size=1, max_size=8), min_size=1, max_size=6),
)
def test_merging_runs_is_exact_to_rounding_however_they_are_cut(runs: list[list[int]]) -> None:
    modality = MODALITIES["aster"]
    total = statistics._Moments.none(modality)
    for run in runs:
        tiles = np.array(run, dtype=np.int16).reshape(1, 1, 1, -1).repeat(2, axis=1)
        total.add(statistics._Moments.of(modality, tiles))
    result = total.finish(modality)
    values = [Fraction(value) for run in runs for value in run]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    assert result.count.tolist() == [len(values)] * 2
    np.testing.assert_allclose(result.mean, float(mean), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(result.std**2, float(variance), rtol=1e-11, atol=1e-9)
    assert result.min.tolist() == [min(values)] * 2
    assert result.max.tolist() == [max(values)] * 2


def test_a_small_spread_on_a_large_mean_is_not_lost() -> None:
    # A sum of squares in float64 would lose it: (2^30)² takes 61 bits, of which 53 are kept.
    modality, rng = MODALITIES["era5"], np.random.default_rng(0)
    values = rng.integers(0, 3, size=(64, 12)) * 128 + 2.0**30
    total = statistics._Moments.none(modality)
    for run in np.split(values.astype(np.float32), 8):
        total.add(statistics._Moments.of(modality, run))
    np.testing.assert_allclose(total.finish(modality).std, (values - 2.0**30).std(axis=0), rtol=1e-9)
