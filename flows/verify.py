"""``mmearth verify``: every checksum of a store recomputed, and one line for each file that is not as it should be."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmearth_data.store.layout import read_layout
from mmearth_data.store.objects import Place
from mmearth_data.store.shards import Finding, committed, verify


@dataclass(frozen=True)
class VerifySettings:
    """The store whose files are compared with its commit records."""

    store: Path
    """The Zarr store: a directory, s3://bucket/prefix or gs://bucket/prefix."""
    json: bool = False
    """Print JSON instead of lines."""


def run(settings: VerifySettings) -> int:
    """Print what is wrong with the store; 0 where every committed byte is as written and no foreign file lies there."""
    store = read_layout(settings.store).path  # what is no store is refused before a bar is drawn
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("shards", total=None)
        findings = verify(store, lambda done, total: bar.update(task, completed=done, total=total))
    wrong = [finding for finding in findings if not finding.harmless]
    if settings.json:
        sys.stdout.write(_as_json(store, findings) + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding}; {finding.remedy}\n")
        shards = len(committed(store))
        verdict = f"{len(wrong)} findings" if wrong else "every file as it was committed"
        sys.stdout.write(f"{store}: {shards} shards, {verdict}\n")
    return 1 if wrong else 0


def _as_json(store: Place, findings: list[Finding]) -> str:
    described = [{"problem": f.problem, "file": f.file, "harmless": f.harmless, "remedy": f.remedy} for f in findings]
    document = {"path": str(store), "committed": len(committed(store)), "findings": described}
    return json.dumps(document, indent=1, ensure_ascii=False)
