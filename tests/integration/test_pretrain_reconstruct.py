"""Reconstructions show the store's own pixels, and predictions where and only where pixels were hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_data.store import Store, open_store
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.config import PretrainConfig
from mmearth_train.pretrain import pretrain
from mmearth_train.reconstruct import reconstruct
from tests.synthetic import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_store(tmp_path_factory.mktemp("store") / "store", rows=28, tile_pixels=64, shard_rows=28))


@pytest.fixture(scope="module")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    recipe = {"preset": "demo", "epochs": 6, "batch_size": 6, "validate_every": 6}
    pretrain(PretrainConfig(store.path, out, pretext="pixel,biome", threads=1, **recipe))
    return out


@pytest.fixture(scope="module")
def rows(store: Store) -> NDArray[np.int64]:
    return store.select("train")[[5, 2, 9]]


def test_targets_are_the_stored_values_of_the_central_crop(store: Store, run: Path, rows: NDArray[np.int64]) -> None:
    found = reconstruct(run, store, rows)
    assert found["rows"].tolist() == sorted(rows.tolist())
    for name in ("sentinel2", "sentinel1", "aster", "canopy_height_eth", "dynamic_world", "esa_worldcover"):
        modality = MODALITIES[name]
        bands = [modality.bands.index(b) for b in (MODEL_INPUT_BANDS if name == "sentinel2" else modality.bands)]
        for i, row in enumerate(found["rows"].tolist()):
            stored = store.read(name, row, row + 1)[0][bands, 4:60, 4:60].astype(np.float32)
            stored[stored == modality.nodata] = np.nan
            np.testing.assert_array_equal(found[f"{name}.target"][i], stored)


def test_predictions_cover_what_was_hidden(store: Store, run: Path, rows: NDArray[np.int64]) -> None:
    found = reconstruct(run, store, rows)
    hidden = found["hidden"]
    assert hidden.mean(axis=(1, 2)).tolist() == [30 / 49] * 3
    predictions = [name for name in found if name.endswith(".prediction")]
    assert len(predictions) == 6
    for name in predictions:
        assert np.array_equal(np.isfinite(found[name]).all(axis=1), hidden)
        assert np.array_equal(np.isnan(found[name]).all(axis=1), ~hidden)
    seen = np.broadcast_to(~hidden[:, None], found["sentinel2.input"].shape)
    np.testing.assert_array_equal(found["sentinel2.input"][seen], found["sentinel2.target"][seen])
    assert np.isnan(found["sentinel2.input"][~seen]).all()


def test_predictions_are_in_stored_units(store: Store, run: Path, rows: NDArray[np.int64]) -> None:
    """After a few epochs a prediction is no worse than the mean of the store, which no other unit would be."""
    found = reconstruct(run, store, rows)
    hidden = found["hidden"]
    for name, band in (("sentinel2", 3), ("aster", 0), ("canopy_height_eth", 0)):
        target, prediction = (
            found[f"{name}.{part}"][:, band][hidden].astype(float) for part in ("target", "prediction")
        )
        known = np.isfinite(target)
        assert known.any()
        error = np.sqrt(np.mean((target - prediction)[known] ** 2))
        assert error < 1.5 * max(np.std(target[known]), 1)
    classes = np.unique(found["esa_worldcover.prediction"][:, 0][hidden])
    assert set(classes) <= set(MODALITIES["esa_worldcover"].class_values)


def test_a_folder_without_checkpoint_is_refused(store: Store, tmp_path: Path, rows: NDArray[np.int64]) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint; pretrain into it first"):
        reconstruct(tmp_path, store, rows)
