"""What was resolved, as Parquet: one file per batch of locations, written atomically and read back strictly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmearth_data.source import Acquisition, RadarPass, Resolved
from mmearth_data.store.files import readable, write_atomic
from mmearth_data.store.objects import Place

_RADAR = pa.struct([("image_id", pa.string()), ("time", pa.int64()), ("polarisations", pa.list_(pa.string()))])
_ACQUISITION = pa.struct(
    [
        ("year", pa.int16()),
        ("level", pa.string()),
        ("sentinel2_id", pa.string()),
        ("time", pa.int64()),
        ("scene_cloud", pa.float64()),
        ("baseline", pa.string()),
        ("bands", pa.list_(pa.string())),
        ("ascending", _RADAR),
        ("descending", _RADAR),
        ("era5", pa.list_(pa.float64())),
    ]
)
SCHEMA = pa.schema([("location_id", pa.int64()), ("available", pa.bool_()), ("acquisitions", pa.list_(_ACQUISITION))])
"""One row per location, in table order; ``available`` says whether it has an acquisition."""


def write_table(table: pa.Table, path: Place) -> None:
    """Write a Parquet file that either is there whole, on disk, or is not there; raises StoreError."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def write(resolved: Sequence[Resolved], path: Place) -> None:
    """Save what was resolved for one batch."""
    rows = [
        {
            "location_id": entry.location_id,
            "available": bool(entry.acquisitions),
            "acquisitions": [asdict(acquisition) for acquisition in entry.acquisitions],
        }
        for entry in resolved
    ]
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def intact(path: Place, rows: int) -> bool:
    """Whether a batch was saved: its footer is readable and names this schema and that many rows."""
    try:
        metadata = pq.read_metadata(readable(path))
    except (OSError, pa.ArrowInvalid):
        return False
    return bool(metadata.num_rows == rows and metadata.schema.to_arrow_schema().equals(SCHEMA))


def read_available(path: Place) -> pa.ChunkedArray:
    """Of each location of one batch, in order, whether it has an acquisition."""
    with pq.ParquetFile(readable(path)) as file:
        return file.read(columns=["available"], use_threads=False)["available"]


def read(path: Place, wanted: set[int]) -> dict[int, tuple[Acquisition, ...]]:
    """The acquisitions of the wanted locations of one batch, in the order they are tried."""
    with pq.ParquetFile(readable(path)) as file:  # small files: half the time of what reads data sets
        table = file.read(use_threads=False)
    keep = [index for index, found in enumerate(table["location_id"].to_pylist()) if found in wanted]
    return {
        row["location_id"]: tuple(_acquisition(row["location_id"], fields) for fields in row["acquisitions"])
        for row in table.take(keep).to_pylist()
    }


def _acquisition(location_id: int, fields: dict[str, Any]) -> Acquisition:
    return Acquisition(
        **{
            **fields,
            "location_id": location_id,
            "bands": tuple(fields["bands"]),
            "ascending": _radar(fields["ascending"]),
            "descending": _radar(fields["descending"]),
            "era5": tuple(fields["era5"]),
        }
    )


def _radar(fields: dict[str, Any] | None) -> RadarPass | None:
    if fields is None:
        return None
    return RadarPass(fields["image_id"], fields["time"], tuple(fields["polarisations"]))
