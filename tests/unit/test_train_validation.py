"""Validation is one pass over all tiles under fixed masks, and is written down whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmearth_data.store import Store, open_store
from mmearth_train.distributed import ALONE
from mmearth_train.loader import Loader
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.specification import specify
from mmearth_train.tasks import GROUPS
from mmearth_train.validation import MASK_EPOCH, Validation, Validator
from tests.synthetic import make_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path: Path = make_store(tmp_path_factory.mktemp("validation") / "store", rows=56, tile_pixels=64, shard_rows=28)
    return open_store(path)


@pytest.fixture(scope="module")
def model(store: Store) -> MPMAE:
    torch.manual_seed(0)
    return MPMAE(specify(store, store.select("train"), "atto", 56, GROUPS["all"], seed=5))


def central(store: Store) -> Loader:
    return Loader(store, store.select("val"), GROUPS["all"], batch_size=3, crop=56, seed=5, augment=False)


@torch.no_grad()
def by_hand(store: Store, model: MPMAE) -> Validation:
    """Added up in float64 batch by batch, in the order of the tasks."""
    learnt, constant, count = ({target.task.name: 0.0 for target in model.task_targets} for _ in range(3))
    for batch in central(store).epoch(0):
        patches = split_patches(5, MASK_EPOCH, batch["location_id"].numpy(), 49)
        visible, masked = (torch.from_numpy(p) for p in patches)
        found = model(batch, visible, masked)
        for place, target in enumerate(model.task_targets):
            name = target.task.name
            learnt[name] += found.sums[place].item()
            constant[name] += target.compare_constant(*target(batch, masked))[0].item()
            count[name] += found.counts[place].item()
    means = [{name: total / count[name] for name, total in sums.items() if count[name]} for sums in (learnt, constant)]
    return Validation(*means)


def test_losses_are_those_of_every_tile_exactly(store: Store, model: MPMAE) -> None:
    expected = by_hand(store, model)
    assert len(expected.tasks) == len(GROUPS["all"])
    assert Validator(central(store), CPU, ALONE)(model) == expected


def test_the_constant_is_found_once_and_is_the_same_for_every_state_of_the_model(store: Store, model: MPMAE) -> None:
    validate = Validator(central(store), CPU, ALONE)
    first = validate(model)
    other = MPMAE(model.spec)
    again = validate(other)
    assert first is not None
    assert again is not None
    assert again.tasks != first.tasks
    assert again == by_hand(store, other)


def test_a_validation_that_is_stopped_says_nothing_and_leaves_nothing_behind(store: Store, model: MPMAE) -> None:
    validate, asked = Validator(central(store), CPU, ALONE), 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2

    assert validate(model, stopped) is None
    assert asked == 2
    assert validate(model, stopped) == by_hand(store, model)
    assert asked == 2 + central(store).batches
