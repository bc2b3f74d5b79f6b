"""A store into WebDataset shards: plain tar files of samples, one tar per shard and split.

A sample is the members that share a name up to the first dot: the row number, then ``<modality>.npy`` (stored dtype,
no-data as stored) for every stored modality, and ``json`` with the row's facts. Every sample has every member.
``dataset.json`` says what values mean and lists the tars with their checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mmearth_data.convert.journal import ConversionError, Journal, Progress, content_key, no_progress
from mmearth_data.convert.rows import Rows, facts, stored_rows
from mmearth_data.modalities import Modality, get
from mmearth_data.store.files import (
    make_directory,
    publish,
    remove_left_overs,
    sha256_of_file,
    temporary_of,
    unwritable,
    write_atomic,
)
from mmearth_data.store.reader import Store, open_store

INDEX = "dataset.json"
UNSPLIT = "none"
"""Name of the split of rows that belong to none."""
_JOURNAL = "_conversion"


@dataclass(frozen=True)
class TarReport:
    """What was written: samples by split, tar files, bytes."""

    samples: dict[str, int]
    tars: int
    bytes: int


class _Hashed(io.RawIOBase):
    """A file that is written from start to end and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def export_webdataset(store: str | Path, out: str | Path, progress: Progress = no_progress) -> TarReport:
    """Write the stored rows of ``store`` as ``out/<split>-NNNNNN.tar``, or carry on with an export begun there.

    Raises ConversionError where ``out`` holds something else or a file came out otherwise than it was written.
    """
    opened, folder = open_store(store), Path(out)
    make_directory(folder)
    journal = Journal.begin(folder / _JOURNAL, {"to": "webdataset", "content": content_key(store)})
    remove_left_overs(folder)
    shards = opened.rows // opened.shard_rows
    tars: list[dict[str, Any]] = []
    for shard in range(shards):
        record = journal.record(shard)
        if record is None:
            record = {"tars": _write(opened, shard, folder)}
            journal.finish(shard, record)
        tars += record["tars"]
        progress("writing", shard + 1, shards)
    write_atomic(folder / INDEX, _index(opened, tars))
    _verify(folder, tars, progress)
    samples: Counter[str] = Counter()
    for tar in tars:
        samples[tar["split"]] += tar["samples"]
    return TarReport(dict(samples), len(tars), sum(tar["bytes"] for tar in tars))


def _write(store: Store, shard: int, folder: Path) -> list[dict[str, Any]]:
    """Write the tars of one shard, each whole or not at all; what ``dataset.json`` says of them."""
    with ExitStack() as stack:
        open_tars: dict[str, tuple[Path, _Hashed, tarfile.TarFile]] = {}
        samples: Counter[str] = Counter()

        def tar_of(split: str) -> tarfile.TarFile:
            if split not in open_tars:
                final = folder / f"{split}-{shard:06d}.tar"
                hashed = _Hashed(stack.enter_context(temporary_of(final).open("wb")))
                tar = tarfile.TarFile(fileobj=cast("IO[bytes]", hashed), mode="w", format=tarfile.USTAR_FORMAT)
                open_tars[split] = final, hashed, tar
            return open_tars[split][2]

        try:
            for rows in stored_rows(store, shard):
                for at, record in enumerate(rows.records):
                    split = record["split"] or UNSPLIT
                    for name, content in _members(rows, at):
                        member = tarfile.TarInfo(f"{record['row']:08d}.{name}")
                        member.size = len(content)
                        tar_of(split).addfile(member, io.BytesIO(content))
                    samples[split] += 1
            for _, _, tar in open_tars.values():
                tar.close()
        except OSError as error:
            raise unwritable(folder, error) from error
    written = []
    for split, (final, hashed, _) in open_tars.items():
        publish(temporary_of(final), final)
        written.append(
            {
                "file": final.name,
                "split": split,
                "samples": samples[split],
                "bytes": hashed.size,
                "sha256": hashed.digest.hexdigest(),
            }
        )
    return written


def _members(rows: Rows, at: int) -> Iterator[tuple[str, bytes]]:
    yield "json", json.dumps(facts(rows.records[at], rows.status[at]), ensure_ascii=False).encode()
    for name, values in rows.arrays.items():
        content = io.BytesIO()
        np.save(content, values[at])
        yield f"{name}.npy", content.getvalue()


def _described(modality: Modality) -> dict[str, Any]:
    return {
        "long_name": modality.long_name,
        "bands": modality.bands,
        "dtype": modality.dtype,
        "nodata": None if np.isnan(modality.nodata) else int(modality.nodata),
        "scale_factor": modality.scale_factor,
        "units": modality.units,
        "classes": dict(modality.classes),
        "licence": modality.licence,
        "citation": modality.citation,
    }


def _index(store: Store, tars: list[dict[str, Any]]) -> bytes:
    document = {
        "tile_pixels": store.tile_pixels,
        "pixel_metres": 10,
        "modalities": {name: _described(get(name)) for name in store.modalities},
        "tars": tars,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _verify(folder: Path, tars: list[dict[str, Any]], progress: Progress) -> None:
    """Compare each file on disk with what was written into it."""
    for done, tar in enumerate(tars, start=1):
        file = folder / tar["file"]
        if not file.is_file() or sha256_of_file(file) != tar["sha256"]:
            raise ConversionError(f"{file} is not what was written; remove {folder} and run again")
        progress("reading back", done, len(tars))
