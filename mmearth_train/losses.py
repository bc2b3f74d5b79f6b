"""Losses over valid targets only, each as a sum and the number of values summed, and their weighting.

Sums and counts, not means: micro-batches and processes can then be added up exactly before dividing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn import functional

IGNORE = -1
"""Class index of a target that is not data."""
PATCH_EPS = 1e-6


def squared_error(
    prediction: Float[Tensor, "*S"], target: Float[Tensor, "*S"], valid: Bool[Tensor, "*S"]
) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
    """Sum of squared differences where ``valid``, and how many; what a target holds elsewhere has no influence."""
    difference = torch.where(valid, prediction - torch.where(valid, target, 0.0), 0.0)
    return difference.square().sum(), valid.sum()


def cross_entropy(
    logits: Float[Tensor, "*S classes"], classes: Integer[Tensor, "*S"]
) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
    """Sum of −log p(class) where a class is not IGNORE, and how many."""
    # Added up in a second step: CUDA sums a loss of rows in a single block of threads, and millions of rows in turn.
    each = functional.cross_entropy(logits.flatten(0, -2), classes.flatten(), ignore_index=IGNORE, reduction="none")
    return each.sum(), (classes != IGNORE).sum()


def patch_moments(
    values: Float[Tensor, "N M p q B"], valid: Bool[Tensor, "N M p q B"]
) -> tuple[Float[Tensor, "N M 1 1 1"], Float[Tensor, "N M 1 1 1"]]:
    """Mean and spread of each patch's valid values of all bands (variance unbiased, as in the original)."""
    axes = (2, 3, 4)
    count = valid.sum(axes, keepdim=True)
    mean = torch.where(valid, values, 0.0).sum(axes, keepdim=True) / count.clamp(min=1)
    squares = torch.where(valid, values - mean, 0.0).square().sum(axes, keepdim=True)
    return mean, (squares / (count - 1).clamp(min=1) + PATCH_EPS).sqrt()


def normalise_patches(
    values: Float[Tensor, "N M p q B"], valid: Bool[Tensor, "N M p q B"]
) -> tuple[Float[Tensor, "N M p q B"], Bool[Tensor, "N M p q B"]]:
    """Each patch to mean 0 and variance 1 over its valid values of all bands (He et al. 2022, section 4.1).

    A patch with fewer than two valid values has no variance and drops out of ``valid``.
    """
    mean, spread = patch_moments(values, valid)
    enough = valid.sum((2, 3, 4), keepdim=True) > 1
    return torch.where(valid, (values - mean) / spread, 0.0), valid & enough


def means(sums: Float[Tensor, " T"], counts: Integer[Tensor, " T"]) -> Float[Tensor, " T"]:
    """The loss of each task; 0 for a task without a single valid target."""
    return sums / counts.clamp(min=1)


def weigh(
    losses: Float[Tensor, " T"], counts: Integer[Tensor, " T"], log_vars: Float[Tensor, " T"]
) -> Float[Tensor, ""]:
    """Σ e^(−s)·L + s over the tasks that have a valid target (Kendall et al. 2018, without their ½)."""
    weighted = torch.exp(-log_vars) * losses + log_vars
    return torch.where(counts > 0, weighted, 0.0).sum()
