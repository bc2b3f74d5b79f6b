"""From the loader to the device: each step's batch with its masks, in parts small enough to compute on at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from mmearth_train.distributed import ALONE, Processes
from mmearth_train.loader import Loader
from mmearth_train.validation import patches_of

Batch = dict[str, Tensor]
"""Stored values by modality, ``location_id`` and ``level`` (N,), ``visible`` (N, K) and ``masked`` (N, M)."""


class Feed:
    """This process's share of each step of a run, ``at_once`` samples at a time at most.

    Shares differ by one sample at most, yet all processes have equally many parts: they may gather weights for each.
    """

    def __init__(
        self, loader: Loader, seed: int, at_once: int, device: torch.device, together: Processes = ALONE
    ) -> None:
        self._loader, self._seed, self._at_once, self._device = loader, seed, at_once, device
        self._together = together
        self.steps_per_epoch = loader.batches

    def steps(self, step: int, epochs: int) -> Iterator[tuple[Batch, ...]]:
        """The micro-batches of each step from number ``step`` on, to the end of the last epoch."""
        first = step % self.steps_per_epoch
        for epoch in range(step // self.steps_per_epoch, epochs):
            for batch in placed(self._masked(epoch, first), self._device):
                largest = self._together.largest(len(batch["level"]))
                yield parts_of(batch, -(-largest // self._at_once))
            first = 0

    def _masked(self, epoch: int, first: int) -> Iterator[Batch]:
        for batch in self._loader.epoch(epoch, first):
            visible, masked = patches_of(batch, self._seed, epoch, torch.device("cpu"))
            yield {**batch, "visible": visible, "masked": masked}


def parts_of(batch: Batch, count: int) -> tuple[Batch, ...]:
    """A batch as views of ``count`` equal parts; they differ by one sample at most."""
    cut = {name: values.tensor_split(count) for name, values in batch.items()}
    return tuple({name: parts[number] for name, parts in cut.items()} for number in range(count))


def placed(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on ``device``; a thread copies the next one to a GPU while this one is computed on."""
    if device.type == "cpu":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def place() -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            copies = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
        stream.synchronize()  # until then the loader must not use the batch's memory again
        return copies

    with ThreadPoolExecutor(1, "mmearth-feed") as ahead:
        pending = ahead.submit(place)
        while (batch := pending.result()) is not None:
            pending = ahead.submit(place)
            for values in batch.values():
                values.record_stream(torch.cuda.current_stream(device))
            yield batch
