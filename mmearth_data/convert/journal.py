"""What a conversion has finished so far, kept beside its output, so that a killed one carries on where it was.

A part is one shard's worth of output. Its record is written once the part itself is whole and on disk, so a part with
a record is never made again, and one without is made from the start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmearth_data.store.commits import committed, record_file
from mmearth_data.store.files import StoreError, remove_left_overs, write_atomic
from mmearth_data.store.layout import read_layout

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) after each step."""

_SETTINGS = "settings.json"
_VERSION = 2
"""Raised whenever records are kept otherwise: what was begun with others is not carried on."""


class ConversionError(ValueError):
    """What was given cannot be converted, or came out otherwise than it went in; the message is one line."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""


def _require_empty(folder: Path) -> None:
    output = folder.parent
    if not output.is_dir():
        return
    others = sorted(entry.name for entry in output.iterdir() if entry.name != folder.name)
    if others:
        raise ConversionError(
            f"{output} must be empty or hold this conversion; it holds {others[0]!r}: choose another directory"
        )


def content_key(store: str | Path) -> str:
    """SHA-256 over the commit records of a store, which hold the checksums of its files: what the store contains.

    Raises StoreError where a shard is not committed, for a conversion would leave it out without a word.
    """
    shards, room = committed(store), read_layout(store).shards
    missing = sorted(set(range(room)) - shards)
    if missing:
        raise StoreError(
            f"shard {missing[0]} of {store} is not committed ({len(missing)} of {room} are missing); finish the "
            "collection before converting"
        )
    digest = hashlib.sha256()
    for shard in sorted(shards):
        digest.update(record_file(store, shard).read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Journal:
    """The records of one conversion in ``folder``."""

    folder: Path

    @classmethod
    def begin(cls, folder: Path, settings: dict[str, Any]) -> Journal:
        """Start a conversion, or carry on with one that was begun with equal ``settings``.

        Raises ConversionError where the output, the folder's parent, holds anything else.
        """
        file = folder / _SETTINGS
        content = (json.dumps({"journal": _VERSION, **settings}, indent=1, sort_keys=True) + "\n").encode()
        if not file.exists():
            _require_empty(folder)
            write_atomic(file, content)
        elif file.read_bytes() != content:
            raise ConversionError(
                f"{folder.parent} holds a conversion of another source, with other settings or by another mmearth; "
                "choose another output directory, or remove that one"
            )
        remove_left_overs(folder)
        return cls(folder)

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.json"

    def record(self, part: int) -> dict[str, Any] | None:
        """What was recorded of ``part``, or None where it is not finished."""
        try:
            document = json.loads(self._file(part).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConversionError(f"{self._file(part)} is damaged; remove it, then run again") from error
        return dict(document)

    def finish(self, part: int, record: dict[str, Any]) -> None:
        """Record that ``part`` is finished."""
        write_atomic(self._file(part), (json.dumps(record, indent=1) + "\n").encode())
