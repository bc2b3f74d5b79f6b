"""The map-style dataset gives every tile once, in physical units, under TorchGeo's keys."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from mmearth_data.modalities import MODALITIES, UnknownModalityError
from mmearth_data.store import open_store
from mmearth_train.dataset import MMEarthDataset, _classes
from tests.synthetic import make_store


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store", rows=84, tile_pixels=16, shard_rows=28)


def test_samples_are_the_rows_of_the_split_in_physical_units(path: Path) -> None:
    store = open_store(path)
    others = ("sentinel1", "dynamic_world", "era5", "biome", "eco_region", "canopy_height_eth")
    dataset = MMEarthDataset(path, "train", others=others)
    assert len(dataset) == len(store.select("train"))
    s2, radar = store.read("sentinel2", 0, 84), store.read("sentinel1", 0, 84)
    cover, era5 = store.read("esa_worldcover", 0, 84), store.read("era5", 0, 84)
    values = [value for value, _ in MODALITIES["esa_worldcover"].classes]
    for at in (0, 1, len(dataset) // 2, len(dataset) - 1, 0):
        sample, row = dataset[at], int(store.select("train")[at])
        expected = np.where(s2[row] == 0, np.nan, s2[row] / 10_000)
        np.testing.assert_allclose(sample["image"].numpy(), expected, rtol=1e-6)
        assert sample["image"].dtype == torch.float32
        decibel = np.where(radar[row] == -32768, np.nan, radar[row] / 100)
        np.testing.assert_allclose(sample["image_sentinel1"].numpy(), decibel, rtol=1e-6)
        indices = [[values.index(v) if v else 255 for v in line] for line in cover[row, 0]]
        assert sample["mask"].tolist() == indices
        assert sample["mask"].dtype == torch.int64
        np.testing.assert_array_equal(sample["era5"].numpy(), era5[row])
        assert (int(sample["biome"]), sample["location_id"]) == (store.biome[row], store.location_id[row])
        assert int(sample["eco_region"]) == store.eco_region[row]
        assert sample["mask_dynamic_world"].shape == (16, 16)


def test_a_value_that_is_no_class_is_no_data() -> None:
    cover = MODALITIES["esa_worldcover"]
    stored = np.array([[[10, 15, 0], [100, 255, 20]]], dtype=np.uint8)
    assert _classes(cover, stored, cover.valid(stored)).tolist() == [[0, 255, 255], [10, 255, 1]]


def test_samples_say_where_and_when_they_are(path: Path) -> None:
    dataset = MMEarthDataset(path, None)
    lines = {line["location_id"]: line for line in pq.read_table(path / "locations.parquet").to_pylist()}
    for at in range(0, len(dataset), 7):
        sample = dataset[at]
        line = lines[sample["location_id"]]
        left, right, step, bottom, top, _, start, stop, _ = sample["bounds"].tolist()
        assert (left, right, bottom, top) == (line["x0"], line["x0"] + 160, line["y0"] - 160, line["y0"])
        assert (step, start, stop) == (10, line["time"] / 1000, line["time"] / 1000)
        assert sample["crs"] == f"EPSG:{line['epsg']}"
        assert sample["transform"].tolist() == [10, 0, line["x0"], 0, -10, line["y0"]]
        assert (sample["lon"], sample["lat"], sample["level"]) == (line["lon"], line["lat"], line["level"])
        assert sample["date"] == str(np.datetime64(line["time"], "ms").astype("M8[D]"))


def test_an_unknown_origin_is_nan_and_not_zero(tmp_path: Path) -> None:
    from mmearth_data.convert.from_published import import_published
    from tests.published import write_published

    folder = write_published(tmp_path / "data_x", tiles=21, side=4).folder
    import_published(folder, tmp_path / "store", shard_rows=28)
    dataset = MMEarthDataset(tmp_path / "store", None)
    sample = dataset[0]
    assert torch.isnan(sample["bounds"][:6]).all()
    assert not torch.isnan(sample["bounds"][6:]).any()
    assert torch.isnan(sample["transform"][[2, 5]]).all()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_data_loader_give_the_same_samples(path: Path, context: str) -> None:
    dataset = MMEarthDataset(path, "train", transforms=_to_red)
    alone = torch.stack([dataset[at]["image"] for at in range(len(dataset))])
    workers = 1 if context == "spawn" else 2
    loader = DataLoader(dataset, batch_size=8, num_workers=workers, multiprocessing_context=context)
    batches = list(loader)
    together = torch.cat([batch["image"] for batch in batches])
    torch.testing.assert_close(together, alone, equal_nan=True, rtol=0, atol=0)
    assert batches[0]["bounds"].shape == (8, 9)
    assert len(batches[0]["crs"]) == 8
    assert len(pickle.loads(pickle.dumps(dataset))) == len(dataset)


def _to_red(sample: dict[str, object]) -> dict[str, object]:
    image = sample["image"]
    assert isinstance(image, torch.Tensor)
    return {**sample, "image": image[3]}


def test_what_cannot_be_asked_for_is_named(path: Path) -> None:
    with pytest.raises(UnknownModalityError, match="esa_worldcover is no continuous"):
        MMEarthDataset(path, image="esa_worldcover")
    with pytest.raises(UnknownModalityError, match="sentinel1 is no categorical"):
        MMEarthDataset(path, mask="sentinel1")
    with pytest.raises(UnknownModalityError, match="month is not stored"):
        MMEarthDataset(path, others=["month"])
    dataset = MMEarthDataset(path, mask=None)
    assert "mask" not in dataset[-1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]
