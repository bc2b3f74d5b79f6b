"""Operations on visible sites, written by hand where autograd would keep or compute more than is needed.

A site is a pixel of a feature map. The visible ones of a batch are a dense tensor (N, K, s, s, C): K patches of s × s
sites per sample. Indices are unique, so gathering and scattering are each other's adjoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Integer
from torch import Tensor
from torch.nn import functional

EPS = 1e-6
"""Of layer norms and of GRN."""


@dataclass(frozen=True)
class Sites:
    """Where the visible patches of a batch lie: ``visible`` (N, K), indices into a grid of ``side`` × ``side``."""

    visible: Integer[Tensor, "N K"]
    side: int

    def runs(self, s: int) -> Integer[Tensor, " NKs"]:
        """Index of each visible patch's rows of ``s`` pixels among all such rows of the batch's grid, (N·K·s,).

        With patches of s × s pixels a grid line of side·s pixels is ``side`` runs of s neighbouring pixels.
        """
        n = torch.arange(len(self.visible), device=self.visible.device)[:, None, None]
        line = (self.visible // self.side)[:, :, None] * s + torch.arange(s, device=self.visible.device)
        return ((n * self.side * s + line) * self.side + (self.visible % self.side)[:, :, None]).reshape(-1)


def gather(grid: Tensor, sites: Sites, s: int) -> Tensor:
    """Visible sites (N, K, s, s, C) of an NHWC grid (N, side·s, side·s, C)."""
    n, k = sites.visible.shape
    c = grid.shape[-1]
    rows = grid.reshape(-1, s * c).index_select(0, sites.runs(s))
    return rows.view(n, k, s, s, c)


def scatter(x: Tensor, sites: Sites) -> Tensor:
    """The adjoint of ``gather``: sites (N, K, s, s, C) in an otherwise zero NHWC grid (N, side·s, side·s, C)."""
    n, _, s, _, c = x.shape
    grid = x.new_zeros(n * sites.side * s * sites.side, s * c)
    grid.index_copy_(0, sites.runs(s), x.reshape(-1, s * c))
    return grid.view(n, sites.side * s, sites.side * s, c)


class DepthwiseOnVisible(torch.autograd.Function):
    """Depthwise convolution without bias of visible sites (N, K, s, s, C) by a weight (C, 1, k, k), k odd.

    Written as one operation so that the backward pass stays in NHWC, computes the input's gradient with the fast
    forward kernel, and keeps the sites rather than the whole grid.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sites: Sites) -> Tensor:
        """Sites in, sites out."""
        ctx.save_for_backward(x, weight)
        ctx.sites = sites
        grid = scatter(x, sites).permute(0, 3, 1, 2)
        y = functional.conv2d(grid, weight, padding=weight.shape[-1] // 2, groups=len(weight))
        return gather(y.permute(0, 2, 3, 1), sites, x.shape[2])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of sites and weight."""
        x, weight = ctx.saved_tensors
        sites, c, pad = ctx.sites, len(weight), weight.shape[-1] // 2
        grad = scatter(grad_outputs[0].contiguous(), sites).permute(0, 3, 1, 2)
        grad_grid = functional.conv2d(grad, weight.flip(2, 3), padding=pad, groups=c)
        grad_x = gather(grad_grid.permute(0, 2, 3, 1), sites, x.shape[2])
        grid = scatter(x, sites).permute(0, 3, 1, 2)
        _, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, grid, weight, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], c, [False, True, False]
        )
        return grad_x, grad_weight, None


class ResponseNorm(torch.autograd.Function):
    """The map to x · (1 + γ · ‖x‖ / (mean‖x‖ + ε)) + β of x (N, S, C), the norm taken over S.

    Keeps x and the norms only. A channel that is zero everywhere gets a zero gradient from its norm, never a NaN.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        """Same shape as x."""
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=gamma.dtype)
        relative = norm / (norm.mean(-1, keepdim=True) + eps)
        ctx.eps = eps
        ctx.save_for_backward(x, gamma, norm)
        return torch.addcmul(beta.to(x.dtype), x, (1 + gamma * relative).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of x, γ and β."""
        grad = grad_outputs[0]
        x, gamma, norm = ctx.saved_tensors
        mean = norm.mean(-1, keepdim=True) + ctx.eps
        relative = norm / mean
        grad_relative = (grad * x).sum(1, keepdim=True, dtype=gamma.dtype)
        grad_gamma = (grad_relative * relative).sum((0, 1))
        grad_relative = grad_relative * gamma
        grad_norm = (grad_relative - (grad_relative * relative).mean(-1, keepdim=True)) / mean
        pull = torch.where(norm > 0, grad_norm / norm, 0.0).to(x.dtype)
        grad_x = (grad * (1 + gamma * relative).to(x.dtype)).addcmul_(x, pull)
        return grad_x, grad_gamma, grad.sum((0, 1), dtype=gamma.dtype), None
