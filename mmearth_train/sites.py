"""Visible sites: where they lie, how they get onto a grid and back, and the norm over them.

A site is a pixel of a feature map. The visible ones of a batch are a dense tensor (N, K, s, s, C): K patches of s × s
sites per sample. Indices are unique, so gathering and scattering are each other's adjoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

EPS = 1e-6
"""Of layer norms."""


@dataclass(frozen=True)
class Sites:
    """Where the visible patches of a batch lie: ``visible`` (N, K), indices into a grid of ``side`` × ``side``.

    With ``side`` 1 an image is a single patch, of any height and width: the dense network.
    """

    visible: Integer[Tensor, "N K"]
    side: int

    @classmethod
    def whole(cls, images: Tensor) -> Sites:
        """Each of the images (N, …) as one visible patch."""
        return cls(torch.zeros(len(images), 1, dtype=torch.long, device=images.device), 1)

    def runs(self, s: int) -> Integer[Tensor, " NKs"]:
        """Index of each visible patch's rows of ``s`` pixels among all such rows of the batch's grid, (N·K·s,).

        With patches of s × s pixels a grid line of side·s pixels is ``side`` runs of s neighbouring pixels.
        """
        n = torch.arange(len(self.visible), device=self.visible.device)[:, None, None]
        line = (self.visible // self.side)[:, :, None] * s + torch.arange(s, device=self.visible.device)
        return ((n * self.side * s + line) * self.side + (self.visible % self.side)[:, :, None]).reshape(-1)


def gather(grid: Float[Tensor, "N h w C"], sites: Sites, s: int) -> Float[Tensor, "N K s t C"]:
    """Visible sites (N, K, s, s, C) of an NHWC grid (N, side·s, side·s, C)."""
    if sites.side == 1:
        return grid[:, None]
    n, k = sites.visible.shape
    c = grid.shape[-1]
    rows = grid.reshape(-1, s * c).index_select(0, sites.runs(s))
    return rows.view(n, k, s, s, c)


def scatter(x: Float[Tensor, "N K s t C"], sites: Sites) -> Float[Tensor, "N h w C"]:
    """The adjoint of ``gather``: sites (N, K, s, s, C) in an otherwise zero NHWC grid (N, side·s, side·s, C)."""
    if sites.side == 1:
        return x[:, 0]
    n, _, s, _, c = x.shape
    grid = x.new_zeros(n * sites.side * s * sites.side, s * c)
    grid.index_copy_(0, sites.runs(s), x.reshape(-1, s * c))
    return grid.view(n, sites.side * s, sites.side * s, c)


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
