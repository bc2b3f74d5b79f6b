"""What the kernels for a GPU compute, by Triton's interpreter: TRITON_INTERPRET=1 python -m tests.interpreted OUT.

A process of its own, since Triton is told to interpret before it is imported. The results are for another process to
compare: convolutions and weights' gradients of a few shapes, layer norms and their gradients, and the loss and
gradients of a whole model.
"""

from __future__ import annotations

import sys
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import tests.pretraining  # noqa: F401 - which adds the model mini
from mmearth_train import decoder, depthwise, layer_norm
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.sites import EPS
from tests.train_batches import random_batch, random_spec


class Shape(NamedTuple):
    """Of sites, and whether some are hidden; ``kernel`` is the width of what they are convolved by."""

    patches: int
    side: int
    s: int
    channels: int
    kernel: int
    dtype: torch.dtype


SHAPES = (
    Shape(5, 3, 8, 40, 7, torch.float32),
    Shape(5, 3, 4, 80, 7, torch.float32),
    Shape(5, 3, 2, 96, 7, torch.float32),
    Shape(19, 7, 1, 64, 7, torch.float32),
    Shape(49, 7, 1, 16, 7, torch.float32),
    Shape(4, 3, 6, 24, 3, torch.float32),
    Shape(1, 2, 3, 8, 5, torch.float16),
    Shape(5, 3, 4, 48, 7, torch.bfloat16),
)
"""Every stage's, the decoder's where nothing is hidden, and patches and kernels that no model has."""


class Rows(NamedTuple):
    """Of a layer norm, and what they and the result are in."""

    rows: int
    channels: int
    given: torch.dtype
    found: torch.dtype


ROWS = (
    Rows(301, 40, torch.float32, torch.float32),
    Rows(131, 96, torch.bfloat16, torch.bfloat16),
    Rows(64, 512, torch.float32, torch.bfloat16),
    Rows(5, 2816, torch.float32, torch.float32),
    Rows(1, 8, torch.float16, torch.float16),
)
"""With a part of a program's rows left over, a program with one row, and channels that fill theirs."""


def of_rows(rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows far from 0, weight, bias, and the result's gradient."""
    generator = torch.Generator().manual_seed(rows.channels)
    x, grad = (torch.randn(rows.rows, rows.channels, generator=generator) for _ in range(2))
    weight, bias = (torch.randn(rows.channels, generator=generator) for _ in range(2))
    return (3 * x + 2).to(rows.given), weight, bias, grad.to(rows.found)


def inputs(shape: Shape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sites of two samples, weight, the result's gradient and which patches are visible, in an order of their own."""
    generator = torch.Generator().manual_seed(shape.channels)
    places = [torch.randperm(shape.side**2, generator=generator)[: shape.patches] for _ in range(2)]
    size = (2, shape.patches, shape.s, shape.s, shape.channels)
    sizes = size, (shape.channels, 1, shape.kernel, shape.kernel), size
    x, weight, grad = (torch.randn(s, generator=generator).to(shape.dtype) for s in sizes)
    if shape.patches == shape.side**2:  # as the decoder says it
        return x, weight, grad, torch.arange(shape.patches).expand(2, -1)
    return x, weight, grad, torch.stack(places)


def loss_and_gradients() -> dict[str, Tensor]:
    """Of a model's parameters, by name, and its loss."""
    torch.manual_seed(0)
    visible, masked = (torch.from_numpy(patches) for patches in split_patches(0, 0, np.arange(1), 49))
    with mock.patch.object(decoder, "WIDTH", 64):
        model = MPMAE(random_spec(names=("sentinel2", "biome"), model="mini"))
        loss = model.objective(model(random_batch(1), visible, masked))
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def main(out: str) -> None:
    """Compute everything and save it."""
    from mmearth_train import depthwise_gpu, layer_norm_gpu

    depthwise_gpu.PROGRAMS = 14  # so that some of them have more than one turn
    layer_norm_gpu.PROGRAMS = 3
    found: dict[str, object] = {}
    for number, shape in enumerate(SHAPES):
        x, weight, grad, visible = inputs(shape)
        assert depthwise_gpu.takes(x, shape.side, shape.kernel)
        found[str(number)] = (
            depthwise_gpu.convolve(x, weight, visible, shape.side),
            depthwise_gpu.weight_gradient(x, grad, visible, shape.side, shape.kernel),
        )
    for rows in ROWS:
        x, weight, bias, grad = of_rows(rows)
        assert layer_norm_gpu.takes(x)
        y = layer_norm_gpu.normalise(x, weight, bias, EPS, rows.found)
        found[str(rows)] = y, *layer_norm_gpu.gradients(grad, x, weight, bias, EPS)
    depthwise._convolutions = lambda *_: (depthwise_gpu.convolve,)
    depthwise._weight_gradients = lambda *_: (depthwise_gpu.weight_gradient,)
    layer_norm.quickest = lambda ways, *arguments: ways[1](*arguments)
    layer_norm.LayerNorm.forward = lambda norm, x: layer_norm.Normalise.apply(
        x, norm.weight, norm.bias, norm.eps, x.dtype, layer_norm_gpu
    )
    found["model"] = loss_and_gradients()
    torch.save(found, out)


if __name__ == "__main__":
    main(sys.argv[1])
