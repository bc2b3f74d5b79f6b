"""A training step on a GPU: nothing waits for it, parts add up, and compiled or recorded it trains the same.

Run with: python -m pytest tests/gpu
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.gpu_training import WARM_UP, step_of
from mmearth_train.distributed import ALONE
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.step import Step
from tests.train_batches import random_batch, random_spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def a_batch(n: int) -> dict[str, Tensor]:
    visible, masked = (torch.from_numpy(patches) for patches in split_patches(0, 0, np.arange(n), 49))
    return {name: t.cuda() for name, t in {**random_batch(n), "visible": visible, "masked": masked}.items()}


def a_step(*, whole: bool) -> tuple[MPMAE, Step]:
    torch.manual_seed(0)
    model = MPMAE(random_spec()).cuda()
    recipe = RECIPES["default"]
    return model, Step(model, optimizer(model, model.decays, recipe), ALONE, torch.device("cuda"), whole=whole)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Every operation that would wait for the GPU raises, once what is set up at the first step is there."""
    _, warm = a_step(whole=True)
    warm([a_batch(8)], 1e-3)
    torch.cuda.synchronize()
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_never_waits_for_the_gpu(no_waiting: None, parts: int) -> None:
    _, step = a_step(whole=parts == 1)
    batches = [a_batch(8) for _ in range(parts)]
    step(batches, 1e-3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    step(batches, 1e-3)


def test_a_step_in_parts_has_the_gradient_of_the_whole() -> None:
    """In bfloat16 the parts differ by its rounding; the gradient's norm is compared, which AdamW's step hides."""
    norms = []
    for parts in (1, 4):
        batch = a_batch(32)
        cut = {name: values.tensor_split(parts) for name, values in batch.items()}
        _, step = a_step(whole=parts == 1)
        found = step([{name: values[i] for name, values in cut.items()} for i in range(parts)], 1e-3, norm=True)
        assert found.gradient_norm is not None
        norms.append(found.gradient_norm.item())
    assert norms[1] == pytest.approx(norms[0], rel=5e-3)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("way", ["graph", "compiled", "compiled-graph"])
def test_a_recorded_or_compiled_step_trains_as_an_eager_one_does(way: str) -> None:
    """After ten steps on one batch, of which a recorded one has taken some before it is replayed."""
    losses = {}
    for name in ("untrained", "eager", way):
        torch.manual_seed(0)
        model, batch = MPMAE(random_spec()).cuda(), a_batch(8)
        patches = batch["visible"], batch["masked"]
        if name != "untrained":
            step = step_of(name, model, batch, patches, torch.device("cuda"))
            for _ in range(10 - WARM_UP * name.endswith("graph")):
                step()
        with torch.no_grad():
            losses[name] = model.objective(model(batch, *patches)).item()
    assert losses["eager"] < 0.99 * losses["untrained"]
    assert losses[way] == pytest.approx(losses["eager"], rel=1e-3)
