"""Layer norm over a site's channels: torch's, and on a GPU kernels of our own where they are quicker.

torch's kernel gives each row a block of threads of its own, of which 40 channels leave most idle, and works in float32
under autocast, with a pass over memory before and one after it. Ours (``layer_norm_gpu``) has many rows in a program.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmearth_train.quickest import kernels, quickest


class LayerNorm(nn.LayerNorm):
    """Over the last dimension (Ba et al. 2016), as torch's, but for the dtype: under autocast the lower precision.

    Compilers, which join a norm with its neighbours, get torch's, and so does what needs no gradient: images of any
    size, for each of which it would have to be found out which way is quicker.
    """

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        """Same shape as x."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        ours = x.is_cuda and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        own = kernels("layer_norm_gpu") if ours else None
        if own is None or x.shape[-1:] != self.weight.shape or not own.takes(x):
            return super().forward(x).to(dtype)
        y: Tensor = Normalise.apply(x, self.weight, self.bias, self.eps, dtype, own)  # type: ignore[no-untyped-call]
        return y


class Normalise(torch.autograd.Function):
    """The norm of x (…, C) in ``dtype``, torch's way or that of ``own``, whichever is quicker.

    Keeps x alone: a row's mean is worked out again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype, own: ModuleType
    ) -> Tensor:
        """Same shape as x."""
        ctx.eps, ctx.own = eps, own
        ctx.save_for_backward(x, weight, bias)
        y: Tensor = quickest((normalise, own.normalise), x, weight, bias, eps, dtype)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Gradients of x, weight and bias."""
        found = quickest((gradients, ctx.own.gradients), grad_outputs[0], *ctx.saved_tensors, ctx.eps)
        return *found, None, None, None


def normalise(
    x: Float[Tensor, "... C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"], eps: float, dtype: torch.dtype
) -> Float[Tensor, "... C"]:
    """The norm by torch's kernel, in ``dtype``."""
    return functional.layer_norm(x.to(weight.dtype), weight.shape, weight, bias, eps).to(dtype)


def gradients(
    grad: Float[Tensor, "... C"], x: Float[Tensor, "... C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"],
    eps: float,
) -> tuple[Float[Tensor, "... C"], Float[Tensor, " C"], Float[Tensor, " C"]]:  # fmt: skip
    """Of x, weight and bias, given that of the result, by torch's kernels; the norm itself is computed again."""
    exact = x.to(weight.dtype)
    mean, scale = torch.native_layer_norm(exact, weight.shape, weight, bias, eps)[1:]
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        grad.to(weight.dtype), exact, list(weight.shape), mean, scale, weight, bias, [True, True, True]
    )
    return grad_x.to(x.dtype), grad_weight, grad_bias
