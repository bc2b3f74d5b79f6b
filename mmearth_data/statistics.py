"""Statistics of a store in one streaming pass, and finalising it.

Only rows of the train split with complete sentinel2 count, and of those only data. Each run of tiles is reduced to
count, mean and sum of squared deviations, and runs are merged as in Chan, Golub and LeVeque (1983), in row order: the
result does not depend on threads, and no sum of squares is ever subtracted from another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import STORED, Modality
from mmearth_data.store import statistics as store_statistics
from mmearth_data.store.consolidation import consolidate
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.schema import LEVELS
from mmearth_data.store.statistics import BandStatistics, Statistics

SPLIT = "train"
Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) after each step."""

_THREADS = 2
"""Decoding leaves the interpreter free, so a second thread reads while the first computes."""

_log = logging.getLogger(__name__)


@dataclass
class _Moments:
    """Count, mean, sum of squared deviations and extremes of each band, and class counts: a mergeable summary."""

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    classes: NDArray[np.int64]

    @classmethod
    def none(cls, modality: Modality) -> _Moments:
        """The summary of no value."""
        bands = len(modality.bands)
        return cls(
            count=np.zeros(bands, dtype=np.int64),
            mean=np.zeros(bands),
            squares=np.zeros(bands),
            min=np.full(bands, np.inf),
            max=np.full(bands, -np.inf),
            classes=np.zeros(len(modality.classes), dtype=np.int64),
        )

    @classmethod
    def of(cls, modality: Modality, tiles: NDArray[Any]) -> _Moments:
        """The summary of tiles (n, bands, …) in stored units."""
        summary = cls.none(modality)
        for band in range(len(modality.bands)):
            stored = tiles[:, band].reshape(-1)
            valid = modality.valid(stored)
            data = stored if valid.all() else stored[valid]
            summary.count[band] = data.size
            if not data.size:
                continue
            if modality.kind == "categorical":
                values = modality.class_values
                summary.classes += np.bincount(data, minlength=int(values.max()) + 1)[values]
                continue
            values = data.astype(np.float64)
            summary.min[band], summary.max[band] = values.min(), values.max()
            summary.mean[band] = values.mean()
            values -= summary.mean[band]
            # Not np.dot: BLAS would start threads of its own for every band.
            summary.squares[band] = np.square(values, out=values).sum()
        return summary

    def add(self, other: _Moments) -> None:
        """Merge ``other`` into this one."""
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros(len(count)), where=count > 0)
        delta = other.mean - self.mean
        self.squares += other.squares + delta**2 * self.count * share
        self.mean += delta * share
        self.count = count
        self.min, self.max = np.minimum(self.min, other.min), np.maximum(self.max, other.max)
        self.classes = self.classes + other.classes

    def finish(self, modality: Modality) -> BandStatistics:
        """The statistics that the summary amounts to."""
        measured = (self.count > 0) & (modality.kind != "categorical")
        variance = np.divide(self.squares, self.count, out=np.full(len(self.count), np.nan), where=measured)
        return BandStatistics(
            bands=modality.bands,
            count=self.count,
            mean=np.where(measured, self.mean, np.nan),
            std=np.sqrt(variance),
            min=np.where(measured, self.min, np.nan),
            max=np.where(measured, self.max, np.nan),
            class_values=modality.class_values,
            class_counts=self.classes,
        )


_Summaries = dict[tuple[str, str], _Moments]


def _groups(store: Store, modality: Modality, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Rows of each of the modality's groups."""
    groups = store_statistics.groups_of(modality.name)
    if groups == LEVELS:
        return {level: rows[store.level[rows] == index] for index, level in enumerate(LEVELS)}
    return dict.fromkeys(groups, rows)


def _summarise(store: Store, rows: NDArray[np.int64]) -> _Summaries:
    """Summaries of ``rows``, which all lie within one inner chunk."""
    summaries: _Summaries = {}
    start, stop = int(rows[0]), int(rows[-1]) + 1
    for modality in STORED:
        tiles = store.read(modality.name, start, stop)
        for group, members in _groups(store, modality, rows).items():
            picked = tiles if len(members) == stop - start else tiles[members - start]
            summaries[modality.name, group] = _Moments.of(modality, picked)
    return summaries


def _runs(store: Store) -> list[NDArray[np.int64]]:
    """The counted rows, cut where inner chunks end, so that each chunk is decoded once and memory stays small."""
    rows = store.select(SPLIT)
    first = rows // store.shard_rows * store.shard_rows
    chunk = (rows - first) // store.chunk_rows + first
    cuts = np.flatnonzero(np.diff(chunk)) + 1
    return [run for run in np.split(rows, cuts) if run.size]


def compute(path: str | Path, progress: Progress | None = None) -> Statistics:
    """Statistics of the train split of the store at ``path``, which must be consolidated.

    Memory is bounded by a few inner chunks. Raises StoreError where a file is damaged.
    """
    store = open_store(path)
    runs = _runs(store)
    if not runs:
        _log.warning("%s has no complete row in its %s split; its statistics are empty", path, SPLIT)
    totals = {
        (modality.name, group): _Moments.none(modality)
        for modality in STORED
        for group in store_statistics.groups_of(modality.name)
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, summaries in enumerate(pool.map(lambda run: _summarise(store, run), runs), start=1):
            for key, summary in summaries.items():
                totals[key].add(summary)
            if progress:
                progress("statistics", done, len(runs))
    return Statistics(
        split=SPLIT,
        rows=sum(len(run) for run in runs),
        modalities={
            modality.name: {
                group: totals[modality.name, group].finish(modality)
                for group in store_statistics.groups_of(modality.name)
            }
            for modality in STORED
        },
    )


def finalize(path: str | Path, progress: Progress | None = None) -> Statistics:
    """Consolidate the tables of the store at ``path``, compute its statistics and save them there; returns them."""
    consolidate(path)
    if progress:
        progress("consolidation", 1, 1)
    statistics = compute(path, progress)
    store_statistics.save(path, statistics)
    return statistics
