"""What a person sees of a run: a bar in the terminal; a throttled progress artifact, tables, a picture in Prefect."""

from __future__ import annotations

import base64
import contextvars
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import cast
from uuid import UUID

from httpx import HTTPError
from PIL import Image
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

logger = logging.getLogger(__name__)
PUBLISH_SECONDS = 2.0
"""How often, at most, the progress artifact is updated: a run must not load the server with its tiles."""


def _console() -> Console:
    """Standard error; a log file is as wide as the tables need."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140)


class RunProgress:
    """Counts one run's work: every method may be called from any thread."""

    def __init__(
        self, bar: Progress, task: TaskID, key: str, unit: str = "", cost: Callable[[], str] | None = None
    ) -> None:
        self._bar, self.task, self._key = bar, task, key
        self._unit, self._cost = unit, cost
        self._artifact: UUID | None = None
        self._said = ""

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done; fewer than none where work is to be done again."""
        self._bar.advance(self.task, steps)

    def grow(self, steps: int) -> None:
        """Add ``steps`` units to what is to be done."""
        task = self._bar.tasks[self.task]
        self._bar.update(self.task, total=(task.total or 0) + steps)

    def show(self, stage: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` units of ``stage`` are done."""
        self._bar.update(self.task, description=stage, completed=done, total=total)

    def publish(self) -> None:
        """Make or update the artifact, unless it says all that already."""
        task = self._bar.tasks[self.task]
        counted = f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f} {self._unit}".rstrip()
        said = ", ".join([counted, *_pace(task), *([self._cost()] if self._cost is not None else [])])

        def show() -> None:
            if self._artifact is None:
                self._artifact = cast("UUID", create_progress_artifact(task.percentage, self._key, said))
            else:
                update_progress_artifact(self._artifact, task.percentage, said)
            self._said = said

        if said != self._said:
            _try_to(show)


def _try_to(show: Callable[[], object]) -> None:
    """Show something in Prefect; work of days does not end because nobody can watch it for a while."""
    try:
        show()
    except HTTPError as error:
        logger.warning("Prefect was not shown how far the run is: %s", error)


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
def run_progress(
    title: str, total: int, key: str, unit: str = "", cost: Callable[[], str] | None = None
) -> Iterator[RunProgress]:
    """A bar titled ``title`` over ``total`` units and its progress artifact ``key``, both ended with the block.

    A thread of its own publishes it meanwhile, whatever the flow waits for. The artifact says what is counted in
    ``unit``, and what it has cost so far where ``cost`` tells.
    """
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console()) as bar:
        progress = RunProgress(bar, bar.add_task(title, total=total), key, unit, cost)
        ended = threading.Event()

        def publish() -> None:
            progress.publish()
            while not ended.wait(PUBLISH_SECONDS):
                progress.publish()

        publisher = threading.Thread(target=contextvars.copy_context().run, args=(publish,), name=key, daemon=True)
        publisher.start()
        try:
            yield progress
        except BaseException:
            bar.update(progress.task, visible=bar.tasks[progress.task].completed > 0)
            raise
        finally:
            ended.set()
            publisher.join()
            progress.publish()


def keep_table(key: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Keep a table as the table artifact ``key`` of the run; rows share their keys."""
    # Browsers put keys that look like integers, years say, before all others: a space behind them keeps the order.
    table = [{name + " " * name.isdigit(): str(value) for name, value in row.items()} for row in rows]
    _try_to(lambda: create_table_artifact(table, key, title))


def keep_picture(key: str, title: str, image: Image.Image) -> None:
    """Keep a small picture as the artifact ``key`` of the run, within the artifact: nobody has to serve it.

    It is a page of Markdown, since Prefect writes the whole address of an image artifact beneath it.
    """
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    address = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    _try_to(lambda: create_markdown_artifact(f"![{title}]({address})", key, title))


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
