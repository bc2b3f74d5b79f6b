"""One optimisation step, exact whatever it is split into: micro-batches, processes, or both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from mmearth_train import losses
from mmearth_train.distributed import Processes
from mmearth_train.model import MPMAE, Losses
from mmearth_train.precision import autocast
from mmearth_train.sharing import whole

if TYPE_CHECKING:
    from mmearth_train.feed import Batch


class Found(NamedTuple):
    """What a step saw: this process's sums and the counts of all, and the gradient's norm where it was asked for."""

    sums: Float[Tensor, " T"]
    counts: Integer[Tensor, " T"]
    gradient_norm: Float[Tensor, ""] | None


class Step:
    """Computes a batch's gradient, averaged over ``together``, and applies it."""

    def __init__(
        self,
        model: MPMAE,
        optimizer: torch.optim.Optimizer,
        together: Processes,
        device: torch.device,
        *,
        whole: bool,
        compiled: bool = False,
    ) -> None:
        """``whole`` says that no process ever has more than one micro-batch in a step.

        ``compiled`` runs the model through torch.compile, anew for each number of samples; parts have two or three.
        """
        self._model, self._optimizer, self._together, self._device = model, optimizer, together, device
        self._whole = whole
        self._replica = together.replicate(model, device)
        self._forward = torch.compile(self._replica, dynamic=False) if compiled else self._replica

    def __call__(self, batches: Sequence[Batch], rate: float, *, norm: bool = False) -> Found:
        """One step at learning rate ``rate`` over this process's ``batches``.

        Nothing here waits for a GPU, but for trying ways to convolve sites of a shape that it has not met before.

        The objective is that of all micro-batches of all processes as if they were one batch: each task's sum divided
        by the number of valid targets in all of them. A part's share of it is linear in the part's sums, so it is
        computed from sums times the number of parts: autograd adds the micro-batches up, and the processes' gradients
        are averaged. (GRN over a batch, the reference's, still sees one micro-batch of one process.)
        """
        micro, parts = len(batches), len(batches) * self._together.world
        counts = None
        if not self._whole:
            counts = self._together.total(torch.stack([valid_counts(self._model, batch) for batch in batches]).sum(0))
        sums: list[Tensor] = []
        for number, batch in enumerate(batches, start=1):
            with self._kept_back(number < micro):
                with autocast(self._device):
                    found: Losses = self._forward(batch, batch["visible"], batch["masked"])
                if counts is None:
                    counts = self._together.total(found.counts)
                objective = self._model.objective(Losses(found.sums * parts, counts)) / micro
                objective.backward()  # type: ignore[no-untyped-call]
            sums.append(found.sums.detach())
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        gradient_norm = whole(torch.nn.utils.get_total_norm(gradients)) if norm else None
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        assert counts is not None
        return Found(torch.stack(sums).sum(0), counts, gradient_norm)

    def _kept_back(self, more: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged after the last micro-batch only."""
        if isinstance(self._replica, FSDPModule):
            self._replica.set_requires_gradient_sync(not more)
        elif more and isinstance(self._replica, DistributedDataParallel):
            return self._replica.no_sync()
        return nullcontext()


@torch.no_grad()
def valid_counts(model: MPMAE, batch: Batch) -> Integer[Tensor, " T"]:
    """How many valid targets each task has in a batch (T,), without running the model."""
    counts = []
    for target in model.task_targets:
        values, valid = target(batch, batch["masked"])
        counts.append((values != losses.IGNORE if valid is None else valid).sum())
    return torch.stack(counts)
