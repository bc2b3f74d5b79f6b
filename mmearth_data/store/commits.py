"""Commit records: which shards exist, and what each of their files must look like."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from mmearth_data.modalities import STORED, Modality
from mmearth_data.store.files import StoreError, each, sha256, unreadable
from mmearth_data.store.layout import COMMITS, FORMAT_VERSION
from mmearth_data.store.objects import Place, at, write_once

_RECORD = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one committed file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class CommitRecord:
    """What was committed as one shard: its files by path below the store."""

    shard: int
    files: dict[str, FileRecord]


def record_file(path: str | Place, shard: int) -> Place:
    """Where the commit record of a shard lies."""
    return at(path) / COMMITS / f"{shard:06d}.json"


def table_name(shard: int) -> str:
    """Path of a shard's row table below the store."""
    return f"{COMMITS}/{shard:06d}.parquet"


def array_file_name(modality: Modality, shard: int) -> str:
    """Path below the store of the one file that holds a shard of a modality."""
    return f"{modality.name}/c/{shard}" + "/0" * (3 if modality.scope == "pixel" else 1)


def files_of(shard: int, stored: Sequence[Modality]) -> list[str]:
    """Paths below the store of everything that a shard of these modalities consists of."""
    return [table_name(shard), *(array_file_name(modality, shard) for modality in stored)]


def is_committed(path: str | Place, shard: int) -> bool:
    """Whether the shard is committed."""
    return record_file(path, shard).is_file()


def committed(path: str | Place) -> set[int]:
    """The shards that are committed; every other one does not exist, whatever files lie there."""
    folder = at(path) / COMMITS
    try:
        return {int(match[1]) for entry in folder.iterdir() if (match := _RECORD.fullmatch(entry.name))}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def write_record(path: str | Place, record: CommitRecord) -> None:
    """Commit: write the record, durably and at once.

    Raises StoreError where the shard was committed meanwhile, which a storage of objects tells by itself.
    """
    document = {
        "format": FORMAT_VERSION,
        "shard": record.shard,
        "files": {name: {"size": f.size, "sha256": f.sha256} for name, f in sorted(record.files.items())},
    }
    file, content = record_file(path, record.shard), (json.dumps(document, indent=1) + "\n").encode()
    if not write_once(file, content):
        raise committed_already(path, record.shard)


def committed_already(path: str | Place, shard: int) -> StoreError:
    """The StoreError for a second commit of a shard."""
    return StoreError(f"shard {shard} of {path} is committed, and a committed shard is never rewritten")


def read_record(path: str | Place, shard: int, stored: Sequence[Modality] = STORED) -> CommitRecord:
    """The commit record of ``shard``, which names the files of these modalities at least.

    Raises StoreError where the shard is not committed, or the record is damaged or that of another shard; Unreadable
    where the file is not given.
    """
    file = record_file(path, shard)
    try:
        document = json.loads(file.read_bytes())
        files = {name: FileRecord(int(f["size"]), str(f["sha256"])) for name, f in document["files"].items()}
        record = CommitRecord(int(document["shard"]), files)
    except FileNotFoundError:
        raise StoreError(
            f"shard {shard} of {path} is not committed; finish the collection with: mmearth collect --store {path}"
        ) from None
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"commit record {file} is damaged; restore it from a copy of the store") from error
    # One that lies under another's name, or names too little, would leave files that nobody compares with anything.
    if record.shard != shard or not set(files_of(shard, stored)) <= set(files):
        raise StoreError(f"commit record {file} is not that of shard {shard}; restore it from a copy of the store")
    return record


def row_tables(path: str | Place, shards: Iterable[int]) -> Iterator[pa.Table]:
    """The row tables of these committed shards, one after another; raises what ``row_table`` does."""
    return each(at(path), partial(row_table, path), shards)


def row_table(path: str | Place, shard: int) -> pa.Table:
    """The committed row table of ``shard`` (``commit_schema``); raises StoreError where it is missing or damaged."""
    name = table_name(shard)
    expected, file = read_record(path, shard).files[name], at(path) / name
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{file} is missing though its shard is committed; restore it from a copy") from None
    except OSError as error:
        raise unreadable(file, error) from error
    if sha256(content) != expected.sha256:
        raise StoreError(f"{file} is damaged (its SHA-256 is not the committed one); restore it from a copy")
    return pq.read_table(io.BytesIO(content))
