"""Losses on tiles that the model is not trained on, and what the best constant predictor loses on the same targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmearth_train import sharing
from mmearth_train.distributed import Processes
from mmearth_train.loader import Loader
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE, PATCHES_PER_SIDE, Losses
from mmearth_train.precision import autocast

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


def patches_of(batch: dict[str, Tensor], seed: int, epoch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of the visible and the masked patches of a batch, (N, K) and (N, M), on ``device``."""
    visible, masked = split_patches(seed, epoch, batch["location_id"].cpu().numpy(), PATCHES_PER_SIDE**2)
    return torch.from_numpy(visible).to(device), torch.from_numpy(masked).to(device)


@torch.no_grad()
def validate(model: MPMAE, loader: Loader, device: torch.device, together: Processes) -> Validation:
    """Losses over everything that the loaders of all processes deliver, under fixed masks.

    All must deliver equally many batches, empty ones among them: processes that share weights out gather each block
    together.
    """
    names = [target.task.name for target in model.task_targets]
    learnt = torch.zeros(2, len(names), dtype=torch.float64)
    constant = torch.zeros(2, len(names), dtype=torch.float64)
    for stored in loader.epoch(0):
        visible, masked = patches_of(stored, model.spec.seed, MASK_EPOCH, device)
        batch = {name: values.to(device) for name, values in stored.items()}
        with autocast(device):
            learnt += torch.stack(tuple(model(batch, visible, masked))).cpu()
        constant += torch.stack(tuple(constant_losses(model, batch, masked))).cpu()
    sharing.drop(model)
    learnt, constant = together.total(learnt), together.total(constant)
    return Validation(_means(names, learnt), _means(names, constant))


def constant_losses(model: MPMAE, batch: dict[str, Tensor], masked: Tensor) -> Losses:
    """What each task's best constant loses on the targets of a batch."""
    pairs = [target.compare_constant(*target(batch, masked)) for target in model.task_targets]
    return Losses(torch.stack([s for s, _ in pairs]), torch.stack([c for _, c in pairs]))


def _means(names: list[str], sums_and_counts: Tensor) -> dict[str, float]:
    rows = zip(names, *sums_and_counts.tolist(), strict=True)
    return {name: total / count for name, total, count in rows if count}
