"""A run's metrics as JSON lines, one per logged training step and one per validation."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILE_NAME = "metrics.jsonl"
_TAIL_BYTES = 1 << 16

_log = logging.getLogger(__name__)


class MetricsWriteError(RuntimeError):
    """The metrics cannot be written, or read to be written anew; the message says why and what to do."""


def append(out: Path, line: dict[str, Any]) -> None:
    """Add one line; it is on its way to the disk when this returns. MetricsWriteError where there is no room for it."""
    with _explained(out), (out / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def rewind(out: Path, step: int) -> None:
    """Drop the lines after ``step``, which a resumed run writes again, and a torn last one.

    Damaged ones are dropped with a warning. Raises MetricsWriteError where that fails; the file is then as it was.
    """
    path = out / FILE_NAME
    if not path.is_file():
        return
    with _explained(out):
        kept = [text for text in path.read_bytes().splitlines(keepends=True) if _until(path, text, step)]
        temporary = path.with_name(f"{FILE_NAME}.tmp")
        with temporary.open("wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _until(path: Path, text: bytes, step: int) -> bool:
    """Whether a line is whole and not of a later step."""
    if not text.endswith(b"\n"):
        return False
    line = _parsed(text)
    if line is None:
        _log.warning("%s has a damaged line, which is left out: %.60r", path, text)
    return line is not None and line["step"] <= step


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A line, or None for one that is damaged."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    sound = isinstance(line, dict) and isinstance(line.get("split"), str) and isinstance(line.get("step"), int)
    return line if sound else None


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise MetricsWriteError(f"{out / FILE_NAME} cannot be kept ({why}); mend that, then use --resume") from error


def last(out: Path, split: str) -> dict[str, Any] | None:
    """The newest whole line of ``split`` (train or val) among the last ones, however long the run is; None for none."""
    path = out / FILE_NAME
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - _TAIL_BYTES)
        file.seek(start)
        texts = file.read().splitlines(keepends=True)
    for text in reversed(texts[1:] if start else texts):
        line = _parsed(text) if text.endswith(b"\n") else None
        if line is not None and line["split"] == split:
            return line
    return None
