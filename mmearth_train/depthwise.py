"""Depthwise convolution over visible sites as one operation that compilers do not look into.

Opaque, because the backward pass that autograd and torch.compile would write leaves channels_last, which costs more
than the rest of a block, and keeps the grid of all sites instead of the visible ones.

On a CPU oneDNN convolves the grid, and the gradient of the weight is a kernel of our own (``depthwise_cpu``). On a GPU
there are two ways to either: cuDNN on the grid, and kernels of our own over visible sites (``depthwise_gpu``). Both are
tried on the first sites of a shape, and the quicker one is taken from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from mmearth_train.quickest import kernels, quickest
from mmearth_train.sites import Sites, gather, scatter

Convolution = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Of x, weight, visible and side, as ``depthwise``."""
WeightGradient = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""Of x, the result's gradient, visible, side and k: (C, 1, k, k)."""


@torch.library.custom_op("mmearth::depthwise", mutates_args=())
def depthwise(x: Tensor, weight: Tensor, visible: Tensor, side: int) -> Tensor:
    """Sites (N, K, s, s, C) convolved without bias by a weight (C, 1, k, k), k odd; absent neighbours are zero."""
    return quickest(_convolutions(x, weight, side), x, weight, visible, side)


@torch.library.custom_op("mmearth::depthwise_backward", mutates_args=())
def depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor, visible: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Gradients of the sites (N, K, s, s, C) and of the weight (C, 1, k, k), given the result's, shaped as the sites.

    The former is a convolution by the kernel turned around.
    """
    grad = grad.contiguous()
    grad_x = quickest(_convolutions(x, weight, side), grad, weight.flip(2, 3), visible, side)
    grad_weight = quickest(_weight_gradients(x, weight, side), x, grad, visible, side, weight.shape[-1])
    return grad_x, grad_weight.to(weight.dtype)


def convolve_grid(x: Tensor, weight: Tensor, visible: Tensor, side: int) -> Tensor:
    """As ``depthwise``, sites (N, K, s, s, C) in and out, by oneDNN or cuDNN in channels_last.

    It convolves the grid of all sites, (N, C, side · s, side · s).
    """
    sites = Sites(visible, side)
    grid = scatter(x, sites).permute(0, 3, 1, 2)
    y = functional.conv2d(grid, weight, padding=weight.shape[-1] // 2, groups=len(weight))
    return gather(y.permute(0, 2, 3, 1), sites, x.shape[2]).contiguous()


def grid_weight_gradient(x: Tensor, grad: Tensor, visible: Tensor, side: int, kernel: int) -> Tensor:
    """The gradient (C, 1, k, k) of the weight, of sites and the result's gradient (N, K, s, s, C); k is ``kernel``.

    By the same libraries, of the same grid.
    """
    sites, c, pad = Sites(visible, side), x.shape[-1], kernel // 2
    grids = (scatter(values, sites).permute(0, 3, 1, 2) for values in (grad, x))
    like = x.new_empty((c, 1, kernel, kernel))
    _, found, _ = torch.ops.aten.convolution_backward(
        *grids, like, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], c, [False, True, False]
    )
    # In channels_last the only input channel has another stride than in the weight, which DDP's buckets warn about.
    gradient: Tensor = found.flatten(1).view(c, 1, kernel, kernel)
    return gradient


def _convolutions(x: Tensor, weight: Tensor, side: int) -> Sequence[Convolution]:
    """Every way to convolve such sites."""
    own = _gpu_kernels(x, weight, side)
    return (convolve_grid, own.convolve) if own else (convolve_grid,)


def _weight_gradients(x: Tensor, weight: Tensor, side: int) -> Sequence[WeightGradient]:
    """Every way to the gradient of a weight that such sites were convolved by; of a CPU's the quicker one is known."""
    if not x.is_cuda:
        known = kernels("depthwise_cpu")
        return (known.weight_gradient if known else grid_weight_gradient,)
    own = _gpu_kernels(x, weight, side)
    return (grid_weight_gradient, own.weight_gradient) if own else (grid_weight_gradient,)


def _gpu_kernels(x: Tensor, weight: Tensor, side: int) -> ModuleType | None:
    """Those for a GPU, where x is on one and they are made for such sites."""
    own = kernels("depthwise_gpu") if x.is_cuda else None
    return own if own and own.takes(x, side, weight.shape[-1]) else None


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
