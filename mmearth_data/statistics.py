"""Statistics of a store in one streaming pass over whole shards, and finalising it.

Rows with complete sentinel2 count, each in its split, and of those only data. Every shard is read once, modality by
modality. Integers are counted in tables, whose sum does not depend on the order. Floats are reduced to a summary of the
shard; summaries are merged eight at a time while other shards are read, in an order that depends on the number of
shards alone. So memory is bounded whatever the store's size, and the result is the same whatever the number of threads.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import compute as compute_graph
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray

from mmearth_data.card import write_card
from mmearth_data.counting import Counter
from mmearth_data.modalities import Modality, get
from mmearth_data.splits import SPLITS
from mmearth_data.store import statistics as store_statistics
from mmearth_data.store.consolidation import consolidate
from mmearth_data.store.objects import Place
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.schema import LEVELS, tile_shape
from mmearth_data.store.statistics import TRAINING, BandStatistics, Statistics
from mmearth_data.summary import NO_NUMBERS, Summary, merge_floats, numbers, summarise_counts, summarise_floats

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) after each step."""

_THREADS = 2
"""Decoding leaves the interpreter free, so a second thread reads while the first computes."""
_MERGED_AT_ONCE = 8

_log = logging.getLogger(__name__)

_Summaries = dict[str, dict[int, tuple[Summary, ...]]]
"""One summary per band, by modality and part: the rows of one split and group."""


def _parts(modality: Modality) -> list[tuple[str, str]]:
    """The split and group of each part of the modality's rows."""
    return [(split, group) for split in SPLITS for group in store_statistics.groups_of(modality.name)]


class _Pass:
    """What the threads of one pass over a store share: which rows count, the tables, and memory for each thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.modalities = tuple(map(get, store.modalities))
        self.rows = store.select()
        """Rows that count where they belong to a split."""
        self.counter = Counter({m.name: len(_parts(m)) for m in self.modalities if m.numpy_dtype.kind != "f"})
        self._split = np.full(store.rows, -1, dtype=np.int64)
        for index, split in enumerate(SPLITS):
            self._split[store.select(split)] = index
        self._memory = threading.local()

    def part(self, modality: Modality, first: int, stop: int) -> NDArray[np.int64]:
        """The number of the part that each row from ``first`` to ``stop`` counts in, −1 for none."""
        groups, split = store_statistics.groups_of(modality.name), self._split[first:stop]
        if groups != LEVELS:
            return split
        return np.where(split < 0, -1, split * len(LEVELS) + self.store.level[first:stop])

    def read(self, modality: Modality, first: int, stop: int) -> NDArray[Any]:
        """These rows of the modality; valid until the thread's next call, for fresh pages cost as much as decoding."""
        shape = (stop - first, *tile_shape(modality, self.store.tile_pixels))
        size = math.prod(shape) * modality.numpy_dtype.itemsize
        memory: NDArray[np.uint8] = getattr(self._memory, "bytes", np.empty(0, dtype=np.uint8))
        if memory.size < size:
            memory = self._memory.bytes = np.empty(size, dtype=np.uint8)
        tiles = memory[:size].view(modality.numpy_dtype).reshape(shape)
        return self.store.read(modality.name, first, stop, out=tiles)

    def at_once(self, modality: Modality) -> int:
        """Rows to read together: what the caches hold of them is counted there, but a bucket is asked once a shard."""
        local = isinstance(self.store.path, Path)
        return self.store.chunk_rows if local and modality.scope == "pixel" else self.store.shard_rows


def _summarise(work: _Pass, first: int) -> _Summaries:
    """Count the shard that starts at row ``first``; its integers go to the tables, its floats into summaries."""
    summaries: _Summaries = {}
    last = first + work.store.shard_rows
    for modality in work.modalities:
        floats = modality.numpy_dtype.kind == "f"
        rows = work.store.shard_rows if floats else work.at_once(modality)
        for start in range(first, last, rows):
            tiles, part = work.read(modality, start, start + rows), work.part(modality, start, start + rows)
            if floats:
                summaries[modality.name] = {
                    number: tuple(map(summarise_floats, np.moveaxis(tiles[part == number], 1, 0)))
                    for number in np.unique(part[part >= 0]).tolist()
                }
            else:
                work.counter.add(modality, tiles, part)
    return summaries


def _merge(several: Sequence[_Summaries]) -> _Summaries:
    merged: _Summaries = {}
    for name in several[0]:
        parts = [found[name] for found in several]
        merged[name] = {
            number: tuple(map(merge_floats, zip(*(part[number] for part in parts if number in part), strict=True)))
            for number in sorted(set().union(*parts))
        }
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


class _Progress(Callback):
    """Tells ``progress`` of each shard that was read."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__(posttask=self._posttask)  # type: ignore[no-untyped-call]
        self._progress, self._total, self._done = progress, total, 0

    def _posttask(self, key: object, *_: object) -> None:
        if str(key).startswith(_summarise.__name__):
            self._done += 1
            self._progress("statistics", self._done, self._total)


def _count(work: _Pass, progress: Progress | None) -> _Summaries:
    """Count every shard that has rows that count; the summaries of their floats, merged."""
    size = work.store.shard_rows
    shards = (np.unique(work.rows // size) * size).tolist()
    if not shards:
        return {}
    parts: list[Any] = [delayed(_summarise, traverse=False)(work, first) for first in shards]
    while len(parts) > 1:
        several = [parts[at : at + _MERGED_AT_ONCE] for at in range(0, len(parts), _MERGED_AT_ONCE)]
        parts = [delayed(_merge)(group) if len(group) > 1 else group[0] for group in several]
    with _Progress(progress or (lambda *_: None), len(shards)):
        (summaries,) = compute_graph(parts[0], scheduler="threads", num_workers=_THREADS)  # type: ignore[no-untyped-call]
    result: _Summaries = summaries
    return result


def _by_part(work: _Pass, modality: Modality, floats: _Summaries) -> Iterator[tuple[Summary, ...]]:
    """The summaries of the modality's bands, part by part."""
    nothing = (summarise_floats(np.empty(0, dtype=np.float32)),) * len(modality.bands)
    for number in range(len(_parts(modality))):
        if modality.numpy_dtype.kind == "f":
            yield floats.get(modality.name, {}).get(number, nothing)
        else:
            yield tuple(summarise_counts(modality, counts) for counts in work.counter.counts(modality, number))


def compute(path: str | Place, progress: Progress | None = None) -> dict[str, Statistics]:
    """Statistics of each split of the store at ``path``, which must be consolidated.

    Memory is bounded: a thread holds some tiles of one modality, in object storage those of a shard, and its tables.
    Raises StoreError where a file is damaged.
    """
    store = open_store(path)
    work = _Pass(store)
    floats = _count(work, progress)
    found = {split: Statistics(split, len(store.select(split)), {}) for split in SPLITS}
    for modality in work.modalities:
        for (split, group), bands in zip(_parts(modality), _by_part(work, modality, floats), strict=True):
            found[split].modalities.setdefault(modality.name, {})[group] = _statistics(modality, bands)
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
