"""Committing a shard: checked, encoded, written file by file, and real from the moment its record is there.

A shard is written whole by one writer. Killed at any moment before the commit record is renamed into place it does
not exist; the next try overwrites what was left and makes the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from zarr import Array, AsyncArray
from zarr.storage import MemoryStore, StorePath

from mmearth_data.modalities import STORED, Modality
from mmearth_data.store.commits import (
    CommitRecord,
    FileRecord,
    array_file_name,
    committed,
    committed_already,
    is_committed,
    record_file,
    row_table,
    row_tables,
    table_name,
    write_record,
)
from mmearth_data.store.files import StoreError, remove_left_overs, sha256, write_atomic
from mmearth_data.store.layout import Layout, read_layout
from mmearth_data.store.locking import ShardLocked, held, lock, renew
from mmearth_data.store.objects import Place
from mmearth_data.store.rows import STORED_OUTCOME, VACANT_OUTCOME, commit_schema, row_schema
from mmearth_data.store.schema import Status, tile_shape
from mmearth_data.store.verification import Finding, verify

__all__ = [
    "Finding",
    "ShardData",
    "ShardLocked",
    "commit_shard",
    "committed",
    "is_committed",
    "lock",
    "no_data",
    "row_table",
    "row_tables",
    "verify",
]


@dataclass(frozen=True)
class ShardData:
    """One shard as it is committed.

    ``arrays``: per stored modality (rows, bands, y, x) or (rows, bands) in its stored dtype, no-data in vacant rows;
    ``status``: uint8 (rows, stored modalities), values of Status; ``table``: that of ``row_schema``,
    one line per row in order.
    """

    arrays: Mapping[str, NDArray[Any]]
    status: NDArray[np.uint8]
    table: pa.Table


def no_data(tile_pixels: int, rows: int, stored: Sequence[Modality] = STORED) -> dict[str, NDArray[Any]]:
    """Arrays of ``rows`` rows of every stored modality, filled with no-data: what a shard holds before its tiles."""
    return {m.name: np.full((rows, *tile_shape(m, tile_pixels)), m.nodata, dtype=m.numpy_dtype) for m in stored}


def _check_arrays(layout: Layout, data: ShardData) -> None:
    stored = layout.modalities
    names = [modality.name for modality in stored]
    if set(data.arrays) != set(names):
        wrong = sorted(set(data.arrays) ^ set(names))
        raise StoreError(f"a shard holds every stored modality and no other; check {', '.join(wrong)}")
    for modality in stored:
        array, shape = data.arrays[modality.name], (layout.shard_rows, *tile_shape(modality, layout.tile_pixels))
        if array.shape != shape or array.dtype != modality.numpy_dtype:
            raise StoreError(
                f"{modality.name} of a shard must be {modality.dtype} {shape}, not {array.dtype} {array.shape}"
            )
    if data.status.dtype != np.uint8 or data.status.shape != (layout.shard_rows, len(stored)):
        raise StoreError(
            f"status of a shard must be uint8 {(layout.shard_rows, len(stored))}, "
            f"not {data.status.dtype} {data.status.shape}"
        )


def _check_table(layout: Layout, shard: int, data: ShardData) -> None:
    table, schema = data.table, row_schema(layout.modalities)
    if table.schema.names != schema.names or table.schema.types != schema.types:
        raise StoreError(
            "the row table of a shard must have row_schema; make it with mmearth_data.store.rows.row_table"
        )
    first = shard * layout.shard_rows
    expected = np.arange(first, first + layout.shard_rows)
    if not np.array_equal(table["row"].to_numpy(), expected):
        raise StoreError(f"the row table of shard {shard} must list rows {first} to {expected[-1]} in order")


def _check_outcomes(layout: Layout, shard: int, data: ShardData, fractions: Mapping[str, NDArray[np.float32]]) -> None:
    """Status, pixels and the table's reasons must tell the same story of every row."""
    first, table = shard * layout.shard_rows, data.table
    outcome = np.array(table["outcome"].to_pylist())
    reason = np.array(table["reason"].to_pylist()) != ""
    located = table["location_id"].to_numpy() != 0
    stored = outcome == STORED_OUTCOME
    sentinel2 = data.status[:, [modality.name for modality in layout.modalities].index("sentinel2")]

    def refuse(rows: NDArray[np.bool_], rule: str) -> None:
        if rows.any():
            raise StoreError(f"{rule}; row {first + int(np.argmax(rows))} does not keep to that")

    refuse(~np.isin(outcome, (STORED_OUTCOME, VACANT_OUTCOME)), "outcome must be 'stored' or 'vacant'")
    refuse(stored & ~located, "a stored row must have a location_id")
    refuse(stored & ~np.isin(sentinel2, (Status.COMPLETE, Status.PARTIAL)), "a stored row must have sentinel2")
    refuse(stored & np.array(table["time"].is_null()), "a stored row must have the time of its acquisition")
    refuse(reason != (located & ~stored), "a row must give a reason where its location gave way, and only there")
    for index, modality in enumerate(layout.modalities):
        name, status = modality.name, data.status[:, index]
        some = (fractions[name] > 0).any(axis=1)
        explained = np.array(table[f"absent_{name}"].to_pylist()) != ""
        present = np.isin(status, (Status.COMPLETE, Status.PARTIAL))
        absent = status == Status.ABSENT
        refuse(stored == (status == Status.VACANT), f"{name} must have status vacant in vacant rows, and only there")
        refuse(stored & ~present & ~absent, f"status of {name} must be a value of Status")
        refuse(present != some, f"{name} must have data where its status is complete or partial, and only there")
        refuse(absent != explained, f"absent_{name} must give a reason where the status is absent, and only there")


def _valid_fraction(modality: Modality, array: NDArray[Any]) -> NDArray[np.float32]:
    """Fraction of each row's band that is data, shape (rows, bands)."""
    fractions = np.empty(array.shape[:2], dtype=np.float32)
    for row, tile in enumerate(array):
        valid = modality.valid(tile)
        # Counted along an axis, NumPy makes 64-bit numbers of all values first.
        fractions[row] = np.array([np.count_nonzero(band) for band in valid]) / valid[0].size
    return fractions


def _encode(document: dict[str, Any], shard_rows: int, array: NDArray[Any]) -> bytes:
    """The bytes of one Zarr shard of the array that ``document`` describes, every inner chunk present."""
    one_shard: Any = {**document, "shape": [shard_rows, *document["shape"][1:]]}
    memory: dict[str, Any] = {}
    # Without write_empty_chunks Zarr leaves out a file that is all no-data, and a missing file reads as no-data too.
    # It is set here and not in Zarr's global configuration because several shards are encoded at once.
    target = AsyncArray(
        metadata=one_shard,
        store_path=StorePath(MemoryStore(memory)),
        config={"order": "C", "write_empty_chunks": True},
    )
    Array(target)[:] = array
    (content,) = memory.values()
    return bytes(content.to_bytes())


def _encode_table(stored: Sequence[Modality], data: ShardData, fractions: Mapping[str, NDArray[np.float32]]) -> bytes:
    columns = [data.table[name].combine_chunks() for name in row_schema(stored).names]
    columns += [pa.array(data.status[:, index]) for index in range(len(stored))]
    for modality in stored:
        values = pa.array(fractions[modality.name].reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(values, len(modality.bands)))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=commit_schema(stored)), buffer, compression="zstd")
    return buffer.getvalue()


def commit_shard(path: str | Place, shard: int, data: ShardData) -> None:
    """Write ``shard`` of the store at ``path`` and commit it.

    Takes the shard's lock unless this process holds it already. Raises StoreError where the data do not fit the
    store, status and pixels and reasons disagree, the shard is committed already or a file cannot be written (the
    shard then stays uncommitted); ShardLocked where another writer has it.
    """
    layout = read_layout(path)
    if not 0 <= shard < layout.shards:
        raise StoreError(f"{path} has room for shards 0 to {layout.shards - 1}, not {shard}; resize it first")
    _check_arrays(layout, data)
    _check_table(layout, shard, data)
    fractions = {m.name: _valid_fraction(m, data.arrays[m.name]) for m in layout.modalities}
    _check_outcomes(layout, shard, data, fractions)
    with nullcontext() if held(path, shard) else lock(path, shard):
        if is_committed(path, shard):
            raise committed_already(path, shard)
        files: dict[str, FileRecord] = {}
        record = record_file(path, shard).name

        def put(name: str, content: bytes) -> None:
            renew(path, shard)
            write_atomic(layout.path / name, content)
            remove_left_overs((layout.path / name).parent, {(layout.path / name).name, record})
            files[name] = FileRecord(len(content), sha256(content))

        for modality in layout.modalities:
            content = _encode(layout.arrays[modality.name], layout.shard_rows, data.arrays[modality.name])
            put(array_file_name(modality, shard), content)
        put(table_name(shard), _encode_table(layout.modalities, data, fractions))
        renew(path, shard)
        write_record(path, CommitRecord(shard, files))
