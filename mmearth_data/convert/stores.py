"""Writing a store from something else: shard by shard, resumable, and read back at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
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
from mmearth_data.store.shards import ShardData, commit_shard, is_committed, lock

JOURNAL = "_conversion"
"""Where a store that was converted keeps the checksums of what went into it."""
_AT_ONCE = min(4, os.cpu_count() or 1)
"""Shards in work: while one is compressed the next is read. Each takes twice its size in memory, 400 MB at 128 px."""


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


def checksum(array: NDArray[Any]) -> int:
    """CRC-32C of an array's values, row by row."""
    return int(google_crc32c.value(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))


def write_store(new: NewStore, make: Make, progress: Progress) -> StoreReport:
    """Write ``new`` from the shards that ``make`` gives, finalise it, and compare all of it with what was given.

    A shard that is committed is not made again; several threads call ``make``. Raises ConversionError where the
    directory holds something else or values came back otherwise than they went in; StoreError and ShardLocked as the
    store does.
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

    def write(shard: int) -> None:
        with lock(path, shard):
            if not is_committed(path, shard):
                data, counts = make(shard)
                checksums = {name: checksum(array) for name, array in data.arrays.items()}
                journal.finish(shard, {"crc32c": checksums, "counted": dict(counts)})
                commit_shard(path, shard, data)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(write, range(shards)), start=1):
            progress("writing", done, shards)
    statistics.finalize(path, progress)
    return _read_back(journal, open_store(path), progress)


def _read_back(journal: Journal, store: Store, progress: Progress) -> StoreReport:
    """Decode every value through the reader and compare it with its checksum."""

    def counts(shard: int) -> dict[str, int]:
        record = journal.record(shard)
        if record is None:
            raise ConversionError(f"{journal.folder} lacks the record of shard {shard}; remove {store.path}, run again")
        first = shard * store.shard_rows
        for name in store.modalities:
            if checksum(store.read(name, first, first + store.shard_rows)) != record["crc32c"][name]:
                raise ConversionError(
                    f"{name} of shard {shard} of {store.path} is not what was written; check the disk, remove "
                    "the store and run again"
                )
        found: dict[str, int] = record["counted"]
        return found

    counted: Counter[str] = Counter()
    shards = store.rows // store.shard_rows
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, found in enumerate(pool.map(counts, range(shards)), start=1):
            counted.update(found)
            progress("reading back", done, shards)
    stored = store.level != VACANT_FLAG
    splits = {name: int((stored & (store.split == code)).sum()) for code, name in enumerate(SPLITS)}
    return StoreReport(int(stored.sum()), {name: count for name, count in splits.items() if count}, dict(counted))
