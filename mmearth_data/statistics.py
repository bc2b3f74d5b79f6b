"""Statistics of a store in one streaming pass over whole shards, and finalising it.

Rows with complete sentinel2 count, each in its split, and of those only data. Every shard is read once, modality by
modality, and reduced to a summary; summaries are merged eight at a time while other shards are read, in an order that
depends on the number of shards alone. So memory is bounded whatever the store's size, and the result is the same
whatever the number of threads.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from dask.base import compute as compute_graph
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray

from mmearth_data.card import write_card
from mmearth_data.modalities import MODALITIES, Modality, get
from mmearth_data.splits import SPLITS
from mmearth_data.store import statistics as store_statistics
from mmearth_data.store.consolidation import consolidate
from mmearth_data.store.objects import Place
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.schema import LEVELS, tile_shape
from mmearth_data.store.statistics import TRAINING, BandStatistics, Statistics
from mmearth_data.summary import NO_NUMBERS, Summary, merge, numbers, summarise

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) after each step."""

_THREADS = 2
"""Decoding leaves the interpreter free, so a second thread reads while the first computes."""
_MERGED_AT_ONCE = 8

_log = logging.getLogger(__name__)

_Key = tuple[str, str, str]
_Summaries = dict[_Key, tuple[Summary, ...]]
"""One summary per band, keyed by modality, split and group."""


def _selections(
    store: Store, modality: Modality, rows: NDArray[np.int64]
) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Each split and group of the modality that has any of ``rows``, with those."""
    groups = store_statistics.groups_of(modality.name)
    for index, split in enumerate(SPLITS):
        members = rows[store.split[rows] == index]
        for level, group in enumerate(groups):
            picked = members[store.level[members] == level] if groups == LEVELS else members
            if picked.size:
                yield split, group, picked


class _Shard(threading.local):
    """Memory that one thread reads shard after shard into: fresh pages would cost as much as decoding."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)

    def read(self, store: Store, modality: Modality, first: int) -> NDArray[Any]:
        """The modality in the shard that starts at row ``first``; valid until the thread's next call."""
        shape = (store.shard_rows, *tile_shape(modality, store.tile_pixels))
        size = math.prod(shape) * modality.numpy_dtype.itemsize
        if self._memory.size < size:
            self._memory = np.empty(size, dtype=np.uint8)
        tiles = self._memory[:size].view(modality.numpy_dtype).reshape(shape)
        return store.read(modality.name, first, first + store.shard_rows, out=tiles)


def _summarise(store: Store, memory: _Shard, rows: NDArray[np.int64]) -> _Summaries:
    """Summaries of ``rows``, which all lie in one shard; the shard's file of each modality is read once."""
    first = int(rows[0]) // store.shard_rows * store.shard_rows
    summaries: _Summaries = {}
    for modality in map(get, store.modalities):
        tiles = memory.read(store, modality, first)
        for split, group, members in _selections(store, modality, rows):
            summaries[modality.name, split, group] = tuple(
                summarise(modality, tiles[members - first, band]) for band in range(len(modality.bands))
            )
    return summaries


def _merge(parts: Sequence[_Summaries]) -> _Summaries:
    merged: _Summaries = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        having = [part[key] for part in parts if key in part]
        merged[key] = tuple(merge(MODALITIES[key[0]], band) for band in zip(*having, strict=True))
    return merged


def _statistics(modality: Modality, bands: tuple[Summary, ...]) -> BandStatistics:
    categorical = modality.kind == "categorical"
    found = [NO_NUMBERS if categorical else numbers(modality, summary) for summary in bands]
    values = modality.class_values
    counts = np.zeros(int(values.max(initial=-1)) + 1, dtype=np.int64)
    for summary in bands if categorical else ():
        known = summary.keys < counts.size
        counts[summary.keys[known]] += summary.counts[known]
    return BandStatistics(
        bands=modality.bands,
        count=np.array([summary.count for summary in bands], dtype=np.int64),
        no_data=np.array([summary.no_data for summary in bands], dtype=np.int64),
        mean=np.array([band.mean for band in found]),
        std=np.array([band.std for band in found]),
        min=np.array([band.min for band in found]),
        max=np.array([band.max for band in found]),
        percentiles=np.stack([band.percentiles for band in found]),
        histograms=tuple(band.histogram for band in found),
        class_values=values,
        class_counts=counts[values] if categorical else np.empty(0, dtype=np.int64),
    )


class _Count(Callback):
    """Tells ``progress`` of each shard that was read."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__(posttask=self._posttask)  # type: ignore[no-untyped-call]
        self._progress, self._total, self._done = progress, total, 0

    def _posttask(self, key: object, *_: object) -> None:
        if str(key).startswith(_summarise.__name__):
            self._done += 1
            self._progress("statistics", self._done, self._total)


def _reduce(store: Store, shards: list[NDArray[np.int64]], progress: Progress | None) -> _Summaries:
    """The merged summaries of ``shards``, each given by its rows that count."""
    if not shards:
        return {}
    memory = _Shard()
    parts: list[Any] = [delayed(_summarise, traverse=False)(store, memory, rows) for rows in shards]
    while len(parts) > 1:
        several = [parts[at : at + _MERGED_AT_ONCE] for at in range(0, len(parts), _MERGED_AT_ONCE)]
        parts = [delayed(_merge)(group) if len(group) > 1 else group[0] for group in several]
    with _Count(progress or (lambda *_: None), len(shards)):
        (summaries,) = compute_graph(parts[0], scheduler="threads", num_workers=_THREADS)  # type: ignore[no-untyped-call]
    result: _Summaries = summaries
    return result


def compute(path: str | Place, progress: Progress | None = None) -> dict[str, Statistics]:
    """Statistics of each split of the store at ``path``, which must be consolidated.

    Memory is bounded by two shards of the largest modality. Raises StoreError where a file is damaged.
    """
    store = open_store(path)
    rows = store.select()
    cuts = np.flatnonzero(np.diff(rows // store.shard_rows)) + 1
    summaries = _reduce(store, [part for part in np.split(rows, cuts) if part.size], progress)
    empty = Summary(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), 0)
    found = {
        split: Statistics(
            split=split,
            rows=len(store.select(split)),
            modalities={
                modality.name: {
                    group: _statistics(
                        modality, summaries.get((modality.name, split, group), (empty,) * len(modality.bands))
                    )
                    for group in store_statistics.groups_of(modality.name)
                }
                for modality in map(get, store.modalities)
            },
        )
        for split in SPLITS
    }
    if not found[TRAINING].rows:
        _log.warning("%s has no complete row in its %s split; its statistics are empty", path, TRAINING)
    return found


def finalize(path: str | Place, progress: Progress | None = None) -> dict[str, Statistics]:
    """Consolidate the tables of the store at ``path``, save its statistics and its card there; returns the former."""
    consolidate(path)
    if progress:
        progress("consolidation", 1, 1)
    statistics = compute(path, progress)
    store_statistics.save(path, *statistics.values())
    write_card(path)
    return statistics
