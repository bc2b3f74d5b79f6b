"""Losses on tiles that the model is not trained on, and what the best constant predictor loses on the same targets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Integer
from torch import Tensor

from mmearth_train import sharing
from mmearth_train.distributed import Processes
from mmearth_train.feed import placed, with_masks
from mmearth_train.model import MPMAE, Losses
from mmearth_train.precision import autocast

if TYPE_CHECKING:
    from mmearth_train.loader import Loader

MASK_EPOCH = -1
"""Validation and reconstructions use the masks of this epoch, which training never reaches."""


@dataclass(frozen=True)
class Validation:
    """Mean loss of each task, of the model and of its best constant; tasks without a valid target are left out."""

    tasks: dict[str, float]
    constant: dict[str, float]

    @property
    def score(self) -> float:
        """The model's loss as a share of the constant's, averaged over tasks: small is good, 1 is no use.

        Unlike the objective it does not move with the tasks' weights, so it can be compared between epochs.
        """
        shares = [loss / self.constant[name] for name, loss in self.tasks.items() if self.constant[name] > 0]
        return sum(shares) / len(shares) if shares else math.inf


class Validator:
    """Validates a model again and again on all that the loaders of all processes deliver, under fixed masks.

    All must deliver equally many batches, empty ones among them: processes that share weights out gather each block
    together. What the constant loses is never different, and found out once.
    """

    def __init__(self, loader: Loader, device: torch.device, together: Processes) -> None:
        self._loader, self._device, self._together = loader, device, together
        self._constant: dict[str, float] | None = None

    @torch.no_grad()
    def __call__(self, model: MPMAE, stopped: Callable[[], bool] = lambda: False) -> Validation | None:
        """The losses of ``model``; None where it was ``stopped``, which all processes are asked before each batch.

        They are added up in float64 on the device; a GPU is waited for at the end alone.
        """
        learnt, constant = (
            torch.zeros(2, len(model.task_targets), dtype=torch.float64, device=self._device) for _ in range(2)
        )
        masks = functools.partial(with_masks, seed=model.spec.seed, epoch=MASK_EPOCH)
        for batch in placed(map(masks, self._loader.epoch(0)), self._device):
            if stopped():
                sharing.drop(model)
                return None
            with autocast(self._device):
                learnt += _in_double(model(batch, batch["visible"], batch["masked"]))
            if self._constant is None:
                constant += _in_double(constant_losses(model, batch, batch["masked"]))
        sharing.drop(model)
        names = [target.task.name for target in model.task_targets]
        if self._constant is None:
            self._constant = _means(names, self._together.total(constant))
        return Validation(_means(names, self._together.total(learnt)), self._constant)


def constant_losses(model: MPMAE, batch: dict[str, Tensor], masked: Integer[Tensor, "N M"]) -> Losses:
    """What each task's best constant loses on the targets of a batch in the patches that are ``masked``, (T,) each."""
    pairs = [target.compare_constant(*target(batch, masked)) for target in model.task_targets]
    return Losses(torch.stack([s for s, _ in pairs]), torch.stack([c for _, c in pairs]))


def _in_double(found: Losses) -> Tensor:
    """Sums and counts as (2, T) that go on being exact when they are added up."""
    return torch.stack([found.sums.double(), found.counts.double()])


def _means(names: list[str], sums_and_counts: Tensor) -> dict[str, float]:
    rows = zip(names, *sums_and_counts.tolist(), strict=True)
    return {name: total / count for name, total, count in rows if count}
