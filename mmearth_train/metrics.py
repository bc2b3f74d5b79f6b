"""A run's metrics as JSON lines, one per logged training step and one per validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE_NAME = "metrics.jsonl"


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
