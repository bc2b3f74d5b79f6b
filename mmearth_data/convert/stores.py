"""Writing a store from something else: shard by shard, resumable, and read back at the end."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data import statistics
from mmearth_data.convert.journal import ConversionError, Journal, Progress
from mmearth_data.modalities import STORED, Modality
from mmearth_data.splits import SPLITS
from mmearth_data.store import layout
from mmearth_data.store.codecs import DEFAULT_CODECS, CodecSet
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.schema import VACANT_FLAG
from mmearth_data.store.shards import ShardData, commit_shard, committed, lock

JOURNAL = "_conversion"
"""Where a store that was converted keeps the checksums of what went into it."""


@dataclass(frozen=True)
class NewStore:
    """The store to write: its sizes and root attributes, and the settings that a resumed run must share."""

    path: Path
    tile_pixels: int
    shard_rows: int
    rows: int
    attrs: dict[str, Any]
    settings: dict[str, Any]
    codecs: CodecSet = DEFAULT_CODECS
    modalities: tuple[Modality, ...] = STORED


@dataclass(frozen=True)
class StoreReport:
    """What is in the store that was written: rows with a tile, by split, and what each shard's maker counted."""

    stored: int
    splits: dict[str, int]
    counted: dict[str, int]


Make = Callable[[int], tuple[ShardData, Counter[str]]]
"""Makes a shard by its number, and counts what its caller wants to know of it."""


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def write_store(new: NewStore, make: Make, progress: Progress) -> StoreReport:
    """Write ``new`` from the shards that ``make`` gives, finalise it, and compare all of it with what was given.

    A shard that is committed is not made again. Raises ConversionError where the directory holds something else or
    values came back otherwise than they went in; StoreError and ShardLocked as the store does.
    """
    path = new.path
    journal = Journal.begin(path / JOURNAL, new.settings)
    if not (path / "zarr.json").exists():
        layout.create(
            path,
            tile_pixels=new.tile_pixels,
            shard_rows=new.shard_rows,
            attrs=new.attrs,
            codecs=new.codecs,
            modalities=new.modalities,
        )
    layout.resize(path, new.rows)
    shards = new.rows // new.shard_rows
    for shard in range(shards):
        with lock(path, shard):
            if shard not in committed(path):
                data, counts = make(shard)
                digests = {name: digest(array) for name, array in data.arrays.items()}
                journal.finish(shard, {"sha256": digests, "counted": dict(counts)})
                commit_shard(path, shard, data)
        progress("writing", shard + 1, shards)
    statistics.finalize(path, progress)
    return _read_back(journal, open_store(path), progress)


def _read_back(journal: Journal, store: Store, progress: Progress) -> StoreReport:
    """Decode every value through the reader and compare it with its checksum."""
    counted: Counter[str] = Counter()
    shards = store.rows // store.shard_rows
    for shard in range(shards):
        record = journal.record(shard)
        if record is None:
            raise ConversionError(f"{journal.folder} lacks the record of shard {shard}; remove {store.path}, run again")
        first = shard * store.shard_rows
        for name in store.modalities:
            if digest(store.read(name, first, first + store.shard_rows)) != record["sha256"][name]:
                raise ConversionError(
                    f"{name} of shard {shard} of {store.path} is not what was written; check the disk, remove "
                    "the store and run again"
                )
        counted.update(record["counted"])
        progress("reading back", shard + 1, shards)
    stored = store.level != VACANT_FLAG
    splits = {name: int((stored & (store.split == code)).sum()) for code, name in enumerate(SPLITS)}
    return StoreReport(int(stored.sum()), {name: count for name, count in splits.items() if count}, dict(counted))
