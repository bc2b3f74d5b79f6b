"""Batches' memory: allocated once, handed out as tensors, and used again when nothing refers to them any more."""

from __future__ import annotations

import math
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 64


@dataclass(frozen=True)
class Field:
    """One entry of a batch: its name, dtype and the shape of one sample."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def bytes(self, samples: int) -> int:
        """Bytes of ``samples`` samples, rounded up so that the next field is aligned."""
        exact = samples * self.dtype.itemsize * math.prod(self.shape)
        return -(-exact // _ALIGNMENT) * _ALIGNMENT


class Slot:
    """Memory for one batch of up to ``samples`` samples; ``arrays`` are its fields, (samples, …), to be written."""

    def __init__(self, fields: tuple[Field, ...], samples: int, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.arrays: dict[str, NDArray[Any]] = {}
        start = 0
        for field in fields:
            size = samples * field.dtype.itemsize * math.prod(field.shape)
            self.arrays[field.name] = memory[start : start + size].view(field.dtype).reshape(samples, *field.shape)
            start += field.bytes(samples)


class Ring:
    """Slots for batches of up to ``samples`` samples.

    A batch's tensors are its slot's memory itself, which is used again once no tensor of the batch is alive: a batch
    that is kept is never overwritten. ``pinned`` memory can be copied to a GPU while that computes; who copies it
    keeps the batch until the copy is done.
    """

    def __init__(self, fields: tuple[Field, ...], samples: int, pinned: bool) -> None:
        self._fields, self._samples, self._pinned = fields, samples, pinned
        self._bytes = sum(field.bytes(samples) for field in fields)
        self._free: deque[NDArray[np.uint8]] = deque()

    def take(self) -> Slot:
        """A slot that nobody reads any more."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = torch.empty(self._bytes, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        return Slot(self._fields, self._samples, memory)

    def batch(self, slot: Slot, samples: int) -> dict[str, Tensor]:
        """The first ``samples`` samples of a slot that has been written; they own it from now on."""
        view = slot.memory[:]
        weakref.finalize(view, self._free.append, slot.memory).atexit = False
        flat, found, start = torch.from_numpy(view), {}, 0
        for field in self._fields:
            size = samples * field.dtype.itemsize * math.prod(field.shape)
            dtype = torch.from_numpy(np.empty(0, dtype=field.dtype)).dtype
            found[field.name] = flat[start : start + size].view(dtype).view(samples, *field.shape)
            start += field.bytes(self._samples)
        return found
