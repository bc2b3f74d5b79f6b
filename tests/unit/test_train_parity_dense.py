"""What the trainer's speed and memory are compared with, the benchmarks' plain dense model, computes the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.dense_model import Dense
from benchmarks.encoder import kept_bytes
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from tests.train_batches import random_batch, random_spec


@pytest.mark.parametrize("input_size", [56, 112])
def test_the_dense_baseline_has_the_loss_and_gradients_of_the_compact_model(input_size: int) -> None:
    torch.manual_seed(0)
    compact = MPMAE(random_spec(input_size, ("sentinel2", "dynamic_world", "era5", "biome")))
    with torch.no_grad():
        for parameter in compact.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    dense = Dense(compact).double()
    compact.double()
    batch = random_batch(2, input_size, seed=1)
    visible, masked = map(torch.from_numpy, split_patches(0, 0, torch.arange(2).numpy(), 49))

    expected, loss = compact.objective(compact(batch, visible, masked)), dense(batch, visible)
    assert abs(loss - expected) <= 1e-12 * abs(expected)

    expected.backward()
    loss.backward()
    for ours, theirs in (
        (dense.initial[0].weight, compact.encoder.initial_conv.weight),
        (dense.stages[2][5].dwconv.weight, compact.encoder.stages[2][5].dwconv.weight),
        (dense.stages[3][1].gamma, compact.encoder.stages[3][1].grn.gamma),
        (dense.block.pwconv1.weight, compact.decoder.block.pwconv1.weight),
        (dense.token, compact.decoder.mask_token),
        (dense.log_vars, compact.log_vars),
    ):
        assert (ours.grad - theirs.grad).abs().max() <= 1e-11 * theirs.grad.abs().max()


@pytest.mark.parametrize(("size", "input_size"), [("atto", 56), ("atto", 112), ("tiny", 56)])
def test_it_keeps_at_most_35_percent_of_the_dense_models_activations(size: str, input_size: int) -> None:
    """What autograd keeps for the backward pass grows with the images; of twelve tasks."""
    compact = MPMAE(random_spec(input_size, model=size))
    dense = Dense(compact)
    batch = random_batch(2, input_size)
    visible, masked = map(torch.from_numpy, split_patches(0, 0, np.arange(2), 49))
    ours = kept_bytes(lambda: compact.objective(compact(batch, visible, masked)), compact)
    assert 0 < ours <= 0.35 * kept_bytes(lambda: dense(batch, visible), dense)
