"""A store into MMEarth's published HDF5 layout, which TorchGeo's ``MMEarth`` and MMEarth-train open.

An HDF5 file that its writer was killed over may be damaged anywhere, so nothing is ever added to one: each shard
becomes a part of its own, and the parts' compressed chunks are then copied into the one file of the layout in a single
pass. A killed export loses at most the part, or the copying, that it was at.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray

from mmearth_data.convert import band_stats, published, tile_info
from mmearth_data.convert.inflating import each_row
from mmearth_data.convert.journal import ConversionError, Journal, Progress, content_key, no_progress
from mmearth_data.convert.rows import Rows, stored_rows
from mmearth_data.modalities import MODALITIES
from mmearth_data.splits import SPLITS
from mmearth_data.store.commits import row_table
from mmearth_data.store.files import make_directory, publish, remove_left_overs, temporary_of, unwritable, write_atomic
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.rows import STORED_OUTCOME

GZIP_LEVEL = 4
"""HDF5's own default, which the published files have."""
_NUMBER = re.compile(r"errno = (\d+)")
_JOURNAL, _DONE = "_conversion", "done.json"


@dataclass(frozen=True)
class FileReport:
    """What was written: the HDF5 file, its rows by split, its size in bytes."""

    data: Path
    rows: dict[str, int]
    bytes: int


def export_published(store: str | Path, out: str | Path, progress: Progress = no_progress) -> FileReport:
    """Write the stored rows of ``store`` as the data set ``out``, a folder whose name names its files.

    Rows keep their order; vacant ones are left out. Band statistics are of the train split, no-data left out. Carries
    on with an export begun there. Raises ConversionError where ``out`` holds something else or values came back
    otherwise than they were written.
    """
    opened, folder = open_store(store), Path(out)
    files = published.Files.of(folder, folder.resolve().name)
    make_directory(folder)
    journal = Journal.begin(folder / _JOURNAL, {"to": "hdf5", "content": content_key(store)})
    done = journal.folder / _DONE
    if not done.exists():
        remove_left_overs(folder)
        _write_parts(opened, journal, progress)
        records = _records(opened, journal)
        if not any(record["rows"] for record in records):
            raise ConversionError(f"{store} has no row with a tile; collect some, then export to another directory")
        _assemble(opened, journal, files.data, records, progress)
        _write_tables(journal, files, records)
        _verify(files.data, records, progress)
        write_atomic(done, b"{}\n")
    if _parts(journal).exists():
        shutil.rmtree(_parts(journal))
    records = _records(opened, journal)
    if not files.data.is_file():
        raise ConversionError(f"{files.data} was exported and is gone; remove {journal.folder} to export it again")
    rows = Counter(split for record in records for split in record["splits"])
    return FileReport(files.data, {name: rows[name] for name in SPLITS if rows[name]}, files.data.stat().st_size)


def _records(store: Store, journal: Journal) -> list[dict[str, Any]]:
    found = [journal.record(shard) for shard in range(store.rows // store.shard_rows)]
    return [record for record in found if record is not None]


def _parts(journal: Journal) -> Path:
    return journal.folder / "parts"


def _write_parts(store: Store, journal: Journal, progress: Progress) -> None:
    shards = store.rows // store.shard_rows
    make_directory(_parts(journal))
    remove_left_overs(_parts(journal))
    with ThreadPoolExecutor() as pool:
        for shard in range(shards):
            if journal.record(shard) is None:
                journal.finish(shard, _write_part(store, shard, _parts(journal) / f"{shard:06d}", pool))
            progress("writing", shard + 1, shards)


def _write_part(store: Store, shard: int, part: Path, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """Write the HDF5 file and the entries of one shard, where it has any row; the record of it."""
    stored = _stored(store, shard)
    if not stored:
        return {"rows": 0, "splits": [], "crc32c": {}, "statistics": {}}
    final = part.with_suffix(".h5")
    splits: list[str | None] = []
    checksums: dict[str, list[int]] = {}
    statistics = band_stats.TrainStatistics()
    entries: list[str] = []
    with _writing(final) as file:
        arrays = _create(file, store.tile_pixels, stored)
        for rows in stored_rows(store, shard):
            derived, first = _derived(rows), len(splits)
            for name, array in arrays.items():
                encoded = list(pool.map(_encoder(name, rows, derived), range(len(rows.records))))
                for at, (chunk, _) in enumerate(encoded, start=first):
                    array.id.write_direct_chunk((at, *(0,) * (array.ndim - 1)), chunk)
                checksums.setdefault(name, []).extend(found for _, found in encoded)
            splits += [record["split"] for record in rows.records]
            entries += _entries(rows)
            statistics.add(rows, derived)
    write_atomic(part.with_suffix(".json"), ",\n".join(entries).encode())
    return {
        "rows": len(splits),
        "splits": splits,
        "crc32c": {name: _joined(rows) for name, rows in checksums.items()},
        "statistics": statistics.moments(),
    }


@contextmanager
def _writing(final: Path) -> Iterator[h5py.File]:
    """A new HDF5 file that becomes ``final`` once it is whole; raises StoreError where the disk refuses to take it.

    HDF5 tells of a full disk as it likes, often only as it closes the file, and with the number of the error in a text.
    """
    try:
        with h5py.File(temporary_of(final), "w") as file:
            yield file
    except (OSError, RuntimeError) as error:
        temporary_of(final).unlink(missing_ok=True)
        number, refusal = _NUMBER.search(str(error)), error
        if number:
            refusal = OSError(int(number[1]), os.strerror(int(number[1])))
        if not isinstance(refusal, OSError):
            raise
        raise unwritable(final, refusal) from refusal
    publish(temporary_of(final), final)


def _encoder(name: str, rows: Rows, derived: dict[str, NDArray[Any]]) -> Callable[[int], tuple[bytes, int]]:
    """What makes the chunk and the checksum of each of ``rows``: several threads do, as HDF5's own filter cannot."""

    def encode(at: int) -> tuple[bytes, int]:
        if name in derived:
            content = derived[name][at].tobytes()
        else:
            content = published.encode(MODALITIES[name], rows.arrays[name][at : at + 1]).tobytes()
        return zlib.compress(content, GZIP_LEVEL), int(google_crc32c.value(content))

    return encode


def _joined(checksums: list[int]) -> int:
    """One checksum of those of rows."""
    return int(google_crc32c.value(np.array(checksums, dtype="<u4").tobytes()))


def _stored(store: Store, shard: int) -> int:
    """How many rows of ``shard`` hold a tile."""
    return int(row_table(store.path, shard)["outcome"].to_pylist().count(STORED_OUTCOME))


def _create(file: h5py.File, tile_pixels: int, rows: int) -> dict[str, h5py.Dataset]:
    """The arrays of the layout: one row per chunk, gzip."""
    arrays = {}
    for name, dtype in published.DTYPES.items():
        shape = published.row_shape(name, tile_pixels)
        arrays[name] = file.create_dataset(
            name, (rows, *shape), dtype, chunks=(1, *shape), compression="gzip", compression_opts=GZIP_LEVEL
        )
    arrays[published.METADATA] = file.create_dataset(
        published.METADATA,
        (rows,),
        published.METADATA_DTYPE,
        chunks=(1,),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
    )
    return arrays


def _derived(rows: Rows) -> dict[str, NDArray[Any]]:
    """The arrays that a store has no array of: where and when a tile was seen, and its name."""
    numbers = {name: np.array([record[name] for record in rows.records]) for name in ("lat", "lon", "time")}
    months = numbers.pop("time").astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    angles = {**numbers, "month": months.astype(np.float64)}
    names = [(tile_id(record["location_id"]), record["level"].lower()) for record in rows.records]
    return {
        **{name: published.cyclic(name, values) for name, values in angles.items()},
        published.METADATA: np.array(names, dtype=published.METADATA_DTYPE),
    }


def tile_id(location_id: int) -> str:
    """The tile id of a location: its cell's id, or the tile number that an imported tile was published under."""
    return str(location_id if location_id > 0 else -1 - location_id)


def _entries(rows: Rows) -> list[str]:
    """Lines of ``NAME_tile_info.json``, one per row."""
    lines = []
    for at, record in enumerate(rows.records):
        classes = {
            name: None if rows.arrays[name][at, 0] == MODALITIES[name].nodata else int(rows.arrays[name][at, 0])
            for name in published.ONE_HOT
        }
        radar = MODALITIES["sentinel1"]
        seen = np.any(radar.valid(rows.arrays["sentinel1"][at]), axis=(1, 2))
        listed = dict(zip(radar.bands, np.atleast_1d(seen), strict=True))
        passes = {
            name: [band for band in tile_info.POLARISATIONS if listed[f"{name}_{band}"]] for name in ("asc", "desc")
        }
        era5 = [None if np.isnan(value) else float(value) for value in rows.arrays["era5"][at]]
        entry = tile_info.entry({**record, "status": rows.status[at]}, classes, passes, era5)
        lines.append(f"{json.dumps(tile_id(record['location_id']))}: {json.dumps(entry, allow_nan=False)}")
    return lines


def _assemble(store: Store, journal: Journal, final: Path, records: list[dict[str, Any]], progress: Progress) -> None:
    """Copy the chunks of every part into one file, as they are."""
    with _writing(final) as file:
        arrays = _create(file, store.tile_pixels, sum(record["rows"] for record in records))
        first = 0
        for shard, record in enumerate(records):
            if record["rows"]:
                _append(_parts(journal) / f"{shard:06d}.h5", arrays, first, record["rows"])
            first += record["rows"]
            progress("assembling", shard + 1, len(records))


def _append(part: Path, arrays: dict[str, h5py.Dataset], first: int, rows: int) -> None:
    """Copy the chunks of the ``rows`` rows of ``part`` into ``arrays`` from row ``first`` on."""
    with h5py.File(part, "r") as file:
        for name, array in arrays.items():
            zeros, source = (0,) * (array.ndim - 1), file[name].id
            for row in range(rows):
                _, chunk = source.read_direct_chunk((row, *zeros))
                array.id.write_direct_chunk((first + row, *zeros), chunk)


def _write_tables(journal: Journal, files: published.Files, records: list[dict[str, Any]]) -> None:
    """Write the three JSON files."""
    temporary = temporary_of(files.tile_info)
    try:
        with temporary.open("wb") as file:
            file.write(b"{")
            for shard, record in enumerate(records):
                if record["rows"]:
                    file.write(b",\n" if file.tell() > 1 else b"\n")
                    file.write((_parts(journal) / f"{shard:06d}.json").read_bytes())
            file.write(b"\n}\n")
    except OSError as error:
        raise unwritable(files.tile_info, error) from error
    publish(temporary, files.tile_info)
    names = list(itertools.chain.from_iterable(record["splits"] for record in records))
    splits = {split: [row for row, name in enumerate(names) if name == split] for split in SPLITS}
    kept = {split: rows for split, rows in splits.items() if rows or split in published.SPLITS}
    write_atomic(files.splits, json.dumps(kept).encode())
    totals: dict[str, band_stats.Moments | None] = dict.fromkeys(band_stats.keys())
    for record in records:
        for key, found in record["statistics"].items():
            totals[key] = band_stats.merge(totals[key], found)
    bands = {key: len(MODALITIES[_array_of(key)].bands) for key in totals}
    document = {key: band_stats.described(found, bands[key]) for key, found in totals.items()}
    write_atomic(files.band_stats, json.dumps(document, indent=1).encode())


def _array_of(key: str) -> str:
    return key.removesuffix("_l1c").removesuffix("_l2a")


def _verify(data: Path, records: list[dict[str, Any]], progress: Progress) -> None:
    """Inflate every row of the file and compare it with the checksum of what was written."""
    with h5py.File(data, "r") as file, ThreadPoolExecutor() as pool:
        first = 0
        for done, record in enumerate(records, start=1):
            for name, expected in record["crc32c"].items():
                try:
                    found = each_row(file[name], first, first + record["rows"], pool, _checksum)
                except OSError as error:
                    raise ConversionError(f"{name} of {data} cannot be read back ({error}); check the disk") from error
                if _joined(found) != expected:
                    raise ConversionError(
                        f"{name} of {data} is not what was written; check the disk, remove {data.parent} and run again"
                    )
            first += record["rows"]
            progress("reading back", done, len(records))


def _checksum(_: int, row: NDArray[Any]) -> int:
    return int(google_crc32c.value(row.tobytes()))
