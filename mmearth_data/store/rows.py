"""The row table: what is known of each row of a store beside its pixels, one table per shard and one of them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmearth_data.modalities import STORED, Modality
from mmearth_data.store.files import StoreError

STORED_OUTCOME, VACANT_OUTCOME = "stored", "vacant"

_OF_THE_ROW: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("location_id", pa.int64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int16(), nullable=False),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("epsg", pa.int32()),
        ("x0", pa.int32()),
        ("y0", pa.int32()),
        ("biome", pa.string()),
        ("ecoregion", pa.string()),
        ("realm", pa.string()),
        ("country", pa.string()),
        ("continent", pa.string()),
        ("year", pa.int16()),
        ("rank", pa.int32()),
        ("reserve", pa.bool_()),
        ("split", pa.string()),
        ("level", pa.string()),
        ("sentinel2_id", pa.string()),
        ("time", pa.int64()),
        ("scene_cloud", pa.float64()),
        ("baseline", pa.string()),
        ("sentinel1_asc_id", pa.string()),
        ("sentinel1_asc_time", pa.int64()),
        ("sentinel1_desc_id", pa.string()),
        ("sentinel1_desc_time", pa.int64()),
        ("clear_fraction", pa.float64()),
    ]
)


def row_schema(stored: Sequence[Modality]) -> pa.Schema:
    """The row table of a store of these modalities: one line per row.

    ``location_id`` is 0 and everything about a location null where no location has the row. ``outcome`` is 'stored' or
    'vacant'; ``reason`` says why a location's row is vacant, else ''. ``time`` and the radar times are milliseconds
    since 1970 (UTC). ``absent_<modality>`` says why a stored row has nothing of it, else ''.
    """
    absent = (pa.field(f"absent_{modality.name}", pa.string(), nullable=False) for modality in stored)
    return pa.schema([*_OF_THE_ROW, *absent])


def commit_schema(stored: Sequence[Modality]) -> pa.Schema:
    """A row table as it is committed: also, per modality, status and the fraction of each band that is data."""
    status = (pa.field(f"status_{modality.name}", pa.uint8(), nullable=False) for modality in stored)
    fractions = (
        pa.field(f"valid_fraction_{modality.name}", pa.list_(pa.float32(), len(modality.bands)), nullable=False)
        for modality in stored
    )
    return pa.schema([*row_schema(stored), *status, *fractions])


ROW_SCHEMA: pa.Schema = row_schema(STORED)
"""The row table of a store without downstream modalities."""

_ALWAYS: dict[str, Any] = {
    "location_id": 0,
    "outcome": VACANT_OUTCOME,
    "reason": "",
    "attempts": 0,
}


def row_table(records: Iterable[Mapping[str, Any]], stored: Sequence[Modality] = STORED) -> pa.Table:
    """A row table of ``records``, dicts keyed by column; what a record leaves out is an empty slot's value or null.

    ``stored`` are the store's modalities. Raises StoreError for a column that ``row_schema`` does not have or a value
    that does not fit its type.
    """
    schema = row_schema(stored)
    present = _ALWAYS | {f"absent_{modality.name}": "" for modality in stored}
    complete = []
    for record in records:
        unknown = sorted(set(record) - set(schema.names))
        if unknown:
            raise StoreError(f"a row table has no column {unknown[0]!r}; its columns are those of row_schema")
        complete.append({**present, **record})
    try:
        return pa.Table.from_pylist(complete, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError(f"a row does not fit the row table: {error}; give each column its type") from error


def is_stored(table: pa.Table) -> NDArray[np.bool_]:
    """Which rows of ``table`` hold a tile."""
    stored: NDArray[np.bool_] = pc.equal(table["outcome"], STORED_OUTCOME).to_numpy()
    return stored


def codes(table: pa.Table, column: str, words: Sequence[str], missing: int) -> NDArray[np.int64]:
    """Index into ``words`` of each row's value of ``column``; ``missing`` where it is null or none of them."""
    index = pc.index_in(table[column], value_set=pa.array(words, type=pa.string()))
    found: NDArray[np.int64] = pc.fill_null(index.cast(pa.int64()), missing).to_numpy()
    return found


def values(table: pa.Table, column: str, null: float) -> NDArray[Any]:
    """A numeric column with ``null`` where it has no value."""
    filled: NDArray[Any] = pc.fill_null(table[column], null).to_numpy()
    return filled
