"""What a person sees of a run: a bar in the terminal, one throttled progress artifact and tables in Prefect."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

PUBLISH_SECONDS = 2.0
"""How often, at most, the progress artifact is updated: a run must not load the server with its tiles."""


def _console() -> Console:
    """Standard error; a log file is as wide as the tables need."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140)


class RunProgress:
    """Counts one run's work: ``advance`` from any thread, ``publish`` from the flow's own."""

    def __init__(self, bar: Progress, task: TaskID, artifact: UUID) -> None:
        self._bar, self.task, self._artifact = bar, task, artifact
        self._published = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done."""
        self._bar.advance(self.task, steps)

    def grow(self, steps: int) -> None:
        """Add ``steps`` units to what is to be done."""
        task = self._bar.tasks[self.task]
        self._bar.update(self.task, total=(task.total or 0) + steps)

    def show(self, stage: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` units of ``stage`` are done, and publish that now and then."""
        self._bar.update(self.task, description=stage, completed=done, total=total)
        self.publish()

    def publish(self, *, now: bool = False) -> None:
        """Update the artifact if it is older than PUBLISH_SECONDS, or in any case if ``now``."""
        if not now and time.monotonic() - self._published < PUBLISH_SECONDS:
            return
        task = self._bar.tasks[self.task]
        description = f"{task.description}: {task.completed:.0f} of {task.total or 0:.0f}"
        update_progress_artifact(self._artifact, task.percentage, description=description)
        self._published = time.monotonic()


@contextmanager
def run_progress(title: str, total: int, key: str) -> Iterator[RunProgress]:
    """A bar titled ``title`` over ``total`` units and its progress artifact ``key``, both ended with the block."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console()) as bar:
        artifact = cast("UUID", create_progress_artifact(0.0, key, title))
        progress = RunProgress(bar, bar.add_task(title, total=total), artifact)
        try:
            yield progress
        except BaseException:
            bar.update(progress.task, visible=bar.tasks[progress.task].completed > 0)
            raise
        finally:
            progress.publish(now=True)


def publish_table(key: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Show a table in the terminal and keep it as the table artifact ``key`` of the run; rows share their keys."""
    header = list(rows[0]) if rows else []
    cells = [{name: str(row[name]) for name in header} for row in rows]
    table = Table(title=title, title_justify="left")
    for position, name in enumerate(header):
        table.add_column(name, no_wrap=position > 0)  # a narrow terminal wraps names, never figures
    for row in cells:
        table.add_row(*row.values())
    _console().print(table)
    create_table_artifact(cells, key, title)
