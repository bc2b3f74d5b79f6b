"""What plain xarray sees of a store, without any of our code."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr

from mmearth_data.modalities import BIOME_NAMES, MODALITIES, STORED
from mmearth_data.store import open_store
from tests.synthetic import make_store

ROWS, PIXELS = 112, 16


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = make_store(tmp_path_factory.mktemp("store") / "s", rows=ROWS, tile_pixels=PIXELS, shard_rows=56)
    for name in ("_plan", "_quarantine"):
        (store / name).mkdir()
        (store / name / "something.bin").write_bytes(b"\0" * 100)
    return store


@pytest.fixture(scope="module")
def dataset(path: Path) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(path).load()


@pytest.fixture(scope="module")
def raw(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, mask_and_scale=False, decode_times=False).load()


@pytest.fixture(scope="module")
def table(path: Path) -> pd.DataFrame:
    return pq.read_table(path / "locations.parquet").to_pandas()


def test_every_modality_has_its_dimensions_and_band_names(dataset: xr.Dataset) -> None:
    for modality in STORED:
        array = dataset[modality.name]
        pixels = ("y", "x") if modality.scope == "pixel" else ()
        assert array.dims == ("location", f"{modality.name}_band", *pixels)
        assert list(dataset[f"{modality.name}_band"].values) == list(modality.bands)
    assert list(dataset["modality"].values) == [modality.name for modality in STORED]
    assert "lat" not in dataset.data_vars
    assert {"location_id", "lon", "lat", "time", "sentinel2_wavelength"} <= set(dataset.coords)


def test_numbers_decode_to_physical_units_and_no_data_to_nan(dataset: xr.Dataset, raw: xr.Dataset) -> None:
    for name, factor in (("sentinel2", 1e-4), ("sentinel1", 1e-2), ("cloud_score", 1e-2), ("aster", 1.0)):
        stored = raw[name].values
        expected = np.where(stored == MODALITIES[name].nodata, np.nan, stored * factor)
        np.testing.assert_allclose(dataset[name].values, expected, rtol=1e-6)
        assert np.isnan(dataset[name].values).any(), "the comparison must see no-data"
        assert np.isfinite(dataset[name].values).any()
    np.testing.assert_array_equal(dataset["era5"].values, raw["era5"].values)


def test_classes_stay_integers_with_their_meanings(dataset: xr.Dataset) -> None:
    for name in ("dynamic_world", "esa_worldcover", "sentinel2_scl", "biome", "eco_region"):
        array, modality = dataset[name], MODALITIES[name]
        assert array.dtype == modality.numpy_dtype
        assert "_FillValue" not in array.attrs
        assert "_FillValue" not in array.encoding
        values, meanings = array.attrs["flag_values"], array.attrs["flag_meanings"].split()
        assert len(values) == len(meanings) == len(modality.classes) + 1
        assert values[-1] == modality.nodata
        assert meanings[-1] == "no_data"
        assert set(np.unique(array.values)) <= set(values)
    biomes = dict(
        zip(dataset["biome"].attrs["flag_values"], dataset["biome"].attrs["flag_meanings"].split(), strict=True)
    )
    assert biomes[BIOME_NAMES.index("Boreal Forests/Taiga")] == "Boreal_Forests_Taiga"


def test_times_decode_to_what_the_table_says(dataset: xr.Dataset, table: pd.DataFrame) -> None:
    expected = pd.to_datetime(table["time"], unit="ms")
    assert expected.isna().any()
    np.testing.assert_array_equal(dataset["time"].values, expected.to_numpy())
    stored = (table["outcome"] == "stored").to_numpy()
    np.testing.assert_array_equal(dataset["time"].dt.year.values[stored], table["year"][stored])


def test_per_row_arrays_are_the_table_in_numbers(dataset: xr.Dataset, table: pd.DataFrame) -> None:
    assert list(table["row"]) == list(range(ROWS))
    stored = (table["outcome"] == "stored").to_numpy()
    for name in ("location_id", "lon", "lat", "epsg", "x0", "y0", "year"):
        np.testing.assert_array_equal(dataset[name].values, table[name])
    for name, words in (("level", ["L1C", "L2A"]), ("split", ["train", "val", "test"])):
        meanings = dict(
            zip(dataset[name].attrs["flag_values"], dataset[name].attrs["flag_meanings"].split(), strict=True)
        )
        assert [meanings[value] for value in dataset[name].values[stored]] == list(table[name][stored])
        assert set(dataset[name].values[~stored]) == {255}
        assert set(table[name][stored]) == set(words)


def test_valid_fractions_and_status_follow_from_the_pixels(dataset: xr.Dataset, raw: xr.Dataset) -> None:
    for modality in STORED:
        stored = raw[modality.name].values
        valid = ~np.isnan(stored) if modality.dtype == "float32" else stored != modality.nodata
        fraction = valid.reshape(*stored.shape[:2], -1).mean(axis=2)
        np.testing.assert_allclose(dataset[f"valid_fraction_{modality.name}"].values, fraction, rtol=1e-6)
        status = dataset["status"].sel(modality=modality.name).values
        np.testing.assert_array_equal(np.isin(status, (1, 2)), fraction.any(axis=1))
    assert dataset["status"].attrs["flag_meanings"] == "vacant complete partial absent"


def test_our_reader_and_xarray_see_the_same(path: Path, raw: xr.Dataset) -> None:
    store = open_store(path)
    for name in store.modalities:
        np.testing.assert_array_equal(store.read(name, 50, 70), raw[name].values[50:70])
    for name in ("location_id", "lon", "lat", "time", "year", "level", "split", "status"):
        np.testing.assert_array_equal(getattr(store, name), raw[name].values)
    stored = store.split != 255
    np.testing.assert_array_equal(store.biome[stored], raw["biome"].values[stored, 0])
    np.testing.assert_array_equal(store.eco_region[stored], raw["eco_region"].values[stored, 0])


def test_selecting_a_split_gives_rows_with_complete_sentinel2(path: Path, raw: xr.Dataset) -> None:
    store = open_store(path)
    complete = raw["status"].sel(modality="sentinel2").values == 1
    np.testing.assert_array_equal(store.select(), np.flatnonzero(complete))
    for index, split in enumerate(("train", "val", "test")):
        chosen = np.flatnonzero(complete & (raw["split"].values == index))
        assert len(chosen)
        np.testing.assert_array_equal(store.select(split), chosen)
