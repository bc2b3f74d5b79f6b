"""On a GPU the model computes what it computes on a CPU; run with: python -m pytest tests/gpu."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.precision import autocast
from tests.train_batches import random_batch, random_spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def loss_and_gradients(device: str, bfloat16: bool) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = MPMAE(random_spec()).to(device)
    batch = {name: values.to(device) for name, values in random_batch(32).items()}
    visible, masked = (torch.from_numpy(patches).to(device) for patches in split_patches(0, 0, np.arange(32), 49))
    with autocast(torch.device(device)) if bfloat16 else torch.autocast(device, enabled=False):
        found = model(batch, visible, masked)
    loss = model.objective(found)
    loss.backward()
    return loss.item(), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def test_float32_agrees_with_the_cpu() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    expected, expected_gradients = loss_and_gradients("cpu", bfloat16=False)
    loss, gradients = loss_and_gradients("cuda", bfloat16=False)
    assert loss == pytest.approx(expected, rel=2e-6)
    for name, gradient in gradients.items():
        assert (gradient - expected_gradients[name]).abs().max() <= 1e-4 * expected_gradients[name].abs().max(), name


def test_bfloat16_stays_close_to_float32() -> None:
    expected, expected_gradients = loss_and_gradients("cpu", bfloat16=False)
    loss, gradients = loss_and_gradients("cuda", bfloat16=True)
    assert loss == pytest.approx(expected, rel=1e-3)
    ours, theirs = (torch.cat([g[name].flatten() for name in gradients]) for g in (gradients, expected_gradients))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) >= 0.995
