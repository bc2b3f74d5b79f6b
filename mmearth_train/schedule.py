"""Recipes of optimisation, the learning rate of a step, and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

Preset = Literal["default", "reference", "demo"]


@dataclass(frozen=True)
class Recipe:
    """How a model is optimised: AdamW, linear warm-up, then half a cosine down to zero.

    ``base_rate`` is the learning rate for a batch of 256; it grows in proportion to the batch.
    """

    epochs: int
    batch_size: int
    warmup_epochs: float
    base_rate: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)

    def on(self, tiles: int) -> Recipe:
        """The recipe on so many training tiles: a step holds no more than all of them, and its rate is for as many."""
        return replace(self, batch_size=min(self.batch_size, tiles))

    @property
    def peak_rate(self) -> float:
        """The learning rate at the end of the warm-up."""
        return self.base_rate * self.batch_size / 256

    def rate(self, epoch: float) -> float:
        """The learning rate at a fractional epoch."""
        if epoch < self.warmup_epochs:
            return self.peak_rate * epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-12)
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


RECIPES: dict[Preset, Recipe] = {
    "default": Recipe(epochs=200, batch_size=4096, warmup_epochs=40, base_rate=1.5e-4),
    "reference": Recipe(epochs=200, batch_size=4096, warmup_epochs=40, base_rate=1.5e-4),
    "demo": Recipe(epochs=10, batch_size=16, warmup_epochs=1, base_rate=1.2e-2),
}
"""``default`` is the paper's (MMEarth, section 4), and so is ``reference``, which differs in the model alone; ``demo``
shows falling losses on 500 tiles within minutes."""


def optimizer(model: nn.Module, decays: Callable[[str], bool], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over a model's parameters; ``decays`` says by name which of them weight decay takes in."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if decays(name)], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=recipe.betas, fused=True)
