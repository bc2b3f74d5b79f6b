"""Batches: every row once, the same order however it is read, and crops that are pieces of the stored tiles."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_data.store import Store, StoreError, open_store
from mmearth_train.loader import Loader, cyclic, kernels, scalings
from mmearth_train.masking import below, draw
from mmearth_train.tasks import ClassIndex, Standardise
from tests.synthetic import make_store

NAMES = ("sentinel2", "esa_worldcover", "aster", "era5", "month")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("loader") / "store", rows=112, tile_pixels=64, shard_rows=28)


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return open_store(path)


def loader(store: Store, **options: object) -> Loader:
    defaults: dict[str, object] = {"batch_size": 10, "crop": 56, "seed": 3}
    return Loader(store, store.select("train"), NAMES, **{**defaults, **options})  # type: ignore[arg-type]


def ids(batches: list[dict[str, Tensor]]) -> list[int]:
    return torch.cat([batch["location_id"] for batch in batches]).tolist()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)


@pytest.mark.parametrize("window_rows", [1, 32, 1024])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_every_row_comes_once_in_each_epoch(store: Store, window_rows: int, memory_bytes: int) -> None:
    reader = loader(store, window_rows=window_rows, memory_bytes=memory_bytes)
    epochs = [ids(list(reader.epoch(epoch))) for epoch in range(2)]
    expected = sorted(store.location_id[store.select("train")].tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


def test_batches_differ_by_one_row_at_most(store: Store) -> None:
    reader = loader(store, batch_size=7)
    sizes = [len(batch["level"]) for batch in reader.epoch(0)]
    assert len(sizes) == reader.batches
    assert max(sizes) <= 7
    assert max(sizes) - min(sizes) <= 1


def test_an_epoch_can_be_entered_at_any_batch(store: Store) -> None:
    whole = list(loader(store).epoch(4))
    for first in (1, len(whole) - 1, len(whole)):
        rest = list(loader(store).epoch(4, first))
        assert len(rest) == len(whole) - first
        assert all(equal(a, b) for a, b in zip(whole[first:], rest, strict=True))


def test_a_sample_does_not_depend_on_its_batch_or_on_memory(store: Store) -> None:
    def samples(reader: Loader) -> dict[int, bytes]:
        return {
            int(batch["location_id"][i]): b"".join(batch[name][i].numpy().tobytes() for name in NAMES)
            for batch in reader.epoch(1)
            for i in range(len(batch["level"]))
        }

    assert samples(loader(store)) == samples(loader(store, batch_size=3, window_rows=28, memory_bytes=0))


def test_crops_are_pieces_of_the_tiles_shared_by_all_modalities(store: Store) -> None:
    row_of = {int(store.location_id[row]): int(row) for row in store.select("train")}
    places = set()
    for batch in loader(store).epoch(0):
        for i, location in enumerate(batch["location_id"].tolist()):
            tiles = {name: store.read(name, row_of[location], row_of[location] + 1)[0] for name in NAMES[:3]}
            fits = [
                (y, x, v, h)
                for y, x, v, h in itertools.product(range(9), range(9), (1, -1), (1, -1))
                if all(
                    np.array_equal(batch[name][i].numpy(), tile[:, y : y + 56, x : x + 56][:, ::v, ::h])
                    for name, tile in tiles.items()
                )
            ]
            assert len(fits) == 1
            places.add(fits[0])
    assert len(places) > 20


def test_without_augmentation_crops_are_central_and_in_store_order(store: Store) -> None:
    rows = store.select("val")
    reader = Loader(store, rows, ("aster",), batch_size=4, crop=56, seed=0, augment=False)
    batches = list(reader.epoch(0))
    assert ids(batches) == store.location_id[rows].tolist()
    tiles = np.concatenate([store.read("aster", row, row + 1) for row in rows.tolist()])
    assert np.array_equal(np.concatenate([b["aster"].numpy() for b in batches]), tiles[..., 4:60, 4:60])


def test_values_keep_their_stored_dtype(store: Store) -> None:
    batch = next(loader(store).epoch(0))
    assert {name: batch[name].dtype for name in NAMES} == {
        "sentinel2": torch.uint16,
        "esa_worldcover": torch.uint8,
        "aster": torch.int16,
        "era5": torch.float32,
        "month": torch.float32,
    }
    assert batch["sentinel2"].shape[1:] == (13, 56, 56)
    assert batch["era5"].shape[1:] == (12,)


def test_a_damaged_store_is_an_error_of_the_consumer(tmp_path: Path) -> None:
    damaged = make_store(tmp_path / "store", rows=28, tile_pixels=64, shard_rows=28)
    store = open_store(damaged)
    next(file for file in (damaged / "aster" / "c").rglob("*") if file.is_file()).write_bytes(b"")
    with pytest.raises(StoreError, match="torn"):
        list(loader(store).epoch(0))


@given(st.floats(-180, 180), st.floats(-90, 90), st.integers(1, 12), st.integers(1, 28))
def test_place_and_month_are_angles(lon: float, lat: float, month: int, day: int) -> None:
    time = np.array([np.datetime64(f"2019-{month:02d}-{day:02d}T10:00", "ms").astype(np.int64)])
    place = {"lon": np.deg2rad(lon), "lat": np.deg2rad(lat), "month": 2 * np.pi * (month - 1) / 12}
    for name, angle in place.items():
        found = cyclic(name, np.array([lon]), np.array([lat]), time)
        np.testing.assert_allclose(found, [[np.sin(angle), np.cos(angle)]], atol=1e-6)


def test_an_unknown_time_has_no_month() -> None:
    assert np.isnan(cyclic("month", np.zeros(1), np.zeros(1), np.array([np.iinfo(np.int64).min]))).all()


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("augment", [True, False])
def test_processes_together_deliver_the_batches_of_one(store: Store, world: int, augment: bool) -> None:
    whole = list(loader(store, augment=augment).epoch(2))
    shares = [list(loader(store, augment=augment, rank=r, world=world).epoch(2)) for r in range(world)]
    for batch, *parts in zip(whole, *shares, strict=True):
        sizes = [len(part["level"]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert equal({name: torch.cat([part[name] for part in parts]) for name in batch}, batch)


def test_an_epoch_is_the_same_whichever_came_before(store: Store) -> None:
    reader = loader(store)
    for epoch in (0, 1, 3, 4, 0):
        found, alone = list(reader.epoch(epoch)), list(loader(store).epoch(epoch))
        assert all(equal(a, b) for a, b in zip(found, alone, strict=True))


def test_a_row_that_is_given_twice_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="row 3 is given twice; give each row once"):
        Loader(store, np.array([5, 3, 4, 3]), ("sentinel2",), batch_size=4, crop=56, seed=0)


def test_a_process_outside_the_world_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="rank must be one of 0 to 1, not 2"):
        loader(store, rank=2, world=2)


@pytest.mark.parametrize("crop", [0, 65])
def test_a_crop_that_no_tile_has_is_refused(store: Store, crop: int) -> None:
    with pytest.raises(ValueError, match=f"crop must be 1 to 64, .* not {crop}$"):
        loader(store, crop=crop)


@pytest.mark.parametrize("crop", [1, 7, 31, 32, 33, 56, 63, 64])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_any_crop_is_the_piece_of_the_tile_that_was_drawn(store: Store, crop: int, memory_bytes: int) -> None:
    names = ("sentinel2", "aster", "sentinel1", "canopy_height_eth", "esa_worldcover")
    rows, numbers = store.select("train"), scalings(store, names)
    options: dict[str, Any] = {"batch_size": 40, "crop": crop, "seed": 3, "memory_bytes": memory_bytes}
    stored = next(Loader(store, rows, names, **options).epoch(2))
    scaled = next(Loader(store, rows, names, scaling=numbers, **options).epoch(2))
    location_id, level = stored["location_id"].numpy(), stored["level"].tolist()
    corner = below(draw(3, 2, location_id, "crop", 2), 64 - crop + 1)
    flip = 1 - 2 * below(draw(3, 2, location_id, "flip", 2), 2)
    row_of = {int(store.location_id[row]): int(row) for row in rows}
    for name, i in itertools.product(names, range(len(location_id))):
        modality, (y, x), (v, h) = MODALITIES[name], corner[i], flip[i]
        tile = store.read(name, row_of[int(location_id[i])], row_of[int(location_id[i])] + 1)[0]
        piece = tile[:, y : y + crop, x : x + crop][:, ::v, ::h]
        np.testing.assert_array_equal(stored[name][i].numpy(), piece)
        if modality.kind == "continuous":
            group = level[i] if len(numbers[name].mean) > 1 else 0
            mean, std = (np.array(values[group])[:, None, None] for values in (numbers[name].mean, numbers[name].std))
            expected = np.where(modality.valid(piece), (piece - mean) / std, np.nan)
            np.testing.assert_allclose(scaled[name][i].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_depends_on_the_number_of_threads(store: Store) -> None:
    one, four = (list(loader(store, threads=n, memory_bytes=0).epoch(3)) for n in (1, 4))
    assert all(equal(a, b) for a, b in zip(one, four, strict=True))


def test_threads_that_decode_the_same_tiles_at_once_keep_one_copy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a chunk that are needed far apart are pieces of their own, which several threads begin together.

    Here all read before the first has done so, crop long after, and memory that is let go of loses its values.
    """
    one = list(loader(store, threads=1, window_rows=1).epoch(3))
    read, crop, memory = Store.read, kernels.copy, []

    def read_slowly(*arguments: Any, **options: Any) -> Any:
        tiles = read(*arguments, **options)
        memory.append(tiles)
        view = tiles[:]
        weakref.finalize(view, tiles.fill, 1)
        time.sleep(0.01)
        return view

    def crop_slowly(*arguments: Any) -> None:
        time.sleep(0.02)
        crop(*arguments)

    monkeypatch.setattr(Store, "read", read_slowly)
    monkeypatch.setattr(kernels, "copy", crop_slowly)
    four = list(loader(store, threads=4, window_rows=1).epoch(3))
    assert all(equal(a, b) for a, b in zip(one, four, strict=True))


def test_memory_is_used_again_but_never_while_a_batch_is_kept(store: Store) -> None:
    reader = loader(store, memory_bytes=0, window_rows=32)
    kept = [{name: values[:1] for name, values in batch.items()} for batch in reader.epoch(0)]
    before = [{name: values.clone() for name, values in batch.items()} for batch in kept]
    places = set()
    for epoch in range(1, 6):
        for batch in reader.epoch(epoch):
            places.add(batch["sentinel2"].data_ptr())
            del batch
    assert all(equal(a, b) for a, b in zip(kept, before, strict=True))
    assert not places & {batch["sentinel2"].data_ptr() for batch in kept}
    # Five epochs need no more memory than one: what the window holds and what is made ahead.
    assert len(places) <= reader.batches + 2


@pytest.mark.parametrize("crop", [7, 56])
def test_scaled_batches_are_what_the_model_makes_of_stored_ones(store: Store, crop: int) -> None:
    names = (*NAMES, "sentinel1", "canopy_height_eth", "dynamic_world", "biome")
    rows = store.select("train")
    options: dict[str, Any] = {"batch_size": 10, "crop": crop, "seed": 3}
    numbers = scalings(store, names)
    stored = Loader(store, rows, names, **options).epoch(1)
    scaled = Loader(store, rows, names, scaling=numbers, **options).epoch(1)
    for plain, ready in zip(stored, scaled, strict=True):
        for name in names:
            modality, last = MODALITIES[name], plain[name].movedim(1, -1)
            if modality.kind == "categorical":
                assert torch.equal(ClassIndex(modality)(last), ready[name][:, 0])
            elif modality.kind == "cyclic":
                assert torch.equal(plain[name], ready[name])
            else:
                expected, valid = Standardise(modality, modality.bands, numbers[name])(last, plain["level"])
                found = ready[name].movedim(1, -1)
                assert torch.equal(valid, ~found.isnan())
                torch.testing.assert_close(torch.where(valid, found, 0.0), expected, rtol=1e-5, atol=1e-5)


def test_threads_end_when_nobody_listens(store: Store) -> None:
    # The epoch is longer than what may be made ahead, so that threads wait.
    batches = loader(store, batch_size=2, memory_bytes=0, window_rows=1).epoch(0)
    next(batches)
    assert any(thread.name.startswith("mmearth-loader") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("mmearth-loader") for thread in threading.enumerate())
