"""Comparing a store's files with its commit records: what is missing, torn, damaged, or does not belong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmearth_data.modalities import STORED
from mmearth_data.store.commits import array_file_name, committed, read_record, table_name
from mmearth_data.store.files import StoreError, sha256_of_file
from mmearth_data.store.layout import COMMITS, Layout, read_layout

Problem = Literal["missing", "torn", "damaged", "foreign", "uncommitted"]


@dataclass(frozen=True)
class Finding:
    """One file that is not as it should be; ``file`` is its path below the store.

    missing: a committed file is not there; torn: it has another size; damaged: it has the size but other content;
    foreign: no part of the store; uncommitted: left by an interrupted write, which the next try overwrites or removes.
    """

    problem: Problem
    file: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.file}"


def _committed_files(layout: Layout, shards: set[int]) -> Iterator[Finding]:
    for shard in sorted(shards):
        try:
            record = read_record(layout.path, shard)
        except StoreError:
            yield Finding("damaged", f"{COMMITS}/{shard:06d}.json")
            continue
        for name, expected in record.files.items():
            file = layout.path / name
            if not file.is_file():
                yield Finding("missing", name)
            elif file.stat().st_size != expected.size:
                yield Finding("torn", name)
            elif sha256_of_file(file) != expected.sha256:
                yield Finding("damaged", name)


def _files_below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _files_below(entry)
        else:
            yield entry


def _other_files(layout: Layout, shards: set[int]) -> Iterator[Finding]:
    room = range(layout.shards)
    known = {name for shard in shards for name in (table_name(shard), *_data_files(shard))}
    interrupted = {name for shard in room if shard not in shards for name in (table_name(shard), *_data_files(shard))}
    own = re.compile(re.escape(COMMITS) + r"/(\d{6,}\.(json|lock)|consolidate\.lock)")
    for folder in (COMMITS, *(modality.name for modality in STORED)):
        if not (layout.path / folder).is_dir():
            continue
        for file in _files_below(layout.path / folder):
            name = file.relative_to(layout.path).as_posix()
            if name in known or name == f"{folder}/zarr.json" or own.fullmatch(name):
                continue
            half_written = re.fullmatch(r"\..+\.tmp", file.name) is not None
            yield Finding("uncommitted" if name in interrupted or half_written else "foreign", name)


def _data_files(shard: int) -> list[str]:
    return [array_file_name(modality, shard) for modality in STORED]


def verify(path: str | Path) -> list[Finding]:
    """Recompute every checksum of the store at ``path``; an empty list means that every committed byte is as written.

    Reads the whole store once. Raises StoreError where ``path`` is no store.
    """
    layout = read_layout(path)
    shards = committed(path)
    return [*_committed_files(layout, shards), *_other_files(layout, shards)]
