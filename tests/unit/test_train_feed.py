"""Steps are fed in the loader's order with each epoch's masks, from any step on, and in memory that has a bound."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_data.store import Store, open_store
from mmearth_train.feed import Batch, Feed
from mmearth_train.loader import Loader
from mmearth_train.loader.ring import Field, PinnedMemoryError, Ring, pinned_at_once
from mmearth_train.masking import split_patches
from tests.synthetic import make_store

EPOCHS = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """43 training tiles: nine steps of four or five make an epoch."""
    return open_store(make_store(tmp_path_factory.mktemp("feed") / "store", rows=56, tile_pixels=64, shard_rows=28))


def loader(store: Store) -> Loader:
    names = ("sentinel2", "biome")
    return Loader(store, store.select("train"), names, batch_size=5, crop=56, seed=3, window_rows=1)


def joined(parts: tuple[Batch, ...]) -> Batch:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_epochs_follow_each_other_and_any_step_can_be_the_first(store: Store) -> None:
    expected = []
    for epoch in range(EPOCHS):
        for batch in loader(store).epoch(epoch):
            visible, masked = split_patches(3, epoch, batch["location_id"].numpy(), 49)
            expected.append({**batch, "visible": torch.from_numpy(visible), "masked": torch.from_numpy(masked)})
    per_epoch = len(expected) // EPOCHS
    for first in (0, 1, per_epoch - 1, per_epoch, per_epoch + 2, len(expected) - 1, len(expected)):
        found = list(Feed(loader(store), 3, at_once=2, device=torch.device("cpu")).steps(first, EPOCHS))
        assert len(found) == len(expected) - first
        assert all(equal(joined(parts), batch) for parts, batch in zip(found, expected[first:], strict=True))
        assert all(len(part["level"]) in (1, 2) for part in itertools.chain(*found))


@pytest.mark.parametrize(("ahead_bytes", "ahead"), [(0, 1), (1 << 30, 3)])
def test_large_batches_are_made_ahead_only_as_far_as_their_memory_may_go(
    store: Store, monkeypatch: pytest.MonkeyPatch, ahead_bytes: int, ahead: int
) -> None:
    """A consumer that the threads always outrun sees as many slots as there are; the feed keeps none of its own."""
    monkeypatch.setattr("mmearth_train.loader.loader.AHEAD_BYTES", ahead_bytes)
    places = set()
    for parts in Feed(loader(store), 3, at_once=10, device=torch.device("cpu")).steps(0, EPOCHS):
        places.add(parts[0]["sentinel2"].data_ptr())
        del parts
        time.sleep(0.02)
    # The one that is looked at, one that shares a group of tiles with it, and those that are made ahead.
    assert len(places) <= 2 + ahead
    assert ahead == 1 or len(places) > 3


@pytest.mark.parametrize("gibibytes", [0.598, 2.39, 0.34, 0.5, 0.501, 0.999, 1.0])
def test_pinned_memory_is_rounded_up_by_half_at_most(gibibytes: float) -> None:
    """0.598 and 2.39 GiB are 4096 samples of 56 and 112 pixels; torch's allocator doubles until it is enough."""
    slot = int(gibibytes * 2**30)
    count = pinned_at_once(slot)
    rounded = next(2**power for power in itertools.count() if 2**power >= count * slot)
    assert rounded <= 1.5 * count * slot


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU lets memory be pinned")
def test_memory_that_cannot_be_pinned_is_said_in_a_line_with_the_remedy() -> None:
    ring = Ring((Field("a", np.dtype(np.uint16), (2**20,)),), samples=512, pinned=True)
    with pytest.raises(
        PinnedMemoryError, match=r"^(1|3)\.00 GiB of this .* batches \(.+\); make room, .*--batch-size$"
    ):
        ring.take()


def test_slots_of_one_allocation_do_not_overlap() -> None:
    fields = Field("a", np.dtype(np.uint16), (3, 5)), Field("b", np.dtype(np.float32), ())
    for ring in (Ring(fields, samples=7, pinned=False), Ring(fields, samples=0, pinned=False)):
        slots = [ring.take() for _ in range(4)]
        for number, slot in enumerate(slots):
            slot.memory[:] = number
        assert all((slot.memory == number).all() for number, slot in enumerate(slots))
        assert len({slot.memory.size for slot in slots}) == 1
