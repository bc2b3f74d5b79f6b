"""A store of smaller tiles from one of larger ones: the centre of each tile, row by row.

A central crop of 64 px starts 320 m inside its 1280 m cell, which is no corner of the 640 m grid: it has no cell of its
own. So it keeps the id of the cell that it lies in, which still is disjoint from every other, joins the rows to the
location table and to the larger store, and keeps what is drawn by id. Where the pixels are is said by x0 and y0 alone,
which move with the crop; centre, longitude and latitude stay.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data import checks
from mmearth_data.convert.journal import ConversionError, Progress, content_key, no_progress
from mmearth_data.convert.stores import NewStore, StoreReport, write_store
from mmearth_data.grid import PIXEL_METRES
from mmearth_data.modalities import MODALITIES, Modality, get
from mmearth_data.source import Absence, Acquisition, Tile
from mmearth_data.store.codecs import DEFAULT_CODECS, CodecSet
from mmearth_data.store.commits import row_table as committed_rows
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.rows import STORED_OUTCOME, VACANT_OUTCOME, row_schema, row_table
from mmearth_data.store.schema import Status
from mmearth_data.store.shards import ShardData, no_data


@dataclass(frozen=True)
class _Crop:
    """The store to read, the side of the tiles to make, and how far inside a tile they start, in pixels."""

    store: Store
    pixels: int

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return tuple(map(get, self.store.modalities))

    @property
    def offset(self) -> int:
        return (self.store.tile_pixels - self.pixels) // 2


def crop_store(
    source: str | Path,
    store: str | Path,
    pixels: int = 64,
    progress: Progress = no_progress,
    *,
    codecs: CodecSet = DEFAULT_CODECS,
) -> StoreReport:
    """Make a finalised store at ``store`` of the central ``pixels`` × ``pixels`` of every tile of ``source``.

    Rows, shards, vacant rows and splits stay as they are. A modality that has data outside the crop only is absent,
    ``masked``; a row whose crop has no sentinel2 is vacant, ``gaps``. Raises ConversionError where the tiles are not
    larger by an even number of pixels.
    """
    opened = open_store(source)
    free = opened.tile_pixels - pixels
    if free < 2 or free % 2:
        raise ConversionError(
            f"tiles of {pixels} px have no place in the middle of tiles of {opened.tile_pixels} px, which {source} has;"
            " give a store whose tiles are larger by an even number of pixels"
        )
    crop = _Crop(opened, pixels)
    key = content_key(source)
    return write_store(
        NewStore(
            path=Path(store),
            tile_pixels=pixels,
            shard_rows=opened.shard_rows,
            rows=opened.rows,
            attrs={"source": f"central {pixels} px of tiles of {opened.tile_pixels} px", "source_content": key},
            settings={"from": "store", "content": key, "pixels": pixels, "codecs": codecs},
            codecs=codecs,
            modalities=crop.modalities,
        ),
        lambda shard: _shard(crop, shard),
        progress,
    )


def _shard(crop: _Crop, shard: int) -> tuple[ShardData, Counter[str]]:
    store = crop.store
    first, count = shard * store.shard_rows, store.shard_rows
    stored, names = crop.modalities, store.modalities
    arrays = no_data(crop.pixels, count, stored)
    inside = slice(crop.offset, crop.offset + crop.pixels)
    for modality in stored:
        for start in range(0, count, store.chunk_rows):
            stop = min(start + store.chunk_rows, count)
            tiles = store.read(modality.name, first + start, first + stop)
            arrays[modality.name][start:stop] = tiles[..., inside, inside] if modality.scope == "pixel" else tiles
    table = committed_rows(store.path, shard)
    status = np.stack([table[f"status_{name}"].to_numpy() for name in names], axis=1)
    fractions = {name: table[f"valid_fraction_{name}"].to_pylist() for name in names}
    records = table.select(row_schema(stored).names).to_pylist()
    for at, record in enumerate(records):
        if record["x0"] is not None:
            record["x0"] += crop.offset * PIXEL_METRES
            record["y0"] -= crop.offset * PIXEL_METRES
        if record["outcome"] != STORED_OUTCOME:
            continue
        values = {name: arrays[name][at] for name in names}
        had = {name: np.array(fractions[name][at]) > 0 for name in names}
        status[at] = _status(status[at], had, values)
        records[at] = _record(record, status[at], values)
        if records[at]["outcome"] != STORED_OUTCOME:
            status[at] = Status.VACANT
            for modality in stored:
                arrays[modality.name][at] = modality.nodata
    return ShardData(arrays, status, row_table(records, stored)), Counter()


def _status(
    before: NDArray[np.uint8], had: dict[str, NDArray[np.bool_]], values: dict[str, NDArray[Any]]
) -> NDArray[np.uint8]:
    """Absent without data, partial where a band that had data has none inside, else as before."""
    after = before.copy()
    for index, modality in enumerate(map(get, values)):
        has = modality.valid(values[modality.name]).reshape(len(modality.bands), -1).any(axis=1)
        if not has.any():
            after[index] = Status.ABSENT
        elif (had[modality.name] & ~has).any():
            after[index] = Status.PARTIAL
    return after


def _record(record: dict[str, Any], status: NDArray[np.uint8], values: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The line of a stored row once its tile is cropped."""
    if status[list(values).index("sentinel2")] == Status.ABSENT:
        place = {name: value for name, value in record.items() if name in _OF_THE_PLACE}
        return {**place, "outcome": VACANT_OUTCOME, "reason": str(Absence.GAPS)}
    for name, found in zip(values, status, strict=True):
        if found == Status.ABSENT:
            record[f"absent_{name}"] = record[f"absent_{name}"] or str(Absence.MASKED)
    if record["clear_fraction"] is not None:
        record["clear_fraction"] = _clear_fraction(record, values)
    return record


_OF_THE_PLACE = {
    "row", "location_id", "attempts", "lon", "lat", "epsg", "x0", "y0", "biome", "ecoregion", "realm", "country",
    "continent", "year", "rank", "reserve", "split",
}  # fmt: skip
"""Columns that a row keeps whose tile gave way."""


def _clear_fraction(record: dict[str, Any], values: dict[str, NDArray[Any]]) -> float | None:
    """The clear share of the crop; None where it has neither Cloud Score+ nor QA60."""
    if not any(MODALITIES[n].valid(values[n]).any() for n in ("cloud_score", "sentinel2_cloudmask")):
        return None
    acquisition = Acquisition(
        location_id=record["location_id"],
        year=record["year"],
        level=record["level"],
        sentinel2_id="",
        time=record["time"],
        scene_cloud=math.nan,
        baseline="",
        bands=(),
        ascending=None,
        descending=None,
        era5=(),
    )
    return checks.clear_fraction(Tile(acquisition, values, {}))
