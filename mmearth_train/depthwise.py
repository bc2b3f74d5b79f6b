"""Depthwise convolution over visible sites as one operation that compilers do not look into.

Opaque, because the backward pass that autograd and torch.compile would write leaves channels_last, which costs more
than the rest of a block, and keeps the grid of all sites instead of the visible ones.

The convolution is oneDNN's on a CPU and cuDNN's on a GPU, both in channels_last; so is the weight's gradient on a GPU,
while a CPU has a kernel of our own for it.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from mmearth_train.sites import Sites, gather, scatter


@cache
def _kernel() -> Callable[[Tensor, Tensor, Sites, int], Tensor] | None:
    """The weight's gradient on a CPU; None where numba is not there, or not for the numpy that is.

    Training needs numba anyway, for reading stores. Benchmarks and tests on a machine with a GPU do without.
    """
    try:
        from mmearth_train.weight_gradient import weight_gradient
    except ImportError:
        return None
    return weight_gradient


@torch.library.custom_op("mmearth::depthwise", mutates_args=())
def depthwise(x: Tensor, weight: Tensor, visible: Tensor, side: int) -> Tensor:
    """Sites (N, K, s, s, C) convolved without bias by a weight (C, 1, k, k), k odd; absent neighbours are zero."""
    sites = Sites(visible, side)
    grid = scatter(x, sites).permute(0, 3, 1, 2)
    y = functional.conv2d(grid, weight, padding=weight.shape[-1] // 2, groups=len(weight))
    return gather(y.permute(0, 2, 3, 1), sites, x.shape[2]).contiguous()


@torch.library.custom_op("mmearth::depthwise_backward", mutates_args=())
def depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor, visible: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Gradients of the sites and of the weight; the former is a convolution by the kernel turned around."""
    sites, c, pad = Sites(visible, side), len(weight), weight.shape[-1] // 2
    grad_grid = scatter(grad.contiguous(), sites).permute(0, 3, 1, 2)
    turned = functional.conv2d(grad_grid, weight.flip(2, 3), padding=pad, groups=c)
    grad_x = gather(turned.permute(0, 2, 3, 1), sites, x.shape[2]).contiguous()
    kernel = _kernel() if x.device.type == "cpu" else None
    if kernel is not None:
        precise = torch.promote_types(x.dtype, torch.float32)
        exact = kernel(x.to(precise), grad.to(precise).contiguous(), sites, weight.shape[-1])
        return grad_x, exact.to(weight.dtype)
    grid = scatter(x, sites).permute(0, 3, 1, 2)
    _, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_grid, grid, weight, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], c, [False, True, False]
    )
    # In channels_last the only input channel has another stride than in the weight, which DDP's buckets warn about.
    return grad_x, grad_weight.flatten(1).view(weight.shape)


@depthwise.register_fake
def _(x: Tensor, weight: Tensor, visible: Tensor, side: int) -> Tensor:
    return x.new_empty(x.shape)


@depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, visible: Tensor, side: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    x, weight, visible, ctx.side = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(x, weight, visible)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    x, weight, visible = ctx.saved_tensors  # type: ignore[attr-defined]
    grad_x, grad_weight = depthwise_backward(grad, x, weight, visible, ctx.side)  # type: ignore[attr-defined]
    return grad_x, grad_weight, None, None


depthwise.register_autograd(_differentiate, setup_context=_keep)
