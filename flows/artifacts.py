"""What a person sees of a run: a bar in the terminal; a throttled progress artifact, tables, a picture in Prefect."""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import cast
from uuid import UUID

from PIL import Image
from prefect.artifacts import (
    create_image_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

PUBLISH_SECONDS = 2.0
"""How often, at most, the progress artifact is updated: a run must not load the server with its tiles."""


def _console() -> Console:
    """Standard error; a log file is as wide as the tables need."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140)


class RunProgress:
    """Counts one run's work: ``advance`` from any thread, ``publish`` from the flow's own."""

    def __init__(self, bar: Progress, task: TaskID, artifact: UUID, cost: Callable[[], str] | None = None) -> None:
        self._bar, self.task, self._artifact = bar, task, artifact
        self._cost = cost
        self._published = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done; fewer than none where work is to be done again."""
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
        words = [f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f}", *_pace(task)]
        if self._cost is not None:
            words.append(self._cost())
        update_progress_artifact(self._artifact, task.percentage, description=", ".join(words))
        self._published = time.monotonic()


def _pace(task: Task) -> list[str]:
    """Units per second since the beginning, and how long the rest takes at that."""
    if not task.completed or not task.elapsed:
        return []
    rate = task.completed / task.elapsed
    if not task.remaining:
        return [f"{rate:.3g}/s"]
    left = timedelta(seconds=round(task.remaining / rate))
    return [f"{rate:.3g}/s", f"about {left} left"]


@contextmanager
def run_progress(title: str, total: int, key: str, cost: Callable[[], str] | None = None) -> Iterator[RunProgress]:
    """A bar titled ``title`` over ``total`` units and its progress artifact ``key``, both ended with the block.

    The artifact says what it has cost so far, where ``cost`` tells.
    """
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console()) as bar:
        artifact = cast("UUID", create_progress_artifact(0.0, key, title))
        progress = RunProgress(bar, bar.add_task(title, total=total), artifact, cost)
        try:
            yield progress
        except BaseException:
            bar.update(progress.task, visible=bar.tasks[progress.task].completed > 0)
            raise
        finally:
            progress.publish(now=True)


def keep_table(key: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Keep a table as the table artifact ``key`` of the run; rows share their keys."""
    create_table_artifact([{name: str(value) for name, value in row.items()} for row in rows], key, title)


def keep_image(key: str, title: str, image: Image.Image) -> None:
    """Keep a small picture as the image artifact ``key`` of the run, within the artifact: nobody has to serve it."""
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    create_image_artifact(f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}", key, title)


def publish_table(key: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Show a table in the terminal and keep it as the table artifact ``key`` of the run; rows share their keys."""
    header = list(rows[0]) if rows else []
    table = Table(title=title, title_justify="left")
    for position, name in enumerate(header):
        table.add_column(name, no_wrap=position > 0)  # a narrow terminal wraps names, never figures
    for row in rows:
        table.add_row(*(str(row[name]) for name in header))
    _console().print(table)
    keep_table(key, title, rows)
