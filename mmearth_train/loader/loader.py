"""The loader: rows of a store in, batches out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_data.store import Store
from mmearth_data.store.statistics import groups_of
from mmearth_train.loader.order import Int, Piece, batch_sizes, pieces, share_bounds, shuffled
from mmearth_train.loader.pipeline import Pipeline
from mmearth_train.loader.ring import Ring
from mmearth_train.loader.samples import Samples, Views
from mmearth_train.masking import below, draw
from mmearth_train.tasks import Scaling

WINDOW_ROWS = 1024
"""Rows shuffled together; with rows permuted when the store was planned this is as good as a full shuffle."""
MEMORY_BYTES = 1 << 30
"""A selection that needs no more than this once decoded is read once and kept."""
AHEAD = 3
"""Batches made before they are asked for, beyond those that the shuffle window has in progress."""
AHEAD_BYTES = 1 << 30
"""Of large batches no more are made ahead than take this much memory, but always one."""
MOST_THREADS = 8

Plan = tuple[list[Piece], Views]
"""What an epoch reads, in order, and which part of each tile it shows."""


class Loader:
    """Delivers ``dict[str, Tensor]`` batches of stored values for chosen rows.

    A batch holds each modality in its stored dtype, (N, bands, crop, crop) or (N, bands), and ``location_id`` and
    ``level`` (N,). The last band axis order is the registry's. With ``augment`` the crop and the flips, shared by all
    modalities, depend on (seed, epoch, location_id) alone; without it crops are central and rows come in store order.
    The batches of an epoch differ by at most one row.

    ``batch_size`` is that of all ``world`` processes together, and so are the batches: they are the same whatever
    ``world`` is. Process ``rank`` is delivered its contiguous share of each; shares differ by at most one row, and one
    is empty where a batch has fewer rows than there are processes.

    With ``scaling`` (mean and deviation per modality, as ``scalings`` gives them) continuous modalities come as
    standardised float32, NaN where there is no data, and classes as int64 indices, −1 where there is none.
    With ``pinned`` batches lie in pinned memory, which is copied to a GPU while that computes; keep a batch until its
    copy is done. ``threads`` decode and crop; by default one for each processor this process may use, at most eight.
    """

    def __init__(
        self,
        store: Store,
        rows: Int,
        modalities: tuple[str, ...],
        *,
        batch_size: int,
        crop: int,
        seed: int,
        augment: bool = True,
        rank: int = 0,
        world: int = 1,
        window_rows: int = WINDOW_ROWS,
        memory_bytes: int = MEMORY_BYTES,
        scaling: Mapping[str, Scaling] | None = None,
        pinned: bool = False,
        threads: int | None = None,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank must be one of 0 to {world - 1}, not {rank}; start each process with its own")
        if not 0 < crop <= store.tile_pixels:
            raise ValueError(f"crop must be 1 to {store.tile_pixels}, the pixels of a side of the tiles, not {crop}")
        self._store, self._rows, self._names = store, np.sort(rows), tuple(dict.fromkeys(modalities))
        if len(twice := self._rows[1:][np.diff(self._rows) == 0]):
            raise ValueError(f"row {twice[0]} is given twice; give each row once, and take more epochs to see it again")
        self._crop, self._seed, self._augment = crop, seed, augment
        self._rank, self._world, self._window_rows = rank, world, window_rows
        self._threads = threads or min(MOST_THREADS, _processors())
        self.batches = -(-len(rows) // batch_size)
        self._sizes = batch_sizes(len(rows), self.batches)
        cuts = share_bounds(self._sizes, world)
        self._samples = cuts[:, rank + 1] - cuts[:, rank]
        self._content = Samples(store, self._names, crop, scaling, self._decoded_bytes() <= memory_bytes)
        self._planner = ThreadPoolExecutor(1, "mmearth-planner")
        self._planned: tuple[tuple[int, int], Future[Plan]] | None = None
        self._ring = Ring(self._content.fields, int(self._samples.max(initial=0)), pinned)
        self._ahead = min(AHEAD, max(1, AHEAD_BYTES // self._ring.slot_bytes))

    def _decoded_bytes(self) -> int:
        pixels = self._store.tile_pixels**2
        stored = [MODALITIES[name] for name in self._names if MODALITIES[name].stored]
        tile = sum(m.numpy_dtype.itemsize * len(m.bands) * (pixels if m.scope == "pixel" else 1) for m in stored)
        return tile * len(np.unique(self._rows // self._store.chunk_rows)) * self._store.chunk_rows

    def order(self, epoch: int) -> Int:
        """All rows once, in the order of ``epoch``, batch after batch."""
        if not self._augment:
            return self._rows
        return shuffled(
            self._rows,
            self._store.location_id[self._rows],
            self._sizes,
            self._seed,
            epoch,
            rows_per_group=self._store.chunk_rows,
            window_rows=self._window_rows,
        )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of ``epoch`` from number ``first`` on, made ahead by threads; each is the caller's to keep.

        Raises StoreError where a tile cannot be read.
        """
        if not len(self._rows):
            return iter(())
        planned, plan = self._planned or (None, None)
        needed, views = plan.result() if plan and planned == (epoch, first) else self._plan(epoch, first)
        if self._augment:
            # Of a million tiles the order takes a second, which a fast trainer would wait at every epoch's start.
            self._planned = (epoch + 1, 0), self._planner.submit(self._plan, epoch + 1, 0)
        pipeline = Pipeline(
            needed,
            self._samples.tolist(),
            self._ring,
            lambda piece, slot_of: self._content.fill(piece, slot_of, views),
            depth=max((piece.last - piece.first for piece in needed), default=0) + 1 + self._ahead,
            threads=self._threads,
        )
        return pipeline.batches(first)

    def _plan(self, epoch: int, first: int) -> Plan:
        span = self._window_rows // max(1, int(self._sizes.min())) + 2
        needed = pieces(
            self.order(epoch),
            self._sizes,
            first,
            rank=self._rank,
            world=self._world,
            rows_per_group=self._store.chunk_rows,
            span=span,
        )
        return needed, self._views(epoch)

    def _views(self, epoch: int) -> Views:
        """The part of each tile that ``epoch`` shows."""
        free = self._store.tile_pixels - self._crop
        if not self._augment:
            centre = np.full((len(self._rows), 2), free // 2)
            return Views(self._rows, centre, np.zeros_like(centre))
        location_id = self._store.location_id[self._rows]
        corner = below(draw(self._seed, epoch, location_id, "crop", 2), free + 1)
        return Views(self._rows, corner, below(draw(self._seed, epoch, location_id, "flip", 2), 2))


def _processors() -> int:
    """Processors that this process may use: all of them where the system does not say (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scalings(store: Store, names: tuple[str, ...]) -> dict[str, Scaling]:
    """What ``Loader`` standardises each continuous one of ``names`` with: the train split's statistics, all bands.

    Those of sentinel2 are per processing level. Raises StoreError where the store has no statistics.
    """
    found = {}
    for name in names:
        if MODALITIES[name].kind == "continuous":
            groups = groups_of(name)
            pairs = [store.statistics.get(name, group).of_bands(MODALITIES[name].bands) for group in groups]
            found[name] = Scaling.checked([mean.tolist() for mean, _ in pairs], [std.tolist() for _, std in pairs])
    return found
