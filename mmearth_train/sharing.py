"""Weights shared out among processes (FSDP2): each holds a part of them, of their gradients and of their moments.

A block's weights are gathered while it is computed on and dropped again, so a model needs no GPU that holds it whole.
What is trained is the same: gradients are averaged as they are where every process holds all weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mmearth_train.distributed import Processes
from mmearth_train.encoder import Block

Weights = Literal["auto", "whole", "shared"]
LARGE = ("huge",)
"""Sizes whose weights are shared out unless one asks otherwise."""


def shared_out(asked: Weights, size: str, together: Processes) -> bool:
    """Whether the processes share weights out; one alone has nobody to share with."""
    return together.world > 1 and (asked == "shared" or (asked == "auto" and size in LARGE))


def share(model: nn.Module, together: Processes, device: torch.device) -> None:
    """Leave this process its part of the weights of ``model``; block by block, so that one is gathered at a time."""
    mesh = init_device_mesh(device.type, (together.world,))
    for module in model.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def drop(model: nn.Module) -> None:
    """Give back what a forward pass without a backward one leaves gathered: the weights outside of blocks."""
    if isinstance(model, FSDPModule):
        model.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of any shape; every process that holds a part of it must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def collected(tensors: Mapping[str, Tensor], *, keeps: bool) -> dict[str, Tensor]:
    """All of each tensor in the host's memory, one after the other; nothing in a process that only hands over its part.

    Shapes are those before anything was shared out. Every process that holds a part must ask for the same tensors in
    the same order.
    """
    found = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor)
        if keeps:
            found[name] = gathered.cpu()
    return found


def own(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its rows (r, …) of a (R, …) that is shared out, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole ``tensor`` on the device of ``other``, and shared out as that is where both have the same shape."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor) or tensor.shape != other.shape:
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
