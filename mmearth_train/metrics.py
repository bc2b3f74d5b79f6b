"""A run's metrics as JSON lines, one per logged training step and one per validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE_NAME = "metrics.jsonl"
_TAIL_BYTES = 1 << 16


def append(out: Path, line: dict[str, Any]) -> None:
    """Add one line; it is on its way to the disk when this returns."""
    with (out / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def rewind(out: Path, step: int) -> None:
    """Drop the lines after ``step``, which a resumed run writes again, and a torn last one."""
    path = out / FILE_NAME
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("\n") and json.loads(text)["step"] <= step:
            kept.append(text)
    temporary = path.with_name(f"{FILE_NAME}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


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
        if text.endswith(b"\n"):
            line: dict[str, Any] = json.loads(text)
            if line["split"] == split:
                return line
    return None
