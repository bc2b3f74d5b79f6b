"""Comparing a store's files with its commit records: what is missing, torn, damaged, or does not belong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mmearth_data.store.buckets import Refused
from mmearth_data.store.commits import FileRecord, committed, files_of, read_record
from mmearth_data.store.files import StoreError, Unreadable, each, files_below, sha256_of_file
from mmearth_data.store.layout import COMMITS, Layout, read_layout
from mmearth_data.store.objects import Place, at

Problem = Literal["missing", "unreadable", "torn", "damaged", "foreign", "uncommitted"]


@dataclass(frozen=True)
class Finding:
    """One file that is not as it should be; ``file`` is its path below the store.

    missing: a committed file is not there; unreadable: the operating system does not give it; torn: it has another
    size; damaged: it has the size but other content, or is a commit record that is not its shard's; foreign: no part
    of the store; uncommitted: left by an interrupted write, which the next try overwrites or removes.
    """

    problem: Problem
    file: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.file}"

    @property
    def harmless(self) -> bool:
        """Whether every committed byte is as written all the same, and nothing stands in the way."""
        return self.problem == "uncommitted"

    @property
    def remedy(self) -> str:
        """What to do about it, without a full stop."""
        if self.problem == "uncommitted":
            return "nothing to do: whoever collects this shard next overwrites or removes it"
        if self.problem == "foreign":
            return "remove it, or move it out of the store"
        if self.problem == "unreadable":
            return "check the disk and the file's permissions; where the disk has lost it, restore it from a copy"
        record = f"{COMMITS}/{self._shard:06d}.json"
        return (
            f"restore it from a copy of the store; or remove {record} and collect again, which fetches the shard anew"
        )

    @property
    def _shard(self) -> int:
        """The shard that a committed file belongs to."""
        return int(re.split(r"[/.]", self.file.partition("/c/")[2] or self.file.rpartition("/")[2])[0])


def _committed_files(layout: Layout, shards: set[int], on_shard: Callable[[int, int], None]) -> Iterator[Finding]:
    for done, shard in enumerate(sorted(shards)):
        on_shard(done, len(shards))
        try:
            record = read_record(layout.path, shard, layout.modalities)
        except Refused:
            raise
        except Unreadable:
            yield Finding("unreadable", f"{COMMITS}/{shard:06d}.json")
            continue
        except StoreError:
            yield Finding("damaged", f"{COMMITS}/{shard:06d}.json")
            continue
        yield from filter(None, each(layout.path, partial(_compared, layout), record.files.items()))


def _compared(layout: Layout, committed_file: tuple[str, FileRecord]) -> Finding | None:
    """What is wrong with a committed file."""
    name, expected = committed_file
    file = layout.path / name
    try:
        if file.stat().st_size != expected.size:
            return Finding("torn", name)
        return Finding("damaged", name) if sha256_of_file(file) != expected.sha256 else None
    except (FileNotFoundError, NotADirectoryError):
        return Finding("missing", name)
    except OSError:
        return Finding("unreadable", name)


def _other_files(path: str | Place) -> Iterator[Finding]:
    """What belongs to no committed shard.

    Files are listed first, so that shards that were planned and committed meanwhile are known.
    """
    folders = (COMMITS, *(modality.name for modality in read_layout(path).modalities))
    names = [
        f"{folder}/{below}" for folder in folders for below in sorted(n for n, _ in files_below(at(path) / folder))
    ]
    layout, shards = read_layout(path), committed(path)
    known = {name for shard in shards for name in files_of(shard, layout.modalities)}
    begun = (shard for shard in range(layout.shards) if shard not in shards)
    interrupted = {name for shard in begun for name in files_of(shard, layout.modalities)}
    own = re.compile(re.escape(COMMITS) + r"/(\d{6,}\.(json|lock)|consolidate\.lock|clock)")
    metadata = {f"{folder}/zarr.json" for folder in folders}
    for name in names:
        if name in known or name in metadata or own.fullmatch(name):
            continue
        half_written = re.fullmatch(r".+/\..+\.tmp", name) is not None
        yield Finding("uncommitted" if name in interrupted or half_written else "foreign", name)


def verify(path: str | Place, on_shard: Callable[[int, int], None] = lambda done, total: None) -> list[Finding]:
    """Recompute every checksum of the store at ``path``; an empty list means that every committed byte is as written.

    Reads the whole store once; ``on_shard`` is told before each committed shard, and at the end, how many of how many
    are done. Raises StoreError where ``path`` is no store.
    """
    layout = read_layout(path)
    shards = committed(path)
    findings = [*_committed_files(layout, shards, on_shard), *_other_files(path)]
    on_shard(len(shards), len(shards))
    return findings
