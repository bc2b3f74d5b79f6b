"""MMEarth's published HDF5 layout into a store.

Rows keep the file's order, which is random already. What the layout does not know stays unknown. A published tile is no
cell of the tile grid: its id is negative, −1 − its tile number, which decodes to no cell, and its upper-left corner is
null, because the pixels' origin was never published (centre and CRS were). Tiles of our own export come back with the
id and the corner they left with.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from mmearth_data import checks
from mmearth_data.convert import published
from mmearth_data.convert.inflating import each_row, read_rows
from mmearth_data.convert.journal import ConversionError, Progress, no_progress
from mmearth_data.convert.stores import NewStore, StoreReport, write_store
from mmearth_data.convert.tile_info import POLARISATIONS, TileFacts, TileInfoFile
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_NAMES, MODALITIES, STORED, Modality
from mmearth_data.source import Absence, Acquisition, RadarPass, Tile
from mmearth_data.splits import SPLITS
from mmearth_data.store.codecs import DEFAULT_CODECS, CodecSet
from mmearth_data.store.rows import ROW_SCHEMA, STORED_OUTCOME, VACANT_OUTCOME, row_table
from mmearth_data.store.schema import Status
from mmearth_data.store.shards import ShardData, no_data

SHARD_ROWS = 224
"""Rows per shard, as collection has them at most."""

_KEPT = {name for name in ROW_SCHEMA.names if name != "row" and not name.startswith("absent_")}
"""Columns that a tile of our own export brings back; the others follow from where it lies now and what it holds."""
_IDS_AT_ONCE = 16384
_IDS = np.iinfo(np.int64)
_NAMES = [modality.name for modality in STORED]
_log = logging.getLogger(__name__)


def location_id(tile_id: str) -> int:
    """The id of a published tile: negative, so that no cell of the tile grid has it."""
    if not tile_id.isdecimal() or int(tile_id) >= _IDS.max:
        raise ConversionError(f"tile id {tile_id!r} is no whole number, as the published layout has them")
    return -1 - int(tile_id)


@dataclass(frozen=True)
class _Source:
    """The opened files, and what is known of every row."""

    data: h5py.File
    pool: Executor
    facts: TileInfoFile
    rows: int
    tile_pixels: int
    split: NDArray[np.int8]
    """Index into SPLITS, −1 where a row belongs to none."""


def import_published(
    source: str | Path,
    store: str | Path,
    progress: Progress = no_progress,
    *,
    codecs: CodecSet = DEFAULT_CODECS,
    shard_rows: int = SHARD_ROWS,
) -> StoreReport:
    """Convert the data set in folder ``source`` into a finalised store at ``store``, or carry on with that.

    ``counted`` of the report has, per modality, the values that were neither possible nor the layout's no-data; they
    became no-data. Raises ConversionError where the files are not as published or do not belong together.
    """
    files = published.Files.find(Path(source))
    try:
        # Locks that a file system does not have must not keep anybody from reading.
        data = h5py.File(files.data, "r", locking="best-effort")
    except OSError as error:
        raise ConversionError(f"{files.data} cannot be read as HDF5 ({error}); download it again") from error
    with data, TileInfoFile(files.tile_info) as facts, ThreadPoolExecutor() as pool:
        rows, tile_pixels = _check(data, files.data)
        _check_ids(data, rows, pool)
        opened = _Source(data, pool, facts, rows, tile_pixels, _splits(files.splits, rows))
        report = write_store(
            NewStore(
                path=Path(store),
                tile_pixels=tile_pixels,
                shard_rows=shard_rows,
                rows=math.ceil(rows / shard_rows) * shard_rows,
                attrs={"source": f"MMEarth's published layout: {files.data.stem}", "time_resolution": "1 day"},
                settings={
                    "from": files.data.name,
                    "bytes": {file.name: file.stat().st_size for file in (files.data, files.tile_info, files.splits)},
                    "rows": rows,
                    "shard_rows": shard_rows,
                    "codecs": codecs,
                },
                codecs=codecs,
            ),
            lambda shard: _shard(opened, shard, shard_rows),
            progress,
        )
    if report.stored + report.counted.get("gaps", 0) != rows:
        raise ConversionError(f"{store} has {report.stored} tiles of {rows}; remove it and run again")
    for name, count in report.counted.items():
        if count and name != "gaps":
            _log.warning("%s: %d impossible values became no-data", name, count)
    return report


def _check(data: h5py.File, file: Path) -> tuple[int, int]:
    """(rows, pixels of a tile's side); raises ConversionError where an array is missing or has another shape."""
    needed = [published.METADATA, *(modality.name for modality in published.published())]
    missing = [name for name in needed if name not in data]
    if missing:
        raise ConversionError(f"{file} lacks the array {missing[0]!r} of the published layout; download it again")
    rows, side = len(data[published.METADATA]), data["sentinel2"].shape[-1]
    for modality in published.published():
        name, array = modality.name, data[modality.name]
        shape, kind = (rows, *published.row_shape(name, side)), np.dtype(published.DTYPES[name]).kind
        if array.shape != shape or (array.dtype.kind == "f") != (kind == "f"):
            raise ConversionError(
                f"{name} of {file} must be {published.DTYPES[name]} {shape}, not {array.dtype} {array.shape}"
            )
    return rows, side


def _check_ids(data: h5py.File, rows: int, pool: Executor) -> None:
    """Raise ConversionError where a tile id is no number or occurs twice; eight bytes of memory per row."""
    ids = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, _IDS_AT_ONCE):
        names = _read(data, published.METADATA, start, start + _IDS_AT_ONCE, pool)[published.TILE_ID]
        ids[start : start + len(names)] = [location_id(name.decode()) for name in names]
    ids.sort()
    twice = ids[1:][ids[1:] == ids[:-1]]
    if twice.size:
        raise ConversionError(f"tile {-1 - int(twice[0])} is named twice by {data.filename}; download it again")


def _read(data: h5py.File, name: str, start: int, stop: int, pool: Executor) -> NDArray[Any]:
    """Rows of an array; raises ConversionError where the file is damaged."""
    with _named(data, name, start, stop):
        return read_rows(data[name], start, stop, pool)


@contextmanager
def _named(data: h5py.File, name: str, start: int, stop: int) -> Iterator[None]:
    """Turn what HDF5 says of a damaged file into one line that names it."""
    try:
        yield
    except OSError as error:
        raise ConversionError(
            f"rows {start} to {stop} of {name} in {data.filename} cannot be read ({error}); download it again"
        ) from error


def _decode(source: _Source, modality: Modality, first: int, out: NDArray[Any]) -> int:
    """Rows from ``first`` on as the store has them, into ``out``; how many impossible values became no-data."""

    def decode(at: int, row: NDArray[Any]) -> int:
        out[at : at + 1], impossible = published.decode(modality, row[None])
        return impossible

    with _named(source.data, modality.name, first, first + len(out)):
        return sum(each_row(source.data[modality.name], first, first + len(out), source.pool, decode))


def _splits(file: Path, rows: int) -> NDArray[np.int8]:
    try:
        document = json.loads(file.read_bytes())
        lists = {str(name): np.array(indices, dtype=np.int64) for name, indices in document.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConversionError(f"{file} is no table of splits ({error}); download it again") from error
    codes = np.full(rows, -1, dtype=np.int8)
    for name, indices in lists.items():
        if name not in SPLITS:
            raise ConversionError(f"{file} has the split {name!r}; a store knows: {', '.join(SPLITS)}")
        if indices.size and (indices.min() < 0 or indices.max() >= rows):
            raise ConversionError(f"{file} names rows beyond the {rows} of the .h5 file; take both from one data set")
        if (codes[indices] >= 0).any() or len(np.unique(indices)) != len(indices):
            raise ConversionError(f"{file} names a row twice; make the splits disjoint")
        codes[indices] = SPLITS.index(name)
    return codes


def _shard(source: _Source, shard: int, shard_rows: int) -> tuple[ShardData, Counter[str]]:
    first = shard * shard_rows
    filled = min(shard_rows, source.rows - first)
    arrays = no_data(source.tile_pixels, shard_rows)
    counts: Counter[str] = Counter()
    for modality in published.published():
        counts[modality.name] += _decode(source, modality, first, arrays[modality.name][:filled])
    status = np.zeros((shard_rows, len(STORED)), dtype=np.uint8)
    records: list[dict[str, Any]] = []
    names = _read(source.data, published.METADATA, first, first + filled, source.pool)
    for at, (tile_id, level) in enumerate(zip(names[published.TILE_ID], names["S2_type"], strict=True)):
        name = tile_id.decode()
        facts = source.facts.facts(name)
        if level.decode().upper() != facts.level:
            raise ConversionError(f"tile {name} is {level.decode()} in the .h5 file and {facts.level} in its table")
        values = {key: array[at] for key, array in arrays.items()}
        split = int(source.split[first + at])
        record = {"row": first + at, **_record(name, facts, values), "split": SPLITS[split] if split >= 0 else None}
        if record.get("reason") == Absence.GAPS:
            counts["gaps"] += 1
            for modality in STORED:
                arrays[modality.name][at] = modality.nodata
        else:
            status[at] = _status(facts, values)
            record |= _absences(facts, status[at])
        records.append(record)
    records += [{"row": first + at} for at in range(filled, shard_rows)]
    return ShardData(arrays, status, row_table(records)), counts


def _record(name: str, facts: TileFacts, values: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The tile's line of the row table."""
    biome, ecoregion = int(values["biome"][0]), int(values["eco_region"][0])
    kept = {key: value for key, value in facts.own.items() if key in _KEPT}
    record = {
        "location_id": location_id(name),
        "outcome": STORED_OUTCOME,
        "lon": facts.lon,
        "lat": facts.lat,
        "epsg": facts.epsg,
        "biome": BIOME_NAMES[biome] if biome < len(BIOME_NAMES) else "",
        "ecoregion": ECOREGION_NAMES[ecoregion] if ecoregion < len(ECOREGION_NAMES) else "",
        "realm": "",
        "country": "",
        "continent": "",
        "year": facts.year,
        "level": facts.level,
        "time": facts.time,
        "clear_fraction": _clear_fraction(facts, values),
        **kept,
    }
    if MODALITIES["sentinel2"].valid(values["sentinel2"]).any():
        return record
    unknown = dict.fromkeys(("level", "time", "clear_fraction"))
    return record | unknown | {"outcome": VACANT_OUTCOME, "reason": str(Absence.GAPS)}


def _acquisition(facts: TileFacts, values: Mapping[str, NDArray[Any]]) -> Acquisition:
    """What is known of the acquisition, for the checks that judge a tile by it; radar passes by what has data."""
    radar = MODALITIES["sentinel1"].valid(values["sentinel1"]).reshape(len(MODALITIES["sentinel1"].bands), -1)
    listed = dict(zip(MODALITIES["sentinel1"].bands, np.any(radar, axis=1), strict=True))
    seen = {name: tuple(band for band in POLARISATIONS if listed[f"{name}_{band}"]) for name in ("asc", "desc")}
    passes = {name: RadarPass("", 0, bands) if bands else None for name, bands in (facts.passes or seen).items()}
    return Acquisition(
        location_id=0,
        year=facts.year,
        level=cast("Literal['L1C', 'L2A']", facts.level),
        sentinel2_id="",
        time=facts.time,
        scene_cloud=math.nan,
        baseline="",
        bands=(),
        ascending=passes["asc"],
        descending=passes["desc"],
        era5=(),
    )


def _clear_fraction(facts: TileFacts, values: Mapping[str, NDArray[Any]]) -> float | None:
    """By QA60, for the layout has no Cloud Score+; None where it has no QA60 either."""
    if not MODALITIES["sentinel2_cloudmask"].valid(values["sentinel2_cloudmask"]).any():
        return None
    return checks.clear_fraction(Tile(_acquisition(facts, values), dict(values), {}))


def _status(facts: TileFacts, values: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """By what has data; in our own export a modality with data has the status that it left with."""
    found = checks.statuses(dict(values), _acquisition(facts, values))
    own = facts.own.get("status")
    if own is None:
        return found
    left = np.array([own[name] for name in _NAMES], dtype=np.uint8)
    return np.where((found != Status.ABSENT) & (left != Status.ABSENT), left, found).astype(np.uint8)


def _absences(facts: TileFacts, status: NDArray[np.uint8]) -> dict[str, str]:
    """Why the tile has nothing of a modality, as far as the layout tells."""
    radar = Absence.MASKED if any((facts.passes or {}).values()) else Absence.NO_PASS
    at_level = Absence.NOT_AT_LEVEL if facts.level == "L1C" else Absence.NOT_IN_PRODUCT
    reasons = {
        "sentinel2_cloudmask": Absence.NOT_IN_PRODUCT,
        "sentinel2_cloudprod": at_level,
        "sentinel2_scl": at_level,
        "sentinel1": radar,
        "dynamic_world": Absence.NO_SCENE,
        **dict.fromkeys((*published.UNPUBLISHED, *published.ONE_HOT), Absence.NOT_PUBLISHED),
    }
    absent = [name for name, found in zip(_NAMES, status, strict=True) if found == Status.ABSENT]
    return {f"absent_{name}": str(reasons.get(name, Absence.MASKED)) for name in absent}
