"""From the loader to the device: each step's batch with its masks, in parts small enough to compute on at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmearth_train.distributed import ALONE, Processes
from mmearth_train.masking import split_patches
from mmearth_train.model import PATCHES_PER_SIDE

if TYPE_CHECKING:
    from mmearth_train.loader import Loader

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
        # A variable in a generator would keep one more batch than whoever it was given to: ``map`` has none.
        yield from map(self._parts, placed(self._batches(step, epochs), self._device))

    def _batches(self, step: int, epochs: int) -> Iterator[Batch]:
        """One batch a step in the host's memory; the next epoch's first follows the last one's last."""
        first = step % self.steps_per_epoch
        for epoch in range(step // self.steps_per_epoch, epochs):
            masks = functools.partial(with_masks, seed=self._seed, epoch=epoch)
            yield from map(masks, self._loader.epoch(epoch, first))
            first = 0

    def _parts(self, batch: Batch) -> tuple[Batch, ...]:
        largest = self._together.largest(len(batch["level"]))
        return parts_of(batch, -(-largest // self._at_once))


def with_masks(batch: Batch, seed: int, epoch: int) -> Batch:
    """A batch in the host's memory and the indices of its ``visible`` and ``masked`` patches, (N, K) and (N, M)."""
    visible, masked = split_patches(seed, epoch, batch["location_id"].numpy(), PATCHES_PER_SIDE**2)
    return {**batch, "visible": torch.from_numpy(visible), "masked": torch.from_numpy(masked)}


def parts_of(batch: Batch, count: int) -> tuple[Batch, ...]:
    """A batch as views of ``count`` equal parts; they differ by one sample at most."""
    cut = {name: values.tensor_split(count) for name, values in batch.items()}
    return tuple({name: parts[number] for name, parts in cut.items()} for number in range(count))


def placed(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on ``device``; a thread copies the next one to a GPU while this one is computed on.

    A GPU holds two at a time, three where one is kept while the next is asked for: none is copied before the work on
    the one before last is done, however far ahead of the GPU its host is.
    """
    if device.type == "cpu":
        yield from batches
        return
    copying = copying_stream(device)

    def place(done: torch.cuda.Event | None) -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        if done is not None:
            done.synchronize()
        with torch.cuda.stream(copying):
            copies = {name: values.to(copying.device, non_blocking=True) for name, values in batch.items()}
        copying.synchronize()  # until then the loader must not use the batch's memory again
        return copies

    # A new thread's device is the first GPU, where going back to "its" stream would cost a context of half a gigabyte.
    with ThreadPoolExecutor(1, "mmearth-feed", torch.cuda.set_device, (copying.device,)) as ahead:
        done: torch.cuda.Event | None = None
        pending = ahead.submit(place, None)
        while (batch := pending.result()) is not None:
            pending = ahead.submit(place, done)
            computing = torch.cuda.current_stream(copying.device)
            for name in batch:
                batch[name].record_stream(computing)
            yield batch
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(computing)


@functools.cache
def copying_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream that batches are copied on; one, for memory that was allocated for a stream serves no other."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
