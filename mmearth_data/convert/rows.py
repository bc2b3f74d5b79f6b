"""The stored rows of a store, shard by shard, for conversions that leave vacant rows out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import get
from mmearth_data.store.commits import row_table
from mmearth_data.store.reader import Store
from mmearth_data.store.rows import STORED_OUTCOME, row_schema
from mmearth_data.store.schema import Status


@dataclass(frozen=True)
class Rows:
    """Some stored rows: their lines of the row table, status names by modality, and every stored modality's values."""

    records: list[dict[str, Any]]
    status: list[dict[str, int]]
    arrays: dict[str, NDArray[Any]]


def stored_rows(store: Store, shard: int) -> Iterator[Rows]:
    """The stored rows of ``shard`` in order, at most an inner chunk of the store at a time."""
    table = row_table(store.path, shard)
    names = store.modalities
    records = table.select(row_schema([get(name) for name in names]).names).to_pylist()
    codes = zip(*(table[f"status_{name}"].to_pylist() for name in names), strict=True)
    status = [dict(zip(names, line, strict=True)) for line in codes]
    first = shard * store.shard_rows
    for start in range(0, store.shard_rows, store.chunk_rows):
        stop = min(start + store.chunk_rows, store.shard_rows)
        kept = [at for at in range(start, stop) if records[at]["outcome"] == STORED_OUTCOME]
        if not kept:
            continue
        inside = np.array(kept) - start
        arrays = {name: store.read(name, first + start, first + stop)[inside] for name in names}
        yield Rows([records[at] for at in kept], [status[at] for at in kept], arrays)


def facts(record: dict[str, Any], status: dict[str, int]) -> dict[str, Any]:
    """What is known of a row, for JSON: its line of the row table without nulls, and each modality's status by word."""
    known = {name: value for name, value in record.items() if value not in (None, "") and value == value}
    return {**known, "status": {name: Status(code).name.lower() for name, code in status.items()}}
