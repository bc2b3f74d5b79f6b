"""What was resolved, as Parquet: files of some locations each, written atomically and read back strictly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmearth_data.source import Acquisition, RadarPass, Resolved
from mmearth_data.store.files import readable, unreadable, write_atomic
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
"""One row per location, in table order; ``available`` says whether it has an acquisition.

Both are null where no answer for the location could be used so far.
"""


def encoded(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def write_table(table: pa.Table, path: Place) -> None:
    """Write a Parquet file that either is there whole, on disk, or is not there; raises StoreError."""
    write_atomic(path, encoded(table))


def write(location_ids: Sequence[int], resolved: Sequence[Resolved], path: Place) -> None:
    """Save what was resolved for the locations of one batch; those left out of it have no answer yet.

    An answer that was saved before stays as it is, unless the file was of other locations, as they may be of years.
    """
    before = read_saved(path)
    own = before is not None and before["location_id"].to_pylist() == list(location_ids)
    saved = {row["location_id"]: row for row in (before.to_pylist() if before is not None and own else [])}
    now = {
        entry.location_id: {
            "location_id": entry.location_id,
            "available": bool(entry.acquisitions),
            "acquisitions": [asdict(acquisition) for acquisition in entry.acquisitions],
        }
        for entry in resolved
    }
    rows = []
    for location_id in location_ids:
        row = saved.get(location_id, {"location_id": location_id})
        rows.append(now.get(location_id, row) if row.get("available") is None else row)
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def read_saved(path: Place, columns: list[str] | None = None) -> pa.Table | None:
    """What was saved, or some columns of it, in rows of SCHEMA; None where it is not there, or not whole.

    Raises Unreadable where the operating system does not give the file: it may well be whole.
    """
    try:
        with pq.ParquetFile(readable(path)) as file:  # small files: half the time of what reads data sets
            if not file.schema_arrow.equals(SCHEMA):
                return None
            return file.read(columns, use_threads=False)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid) as error:
        # Decoders raise OSError too, without a number of the operating system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        return None


def by_location(table: pa.Table) -> dict[int, tuple[Acquisition, ...] | None]:
    """The acquisitions of each location of a table, in the order they are tried; None where it has no answer yet."""
    return {
        row["location_id"]: None
        if row["acquisitions"] is None
        else tuple(_acquisition(row["location_id"], fields) for fields in row["acquisitions"])
        for row in table.to_pylist()
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
