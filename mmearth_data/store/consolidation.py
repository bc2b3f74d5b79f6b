"""Consolidating: one table of all rows, and the per-row arrays, from the row tables of committed shards.

Everything here can be made again at any time from the commits; the same commits give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from mmearth_data.modalities import Modality
from mmearth_data.splits import SPLITS
from mmearth_data.store import rows
from mmearth_data.store.commits import committed, row_tables
from mmearth_data.store.files import StoreError, asking, remove_left_overs, unwritable, writing, zarr_store
from mmearth_data.store.layout import COMMITS, LOCATIONS, Layout, read_layout
from mmearth_data.store.locking import exclusive
from mmearth_data.store.objects import Place
from mmearth_data.store.rows import commit_schema
from mmearth_data.store.schema import LEVELS, NO_TIME, PER_ROW_ARRAYS, VACANT_FLAG

_GEOMETRY = pa.field("geometry", pa.binary())
_SIDES = {"xmin": "lon", "ymin": "lat", "xmax": "lon", "ymax": "lat"}
"""The sides of a row's bounding box, and the columns that they equal: the box of a point is the point."""
_COVERING = pa.field("bbox", pa.struct([(side, pa.float64()) for side in _SIDES]))
"""Plain numbers whose Parquet statistics let readers skip row groups by place."""
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Point"],
            "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
        }
    },
}
"""GeoParquet 1.1.0 file metadata; without a crs entry coordinates are longitude, latitude (OGC:CRS84)."""
_ROWS_PER_GROUP = 16384
_WKB_POINT = np.dtype([("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])


def _points(table: pa.Table) -> pa.Array:
    """Cell centres as WKB points; null where no location has the row."""
    points = np.empty(table.num_rows, dtype=_WKB_POINT)
    points["order"], points["type"] = 1, 1
    points["x"], points["y"] = (rows.values(table, name, np.nan) for name in ("lon", "lat"))
    # Each point has as many bytes as the next, so the offsets of a variable-length column are a plain range.
    offsets = np.arange(table.num_rows + 1, dtype=np.int32) * _WKB_POINT.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(points.tobytes())]
    every = pa.Array.from_buffers(pa.binary(), table.num_rows, buffers)
    located = pc.not_equal(table["location_id"].combine_chunks(), 0)
    return pc.if_else(located, every, pa.scalar(None, pa.binary()))


def _boxes(table: pa.Table) -> pa.Array:
    """Bounding boxes of the points; null where no location has the row."""
    sides = [table[column].combine_chunks() for column in _SIDES.values()]
    vacant = pc.equal(table["location_id"].combine_chunks(), 0)
    return pa.StructArray.from_arrays(sides, fields=list(_COVERING.type), mask=vacant)


def _row_values(table: pa.Table, stored_modalities: Sequence[Modality]) -> dict[str, NDArray[Any]]:
    """Values of every per-row array for the rows of ``table``."""
    stored = rows.is_stored(table)
    values: dict[str, NDArray[Any]] = {
        "location_id": table["location_id"].to_numpy(),
        "lon": rows.values(table, "lon", np.nan),
        "lat": rows.values(table, "lat", np.nan),
        "time": np.where(stored, rows.values(table, "time", NO_TIME), NO_TIME),
        "level": np.where(stored, rows.codes(table, "level", LEVELS, VACANT_FLAG), VACANT_FLAG),
        "split": np.where(stored, rows.codes(table, "split", SPLITS, VACANT_FLAG), VACANT_FLAG),
        **{name: rows.values(table, name, 0) for name in ("epsg", "x0", "y0", "year")},
    }
    for modality in stored_modalities:
        fractions = table[f"valid_fraction_{modality.name}"].combine_chunks().flatten().to_numpy()
        values[f"valid_fraction_{modality.name}"] = fractions.reshape(table.num_rows, len(modality.bands))
    status = [table[f"status_{modality.name}"].to_numpy() for modality in stored_modalities]
    values["status"] = np.stack(status, axis=1)
    return values


def _tables(layout: Layout, shards: list[int]) -> Iterator[pa.Table]:
    """Row tables in row order, several shards at a time so that Parquet's row groups are not tiny."""
    batch: list[pa.Table] = []
    for table in row_tables(layout.path, shards):
        batch.append(table)
        if len(batch) * layout.shard_rows >= _ROWS_PER_GROUP:
            yield pa.concat_tables(batch).combine_chunks()
            batch = []
    if batch:
        yield pa.concat_tables(batch).combine_chunks()


def consolidate(path: str | Place) -> None:
    """Write ``locations.parquet`` (GeoParquet 1.1.0) and fill the per-row arrays from every committed shard.

    Rows of shards that are not committed are not in the table and stay vacant in the arrays. ``status`` is written
    after the other arrays and the table last, each whole or not at all: a reader never sees a row before its facts.
    One process consolidates a store at a time; others wait. Raises StoreError where a row table is damaged or a file
    cannot be written.
    """
    place = read_layout(path).path  # what is no store is refused before anything is made there
    with exclusive(place / COMMITS / "consolidate.lock"):
        remove_left_overs(place)
        # Shards are listed first, and only now: what others add while we wait or work then has room in the layout.
        shards = sorted(committed(place))
        layout = read_layout(place)
        if shards and shards[-1] >= layout.shards:
            raise StoreError(
                f"shard {shards[-1]} of {place} is committed and the store has room for {layout.shards}; "
                "restore its zarr.json from the newest copy"
            )
        _consolidate(layout, shards)


def _consolidate(layout: Layout, shards: list[int]) -> None:
    with asking(layout.path, "read"):
        group = zarr.open_group(zarr_store(layout.path), mode="r+", use_consolidated=True)
    names = [*PER_ROW_ARRAYS, *(f"valid_fraction_{modality.name}" for modality in layout.modalities), "status"]
    schema = pa.schema([*commit_schema(layout.modalities), _GEOMETRY, _COVERING], metadata={"geo": json.dumps(_GEO)})
    arrays = {name: _writable(group, name) for name in names}
    filled = {name: np.full(array.shape, array.fill_value, dtype=array.dtype) for name, array in arrays.items()}
    file = layout.path / LOCATIONS
    try:
        with writing(file) as content:
            with pq.ParquetWriter(content, schema, compression="zstd", write_page_checksum=True) as writer:
                for table in _tables(layout, shards):
                    at = table["row"].to_numpy()
                    for name, values in _row_values(table, layout.modalities).items():
                        filled[name][at] = values
                    columns = [*table.columns, _points(table), _boxes(table)]
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema), _ROWS_PER_GROUP)
            with asking(layout.path, "write"):
                for name in names:
                    if layout.rows:
                        arrays[name][...] = filled[name]
    except OSError as error:
        raise unwritable(file, error) from error


def _writable(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array
