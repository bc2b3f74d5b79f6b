"""What a card tells of a store, gathered from its committed rows, its commit records and its statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import BIOME_NAMES, Modality, get
from mmearth_data.splits import SPLITS
from mmearth_data.store.commits import FileRecord, committed, read_record
from mmearth_data.store.files import each, sha256_of_file
from mmearth_data.store.layout import FORMAT_VERSION, LOCATIONS, STATISTICS
from mmearth_data.store.objects import Place
from mmearth_data.store.reader import Store, open_store
from mmearth_data.store.schema import LEVELS, VACANT_FLAG, Status

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


@dataclass(frozen=True)
class ShardFacts:
    """One shard that holds a tile: its number, its files, and where and when its tiles lie.

    ``points`` are (longitude, latitude) of the cells' centres; ``first``, ``last`` are ms since 1970, UTC.
    """

    number: int
    files: dict[str, FileRecord]
    points: NDArray[np.float64]
    first: int
    last: int

    @property
    def name(self) -> str:
        """The shard's number as its files are called."""
        return f"{self.number:06d}"


@dataclass(frozen=True)
class Facts:
    """A store in numbers. ``availability`` counts tiles per modality and Status; ``bytes`` those of its files.

    ``key`` names the content: stores that hold the same have the same. ``tables``: size and SHA-256 of files at the
    store's root.
    """

    key: str
    format: int
    tile_pixels: int
    shard_rows: int
    tiles: int
    attrs: dict[str, Any]
    levels: dict[str, int]
    splits: dict[str, int]
    years: dict[str, int]
    biomes: dict[str, int]
    availability: dict[str, dict[Status, int]]
    bytes: dict[str, int]
    modalities: tuple[Modality, ...]
    shards: tuple[ShardFacts, ...]
    tables: dict[str, FileRecord]

    @property
    def version(self) -> str:
        """Semantic version of the content: the store's format, then the content's key."""
        return f"{self.format}.0.0+{self.key}"

    @property
    def name(self) -> str:
        """The data set's name."""
        return f"mmearth-{self.tile_pixels}px-{self.key}"

    @property
    def what(self) -> str:
        """How much of what the store holds, as the beginning of a sentence."""
        pixels = self.tile_pixels
        return f"{self.tiles} tiles of {pixels} × {pixels} pixels of 10 m, each with {len(self.modalities)} modalities"

    @property
    def box(self) -> Box:
        """The smallest box around all tiles' centres; the whole Earth where there is none."""
        if not self.shards:
            return (-180.0, -90.0, 180.0, 90.0)
        return box_of(np.concatenate([shard.points for shard in self.shards]))


def box_of(points: NDArray[np.float64]) -> Box:
    """The smallest box around ``points``, which does not cross the antimeridian."""
    west, south = points.min(axis=0).tolist()
    east, north = points.max(axis=0).tolist()
    return (west, south, east, north)


def _count(codes: NDArray[Any], words: tuple[str, ...]) -> dict[str, int]:
    """How often each word is meant, those that never are left out."""
    counts = np.bincount(codes, minlength=len(words))
    return {word: int(count) for word, count in zip(words, counts, strict=False) if count}


def _shards(
    store: Store, holding: NDArray[np.int64], records: dict[int, dict[str, FileRecord]]
) -> tuple[ShardFacts, ...]:
    shards = holding // store.shard_rows
    found = []
    for number in np.unique(shards).tolist():
        rows = holding[shards == number]
        found.append(
            ShardFacts(
                number=number,
                files=records[number],
                points=np.stack([store.lon[rows], store.lat[rows]], axis=1),
                first=int(store.time[rows].min()),
                last=int(store.time[rows].max()),
            )
        )
    return tuple(found)


def gather(path: str | Place) -> Facts:
    """The facts of the consolidated store at ``path``; raises StoreError where it cannot be read."""
    store = open_store(path)
    holding = np.flatnonzero(store.split != VACANT_FLAG)
    numbers = sorted(committed(path))
    read = each(store.path, partial(read_record, store.path), numbers)
    records = {number: record.files for number, record in zip(numbers, read, strict=True)}
    sizes = dict.fromkeys(store.modalities, 0)
    content = hashlib.sha256()
    for files in records.values():
        for name, file in sorted(files.items()):
            content.update(f"{name} {file.sha256}\n".encode())
            modality = name.split("/")[0]
            if modality in sizes:
                sizes[modality] += file.size
    years, counts = np.unique(store.year[holding], return_counts=True)
    known = holding[store.biome[holding] < len(BIOME_NAMES)]
    tables = {}
    for name in (LOCATIONS, STATISTICS):
        file_path = store.path / name
        tables[name] = FileRecord(file_path.stat().st_size, sha256_of_file(file_path))
    return Facts(
        key=content.hexdigest()[:12],
        format=FORMAT_VERSION,
        tile_pixels=store.tile_pixels,
        shard_rows=store.shard_rows,
        tiles=len(holding),
        attrs=store.attrs,
        levels=_count(store.level[holding], LEVELS),
        splits=_count(store.split[holding], SPLITS),
        years={str(year): int(count) for year, count in zip(years, counts, strict=True)},
        biomes=_count(store.biome[known], BIOME_NAMES),
        availability={
            name: {status: int((store.status[holding, index] == status).sum()) for status in Status}
            for index, name in enumerate(store.modalities)
        },
        bytes=sizes,
        modalities=tuple(map(get, store.modalities)),
        shards=_shards(store, holding, records),
        tables=tables,
    )
