"""What a batch's values are made of: decoded groups of tiles, cropped and flipped into place, scaled if asked for."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import MODALITIES, Modality
from mmearth_data.store import Store
from mmearth_data.store.planes import Block
from mmearth_data.store.schema import tile_shape
from mmearth_train.loader import kernels
from mmearth_train.loader.derived import read
from mmearth_train.loader.order import Int, Piece
from mmearth_train.loader.ring import Field, Slot
from mmearth_train.losses import IGNORE
from mmearth_train.tasks import Scaling

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Views:
    """Where an epoch cuts each of ``rows`` (ascending): ``corner`` y, x and ``flip`` vertical, horizontal (rows, 2)."""

    rows: Int
    corner: Int
    flip: Int


class _Scratch(threading.local):
    """Memory that one thread decodes one modality of a group after the other into, so that the cache holds it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array that is valid until this thread's next call."""
        size = math.prod(shape) * dtype.itemsize
        if self._memory.size < size:
            self._memory = np.empty(size, dtype=np.uint8)
        return self._memory[:size].view(dtype).reshape(shape)


class Samples:
    """Fills batches with modalities of a store.

    With ``scaling`` continuous values are delivered as float32, standardised, NaN where there is no data, and classes
    as indices, IGNORE where there is none; otherwise everything is as stored. With ``keep`` each group is decoded once
    and stays in memory. Values of whole locations are read once per shard and kept in any case.
    """

    def __init__(
        self, store: Store, names: tuple[str, ...], crop: int, scaling: Mapping[str, Scaling] | None, keep: bool
    ) -> None:
        self._store, self._scaling = store, scaling
        self._pixel = tuple(MODALITIES[name] for name in names if MODALITIES[name].scope == "pixel")
        self._image = tuple(MODALITIES[name] for name in names if MODALITIES[name].scope == "image")
        self._kept: dict[int, Arrays] | None = {} if keep else None
        self._of_shard: dict[int, Arrays] = {}
        self._crop = crop
        self._scratch = _Scratch()
        by_name = {m.name: self._field(m, crop if m.scope == "pixel" else None) for m in (*self._pixel, *self._image)}
        facts = (Field("location_id", np.dtype(np.int64), ()), Field("level", np.dtype(np.uint8), ()))
        self.fields: tuple[Field, ...] = (*(by_name[name] for name in names), *facts)
        if scaling is not None:
            self._mean = {name: np.array(s.mean, dtype=np.float32) for name, s in scaling.items()}
            self._std = {name: np.array(s.std, dtype=np.float32) for name, s in scaling.items()}

    def _field(self, modality: Modality, crop: int | None) -> Field:
        shape = (len(modality.bands),) if crop is None else (len(modality.bands), crop, crop)
        dtype = modality.numpy_dtype
        if self._scaling is not None:
            dtype = np.dtype(np.int64 if modality.kind == "categorical" else np.float32)
        return Field(modality.name, dtype, shape)

    def fill(self, piece: Piece, slot_of: Callable[[int], Slot], views: Views) -> None:
        """Write the rows of ``piece`` into the slots of their batches."""
        start = piece.group * self._store.chunk_rows
        facts = self._facts(start // self._store.shard_rows)
        in_shard = start % self._store.shard_rows + piece.row
        at = np.searchsorted(views.rows, start + piece.row)
        corner, flip, level = views.corner[at], views.flip[at], np.minimum(facts["level"][in_shard], 1)
        parts = piece.parts()
        slots = [slot_of(batch) for batch, _ in parts]
        origin = np.repeat([slot.address for slot in slots], [part.stop - part.start for _, part in parts])
        target = {f.name: origin + slots[0].offsets[f.name] + piece.place * f.sample_bytes for f in self.fields}
        place = np.full(self._store.chunk_rows, -1)
        place[piece.row] = np.arange(len(piece.row))
        for modality in self._pixel:
            where = (place, corner, flip, target[modality.name], self._crop)
            self._put(modality, self._blocks(piece.group, modality), where, level)
        for name, values in facts.items():
            kernels.place(values.view(np.uint8).reshape(len(values), -1), in_shard, target[name])

    def _put(
        self, modality: Modality, blocks: Iterable[Block], where: tuple[Any, ...], level: NDArray[np.uint8]
    ) -> None:
        side, bands, like = self._store.tile_pixels, len(modality.bands), np.empty(0, modality.numpy_dtype)
        kernel, how = self._kernel(modality, level)
        for first, values, low, high in blocks:
            kernel(low, high, first // side**2, values // side**2, side, bands, *where, like, *how)

    def _kernel(self, modality: Modality, level: NDArray[np.uint8]) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """What brings a modality's values into a batch, and what it is told besides where."""
        if self._scaling is None:
            return kernels.copy, ()
        if modality.kind == "categorical":
            return kernels.look_up, (self._table(modality),)
        mean, std = self._of_level(modality.name, level)
        return kernels.scale, (mean, std, modality.numpy_dtype.type(modality.nodata))

    def _of_level(self, name: str, level: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean, std = self._mean[name], self._std[name]
        row = level if len(mean) > 1 else np.zeros_like(level)
        return mean[row], std[row]

    def _table(self, modality: Modality) -> Int:
        table = np.full(256**modality.numpy_dtype.itemsize, IGNORE, dtype=np.int64)
        table[modality.class_values] = np.arange(len(modality.classes))
        return table

    def _blocks(self, group: int, modality: Modality) -> Iterable[Block]:
        """Whole tiles of a group: kept, or block by block in this thread's scratch, each until it is asked for more."""
        start, stop = group * self._store.chunk_rows, (group + 1) * self._store.chunk_rows
        shape = (self._store.chunk_rows, *tile_shape(modality, self._store.tile_pixels))
        if self._kept is not None:
            kept = self._kept.setdefault(group, {})
            if modality.name not in kept:
                # The first copy stays: another thread may be reading it by its address.
                kept.setdefault(modality.name, self._store.read(modality.name, start, stop))
            tiles = kept[modality.name]
        else:
            scratch = self._scratch.array(shape, modality.numpy_dtype)
            blocks = self._store.blocks(modality.name, start, scratch.reshape(-1).view(np.uint8))
            if blocks is not None:
                return blocks
            tiles = self._store.read(modality.name, start, stop, out=scratch)
        return (Block(0, tiles.size, tiles.ctypes.data, 0),)

    def _facts(self, shard: int) -> Arrays:
        """Values of whole locations of a shard's rows, as they are delivered."""
        if shard not in self._of_shard:
            rows = self._store.shard_rows
            start, stop = shard * rows, (shard + 1) * rows
            level = self._store.level[start:stop]
            values = {m.name: self._scaled(m, read(self._store, m.name, start, stop), level) for m in self._image}
            values |= {"location_id": self._store.location_id[start:stop], "level": level}
            self._of_shard[shard] = {name: np.ascontiguousarray(array) for name, array in values.items()}
        return self._of_shard[shard]

    def _scaled(self, modality: Modality, values: NDArray[Any], level: NDArray[np.uint8]) -> NDArray[Any]:
        if self._scaling is None:
            return values
        if modality.kind == "categorical":
            indices: NDArray[Any] = self._table(modality)[values]
            return indices
        if modality.kind == "cyclic":
            return values
        mean, std = self._of_level(modality.name, np.minimum(level, 1))
        return np.where(modality.valid(values), (values.astype(np.float32) - mean) / std, np.float32(np.nan))
