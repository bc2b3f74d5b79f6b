"""Batches from the store, in an order that is a pure function of the seed and the epoch.

Rows are read in groups as they lie in the store (its inner chunks). An epoch permutes the groups, and shuffles rows
within a window of groups; every row comes once, and any batch of any epoch can be the first one delivered.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_data.store import Store
from mmearth_train.masking import below, draw

WINDOW_ROWS = 1024
"""Rows shuffled together; with rows permuted when the store was planned this is as good as a full shuffle."""
MEMORY_BYTES = 1 << 30
"""A selection that needs no more than this once decoded is read once and kept."""
PREFETCHED = 4

Arrays = dict[str, NDArray[np.generic]]
Item = TypeVar("Item")


class Loader:
    """Delivers ``dict[str, Tensor]`` batches of stored values for chosen rows.

    A batch holds each modality in its stored dtype, (N, bands, crop, crop) or (N, bands), and ``location_id`` and
    ``level`` (N,). The last band axis order is the registry's. With ``augment`` the crop and the flips, shared by all
    modalities, depend on (seed, epoch, location_id) alone; without it crops are central and rows come in store order.
    The batches of an epoch differ by at most one row, and their number is a multiple of ``multiple``.

    ``batch_size`` is that of all ``world`` processes together, and so are the batches: they are the same whatever
    ``world`` is. Process ``rank`` is delivered its contiguous share of each; shares differ by at most one row.
    """

    def __init__(
        self,
        store: Store,
        rows: NDArray[np.int64],
        modalities: tuple[str, ...],
        *,
        batch_size: int,
        crop: int,
        seed: int,
        augment: bool = True,
        multiple: int = 1,
        rank: int = 0,
        world: int = 1,
        window_rows: int = WINDOW_ROWS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._store, self._rows, self._names = store, np.sort(rows), tuple(dict.fromkeys(modalities))
        self._crop, self._seed, self._augment = crop, seed, augment
        if not 0 <= rank < world:
            raise ValueError(f"rank must be one of 0 to {world - 1}, not {rank}; start each process with its own")
        self._rank, self._world = rank, world
        steps = -(-len(rows) // (batch_size * multiple))
        self.batches = steps * multiple
        self._window = max(1, window_rows // store.chunk_rows)
        self._kept: dict[int, Arrays] | None = {} if self._decoded_bytes() <= memory_bytes else None

    def _decoded_bytes(self) -> int:
        pixels = self._store.tile_pixels**2
        stored = [MODALITIES[name] for name in self._names if MODALITIES[name].stored]
        tile = sum(m.numpy_dtype.itemsize * len(m.bands) * (pixels if m.scope == "pixel" else 1) for m in stored)
        return tile * len(np.unique(self._rows // self._store.chunk_rows)) * self._store.chunk_rows

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All rows once, in the order of ``epoch``."""
        if not self._augment:
            return self._rows
        group_of_row = self._rows // self._store.chunk_rows
        groups = np.unique(group_of_row)
        place = np.argsort(np.argsort(draw(self._seed, epoch, groups, "order", 1)[:, 0], kind="stable"))
        window = place[np.searchsorted(groups, group_of_row)] // self._window
        key = draw(self._seed, epoch, self._store.location_id[self._rows], "row", 1)[:, 0]
        return self._rows[np.lexsort((key, window))]

    def epoch(self, epoch: int, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of ``epoch`` from number ``first`` on, read ahead by a thread."""
        return prefetch(self._batches(epoch, first), PREFETCHED)

    def _batches(self, epoch: int, first: int) -> Iterator[dict[str, Tensor]]:
        batches = [self._share(batch) for batch in np.array_split(self.order(epoch), self.batches)[first:]]
        rows_per_group = self._store.chunk_rows
        groups, counts = np.unique(
            np.concatenate([[], *batches]).astype(np.int64) // rows_per_group, return_counts=True
        )
        due = dict(zip(groups.tolist(), counts.tolist(), strict=True))
        held: dict[int, Arrays] = {}
        for rows in batches:
            for group in np.unique(rows // rows_per_group).tolist():
                if group not in held:
                    held[group] = self._cut(group, epoch)
            parts = [(held[row // rows_per_group], row % rows_per_group) for row in rows.tolist()]
            yield {
                name: torch.from_numpy(np.stack([arrays[name][index] for arrays, index in parts]))
                for name in (*self._names, "location_id", "level")
            }
            for group in (rows // rows_per_group).tolist():
                due[group] -= 1
                if not due[group]:
                    del held[group]

    def _share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        start, stop = (len(batch) * rank // self._world for rank in (self._rank, self._rank + 1))
        return batch[start:stop]

    def _cut(self, group: int, epoch: int) -> Arrays:
        """The crops of one group's rows: a fraction of the tiles, so that a window of them fits in memory."""
        arrays = self._decoded(group)
        start = group * self._store.chunk_rows
        location_id = self._store.location_id[start : start + self._store.chunk_rows]
        free = self._store.tile_pixels - self._crop
        corner = np.full((len(location_id), 2), free // 2)
        flip = np.zeros((len(location_id), 2), dtype=np.int64)
        if self._augment:
            corner = below(draw(self._seed, epoch, location_id, "crop", 2), free + 1)
            flip = below(draw(self._seed, epoch, location_id, "flip", 2), 2)
        cut: Arrays = {}
        for name, values in arrays.items():
            if values.ndim < 4:
                cut[name] = values
                continue
            crops = np.empty((*values.shape[:2], self._crop, self._crop), dtype=values.dtype)
            for row, ((y, x), (vertical, horizontal)) in enumerate(zip(corner, flip, strict=True)):
                crop = values[row, :, y : y + self._crop, x : x + self._crop]
                crops[row] = crop[:, :: 1 - 2 * vertical, :: 1 - 2 * horizontal]
            cut[name] = crops
        return cut

    def _decoded(self, group: int) -> Arrays:
        if self._kept is not None and group in self._kept:
            return self._kept[group]
        start = group * self._store.chunk_rows
        stop = min(start + self._store.chunk_rows, self._store.rows)
        arrays: Arrays = {name: read(self._store, name, start, stop) for name in self._names}
        arrays |= {
            "location_id": self._store.location_id[start:stop],
            "level": self._store.level[start:stop],
        }
        if self._kept is not None:
            self._kept[group] = arrays
        return arrays


def read(store: Store, name: str, start: int, stop: int) -> NDArray[np.generic]:
    """Rows of a modality as stored, or derived from place and time: (rows, bands, y, x) or (rows, bands)."""
    if MODALITIES[name].stored:
        return store.read(name, start, stop)
    return cyclic(name, store.lon[start:stop], store.lat[start:stop], store.time[start:stop])


def cyclic(
    name: str, lon: NDArray[np.float64], lat: NDArray[np.float64], time: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Sine and cosine (rows, 2) of lon or lat in degrees, or of the month of ``time`` (ms since 1970, NaT: NaN)."""
    if name == "month":
        moment = time.astype("datetime64[ms]")
        month = (moment.astype("datetime64[M]").astype(np.int64) % 12).astype(np.float64)
        angle = np.where(np.isnat(moment), np.nan, 2 * np.pi * month / 12)
    else:
        angle = np.deg2rad({"lat": lat, "lon": lon}[name].astype(np.float64))
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def prefetch(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items, up to ``depth`` of them made ahead by a thread; its exception is raised here."""
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> None:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    def produce() -> None:
        try:
            for item in items:
                put((item, None))
                if closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised by the consumer
            put((None, error))
        else:
            put((None, None))

    thread = threading.Thread(target=produce, name="mmearth-loader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        closed.set()
        thread.join()
