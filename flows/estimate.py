"""``mmearth estimate``: what a collection will ask for, before it asks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.cost import Row, eecu_rows, estimate_rows
from mmearth_data.cost.account import Measured, read_account
from mmearth_data.cost.estimate import estimate
from mmearth_data.cost.work import measured_in, work_of
from mmearth_data.plan import Plan


@dataclass(frozen=True)
class EstimateSettings:
    """Which locations are to be collected, and the store that has a part of them, if there is one."""

    locations: Path
    """The location table that mmearth sample wrote."""
    store: Path | None = None
    """A store that was begun: what it has is left out, and what it cost replaces assumptions."""
    downstream: tuple[str, ...] = ()
    """Modalities that a new store is to hold besides: their names, or all."""
    workers: int = 16
    """Requests under way at once in all; used while no rate was measured."""
    json: bool = False
    """Print JSON instead of tables."""


def run(settings: EstimateSettings) -> None:
    """Print the estimate."""
    plan = None if settings.store is None else Plan.open(settings.store)
    measured = Measured()
    if plan is not None:
        measured = measured_in(plan.store, read_account(plan.store), plan.summary().stored)
    result = estimate(work_of(settings.locations, plan, settings.downstream), settings.workers, measured)
    if settings.json:
        sys.stdout.write(result.to_json() + "\n")
        return
    console = Console()
    console.print(table_of(f"What collecting {settings.locations} will ask for", estimate_rows(result)))
    console.print(table_of("EECU-hours", eecu_rows(result)))


def table_of(title: str, rows: list[Row]) -> Table:
    """A table for the terminal; rows share their keys."""
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table
