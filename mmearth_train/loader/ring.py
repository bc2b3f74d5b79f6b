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


class PinnedMemoryError(RuntimeError):
    """The memory of batches cannot be pinned; the message says how much it is and what needs less."""


@dataclass(frozen=True)
class Field:
    """One entry of a batch: its name, dtype and the shape of one sample."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return self.dtype.itemsize * math.prod(self.shape)

    def bytes(self, samples: int) -> int:
        """Bytes of ``samples`` samples, rounded up so that the next field is aligned."""
        return -(-samples * self.sample_bytes // _ALIGNMENT) * _ALIGNMENT


class Slot:
    """Memory for one batch, to be written: its address, and the bytes from there to each field."""

    def __init__(self, memory: NDArray[np.uint8], offsets: dict[str, int]) -> None:
        self.memory, self.offsets = memory, offsets
        self.address: int = memory.ctypes.data


class Ring:
    """Slots for batches of up to ``samples`` samples.

    A batch's tensors are its slot's memory itself, which is used again once no tensor of the batch is alive: a batch
    that is kept is never overwritten. ``pinned`` memory can be copied to a GPU while that computes; who copies it
    keeps the batch until the copy is done.
    """

    def __init__(self, fields: tuple[Field, ...], samples: int, pinned: bool) -> None:
        self._fields, self._pinned = fields, pinned
        ends = np.cumsum([field.bytes(samples) for field in fields]).tolist()
        self.slot_bytes: int = max(_ALIGNMENT, ends[-1])
        self._offsets = {field.name: start for field, start in zip(fields, [0, *ends[:-1]], strict=True)}
        self._free: deque[NDArray[np.uint8]] = deque()

    def take(self) -> Slot:
        """A slot that nobody reads any more; PinnedMemoryError if there is none and no more can be pinned."""
        while True:
            try:
                return Slot(self._free.pop(), self._offsets)
            except IndexError:
                count = pinned_at_once(self.slot_bytes) if self._pinned else 1
                self._free.extend(self._memory(count * self.slot_bytes).reshape(count, -1))

    def _memory(self, size: int) -> NDArray[np.uint8]:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        except RuntimeError as error:
            if not self._pinned:
                raise
            said = str(error).strip().partition("\n")[0]
            raise PinnedMemoryError(
                f"{size / 2**30:.2f} GiB of this machine's memory cannot be pinned for batches ({said}); "
                "make room, or start again with another --out and a smaller --batch-size"
            ) from error

    def batch(self, slot: Slot, samples: int) -> dict[str, Tensor]:
        """The first ``samples`` samples of a slot that has been written; they own it from now on."""
        view = slot.memory[:]
        weakref.finalize(view, self._free.append, slot.memory).atexit = False
        flat, found = torch.from_numpy(view), {}
        for field in self._fields:
            start = self._offsets[field.name]
            dtype = torch.from_numpy(np.empty(0, dtype=field.dtype)).dtype
            piece = flat[start : start + samples * field.sample_bytes]
            found[field.name] = piece.view(dtype).view(samples, *field.shape)
        return found


def pinned_at_once(slot_bytes: int) -> int:
    """One slot or three, whichever leaves less unused of pinned memory, which torch rounds up to a power of two."""
    return max((1, 3), key=lambda count: count * slot_bytes / (1 << (count * slot_bytes - 1).bit_length()))
