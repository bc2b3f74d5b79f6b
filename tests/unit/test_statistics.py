"""Statistics against numpy over the whole arrays at once."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numba.core import caching

from mmearth_data import counting, statistics
from mmearth_data.counting import Counter, count_by_numpy, count_one_by_one
from mmearth_data.modalities import MODALITIES, STORED, Modality, UnknownModalityError
from mmearth_data.splits import SPLITS
from mmearth_data.store import StoreError, layout, open_store
from mmearth_data.store import statistics as store_statistics
from mmearth_data.store.rows import row_table
from mmearth_data.store.shards import ShardData, commit_shard
from mmearth_data.store.statistics import PERCENTILES
from mmearth_data.summary import FLOAT_ERROR, Summary, merge_floats, numbers, summarise_counts, summarise_floats
from tests.synthetic import ShardMaker, make_store


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("statistics") / "s", rows=112, tile_pixels=16, shard_rows=56, seed=2)


@pytest.fixture(scope="module")
def raw(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, mask_and_scale=False, decode_times=False).load()


def _rows(path: Path, split: str = "train") -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Rows that count, per group, from the table alone."""
    table = pq.read_table(path / "locations.parquet").to_pandas()
    counted = (table["split"] == split) & (table["status_sentinel2"] == 1)
    levels = {level: (counted & (table["level"] == level)).to_numpy() for level in ("L1C", "L2A")}
    return {**levels, "all": counted.to_numpy()}


def _groups(modality: Modality) -> tuple[str, ...]:
    return ("L1C", "L2A") if modality.name == "sentinel2" else ("all",)


@pytest.mark.parametrize("split", SPLITS)
def test_numbers_are_those_of_brute_force_in_every_split(path: Path, raw: xr.Dataset, split: str) -> None:
    rows, found = _rows(path, split), store_statistics.load(path, split)
    assert found.split == split
    assert found.rows == rows["all"].sum()
    assert (found.rows > 0) == (split != "held_out")
    compared = 0
    for modality in STORED:
        assert set(found.modalities[modality.name]) == set(_groups(modality))
        if modality.kind == "categorical":
            continue
        for group in _groups(modality):
            ours = found.get(modality.name, group)
            assert ours.bands == modality.bands
            for band in range(len(modality.bands)):
                every = raw[modality.name].values[rows[group], band].astype(np.float64)
                values = every[~np.isnan(every) & (every != modality.nodata)]
                assert ours.count[band] == values.size
                assert ours.no_data[band] == every.size - values.size
                actual = [ours.mean[band], ours.std[band], ours.min[band], ours.max[band]]
                histogram = ours.histograms[band]
                if not values.size:
                    assert np.isnan(actual).all()
                    assert np.isnan(ours.percentiles[band]).all()
                    assert histogram is None
                    continue
                compared += 1
                np.testing.assert_allclose(
                    actual, [values.mean(), values.std(), values.min(), values.max()], rtol=1e-11, atol=1e-12
                )
                expected = np.percentile(values, PERCENTILES, method="inverted_cdf")
                error = FLOAT_ERROR if modality.dtype == "float32" else 0.0
                np.testing.assert_allclose(ours.percentiles[band], expected, rtol=error, atol=0)
                assert histogram is not None
                assert histogram.counts.sum() == values.size
                if modality.dtype != "float32":
                    edges = histogram.start + histogram.width * np.arange(len(histogram.counts) + 1)
                    assert edges[-1] > values.max()
                    np.testing.assert_array_equal(histogram.counts, np.histogram(values, edges)[0])
    assert (compared > 30) == (split != "held_out"), "the comparison must see data"


def test_bands_that_a_level_does_not_have_have_no_value(path: Path) -> None:
    found, band = open_store(path).statistics, MODALITIES["sentinel2"].bands.index("B10")
    assert found.get("sentinel2", "L2A").count[band] == 0
    assert found.get("sentinel2", "L2A").no_data[band] == found.get("sentinel2", "L2A").count[0]
    assert found.get("sentinel2", "L1C").count[band] > 0


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


def test_rows_of_no_split_count_nowhere(tmp_path: Path) -> None:
    path, maker = tmp_path / "s", ShardMaker(28, 16, seed=0)
    layout.create(path, tile_pixels=16, shard_rows=28, attrs={})
    layout.resize(path, 28)
    data = maker.shard(0, 28)
    records = [record | {"split": None if at % 3 else "val"} for at, record in enumerate(data.table.to_pylist())]
    commit_shard(path, 0, ShardData(data.arrays, data.status, row_table(records)))
    found = statistics.finalize(path)
    assert {split: found[split].rows for split in SPLITS if found[split].rows} == {"val": 10}
    assert found["val"].get("esa_worldcover").count[0] == 10 * 256
    for split in set(SPLITS) - {"val"}:
        assert not found[split].get("esa_worldcover").count.any()
    with pytest.raises(IndexError, match="parts of aster end at 0, not 1"):
        Counter({"aster": 1}).add(MODALITIES["aster"], data.arrays["aster"], np.ones(28, dtype=np.int64))


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
    store_statistics.save(path, *computed.values())
    assert (path / "statistics.json").read_bytes() == before
    for name, groups in computed["train"].modalities.items():
        for group, ours in groups.items():
            kept = loaded.get(name, group)
            for fact in (
                "count",
                "no_data",
                "mean",
                "std",
                "min",
                "max",
                "percentiles",
                "class_values",
                "class_counts",
            ):
                np.testing.assert_array_equal(getattr(kept, fact), getattr(ours, fact))
            for mine, theirs in zip(kept.histograms, ours.histograms, strict=True):
                assert (mine is None) == (theirs is None)
                if mine is not None and theirs is not None:
                    assert (mine.start, mine.width, *mine.counts) == (theirs.start, theirs.width, *theirs.counts)
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


def test_a_changed_digit_is_not_taken_for_a_statistic(tmp_path: Path, path: Path) -> None:
    (tmp_path / "s").mkdir()
    file, content = tmp_path / "s" / "statistics.json", (path / "statistics.json").read_text()
    file.write_text(content)
    assert store_statistics.load(tmp_path / "s").rows > 0
    at = content.index('"mean"')
    digit = next(i for i in range(at, len(content)) if content[i] in "12345678")
    file.write_text(content[:digit] + "9" + content[digit + 1 :])
    with pytest.raises(StoreError, match=r"statistics.json is damaged \(its SHA-256 .*mmearth finalize"):
        store_statistics.load(tmp_path / "s")


def test_statistics_do_not_depend_on_how_many_threads_compute_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (path / "statistics.json").read_bytes()
    for threads in (1, 5):
        monkeypatch.setattr(statistics, "_THREADS", threads)
        store_statistics.save(path, *statistics.compute(path).values())
        assert (path / "statistics.json").read_bytes() == before


def _counted(modality: Modality, runs: list[list[int]]) -> Summary:
    """The summary of the first band of runs of rows, each counted by itself."""
    counter = Counter({modality.name: 1})
    for run in runs:
        tiles = np.full((len(run), len(modality.bands)), modality.nodata, dtype=modality.numpy_dtype)
        tiles[:, 0] = run
        counter.add(modality, tiles, np.zeros(len(run), dtype=np.int64))
    return summarise_counts(modality, counter.counts(modality, 0)[0])


@pytest.mark.parametrize("name", ["aster", "sentinel2", "canopy_height_eth"])
@given(st.data())
def test_integers_are_exact_however_they_are_cut(name: str, data: st.DataObject) -> None:
    modality = MODALITIES[name]
    limits = np.iinfo(modality.dtype)
    value = st.integers(int(limits.min), int(limits.max))
    runs = data.draw(st.lists(st.lists(value, min_size=1, max_size=8), min_size=1, max_size=6))
    counted = _counted(modality, runs)
    values = [value for run in runs for value in run if value != modality.nodata]
    assert counted.count == len(values)
    assert counted.no_data == sum(map(len, runs)) - len(values)
    result = numbers(modality, counted)
    if not values:
        assert np.isnan(result.mean)
        return
    mean = Fraction(sum(values), len(values))
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    assert result.mean == float(mean)
    np.testing.assert_allclose(result.std**2, float(variance), rtol=1e-12, atol=1e-12)
    assert (result.min, result.max) == (min(values), max(values))
    expected = np.percentile(values, PERCENTILES, method="inverted_cdf")
    np.testing.assert_array_equal(result.percentiles, expected)


@pytest.mark.parametrize("count", [count_one_by_one, counting._counting(), count_by_numpy])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_pixels_are_counted_in_their_rows_parts_by_compiled_code_and_by_numpy(count: Any, dtype: str) -> None:
    """Runs of one value, which are counted at once, begin and end within blocks, and pixels fill no whole block."""
    rng, bands, pixels = np.random.default_rng(3), 2, 331
    values = rng.integers(0, np.iinfo(dtype).max, (12, bands, pixels), endpoint=True).astype(dtype)
    values[2, 0, 30:280] = 7
    values[3] = np.iinfo(dtype).max
    values[4, 1, :64], values[4, 1, 63] = 9, 8
    part = np.array([0, 2, 1, 1, -1, 0, 2, 2, -1, 0, 0, 1])
    tables = rng.integers(0, 5, (3, bands, np.iinfo(dtype).max + 1))
    expected = tables.copy()
    for row, number in enumerate(part):
        for band in range(bands if number >= 0 else 0):
            np.add.at(expected[number, band], values[row, band], 1)
    count(values, part, tables)
    np.testing.assert_array_equal(tables, expected)


@pytest.mark.parametrize("broken", [False, True])
def test_a_machine_without_a_compiler_has_the_same_statistics(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Without numba, or with one that refuses the numpy that is there."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "mmearth_data.compiled", raising=False)
    if broken:
        monkeypatch.delitem(sys.modules, "numba")
        (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.0 or less')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
    counting._counting.cache_clear()
    assert counting._counting() is count_by_numpy
    before = (path / "statistics.json").read_bytes()
    store_statistics.save(path, *statistics.compute(path).values())
    counting._counting.cache_clear()
    assert (path / "statistics.json").read_bytes() == before


def test_pixels_are_counted_where_compiled_code_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that may not be written to, used by somebody who has no home."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    counting._counting.cache_clear()
    tables = np.zeros((1, 1, 256), dtype=np.int64)
    counting._counting()(np.full((1, 1, 3), 5, dtype=np.uint8), np.zeros(1, dtype=np.int64), tables)
    counting._counting.cache_clear()
    assert np.flatnonzero(tables).tolist() == [5]
    assert tables.sum() == 3


@given(
    st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=8),
        min_size=1,
        max_size=6,
    )
)
def test_floats_are_right_to_the_stated_error_however_they_are_cut(runs: list[list[float]]) -> None:
    modality = MODALITIES["era5"]
    merged = merge_floats([summarise_floats(np.array([*run, np.nan], dtype=np.float32)) for run in runs])
    values = np.array([value for run in runs for value in run])
    assert merged.no_data == len(runs)
    result = numbers(modality, merged)
    scale = np.abs(values).max()
    np.testing.assert_allclose(result.mean, values.mean(), rtol=1e-12, atol=1e-14 * scale)
    np.testing.assert_allclose(result.std, values.std(), rtol=1e-9, atol=1e-14 * scale)
    expected = np.percentile(values, PERCENTILES, method="inverted_cdf")
    np.testing.assert_allclose(result.percentiles, expected, rtol=FLOAT_ERROR, atol=1e-38)
    assert result.histogram is not None
    assert result.histogram.counts.sum() == len(values)


def test_a_small_spread_on_a_large_mean_is_not_lost() -> None:
    # A sum of squares in float64 would lose it: (2^30)² takes 61 bits, of which 53 are kept.
    values = np.random.default_rng(0).integers(0, 3, size=768) * 128 + 2.0**30
    runs = np.split(values.astype(np.float32), 8)
    result = numbers(MODALITIES["era5"], merge_floats([summarise_floats(run) for run in runs]))
    np.testing.assert_allclose(result.std, (values - 2.0**30).std(), rtol=1e-9)


def test_counts_beyond_32_bits_are_kept() -> None:
    modality, counts = MODALITIES["sentinel2"], np.zeros(1 << 16, dtype=np.int64)
    counts[[0, 1, 65535]] = 2**43, 3 * 2**36, 2**36
    found = summarise_counts(modality, counts)
    assert (found.count, found.no_data) == (2**38, 2**43)
    result = numbers(modality, found)
    assert result.mean == (3 * 1 + 65535) / 4
    assert list(result.percentiles) == [1] * 6 + [65535] * 3
