"""``mmearth status``: how far a store is, as a table for a person or as JSON for a program."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table

from flows.cost import account_rows
from flows.estimate import table_of
from flows.settings import StatusSettings
from mmearth_data.cost.account import committed_bytes, read_account
from mmearth_data.status import StoreStatus, status


def run(settings: StatusSettings) -> None:
    """Print the state of the store."""
    state, account = status(settings.store), read_account(settings.store)
    if settings.json:
        document = json.loads(state.to_json()) | {"account": None if account is None else account.to_json()}
        sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return
    console = Console()
    for table in _tables(state):
        console.print(table)
    if account is not None:
        console.print(table_of("Cost", account_rows(account, state.stored, committed_bytes(settings.store))))


def _tables(state: StoreStatus) -> list[Table]:
    """What a person wants to know, most important first."""
    owed = "unknown" if state.quota is None else state.quota
    overview = Table("", "", title=state.path, title_justify="left", show_header=False)
    for name, value in (
        ("tiles stored", f"{state.stored} of {owed}"),
        ("shards committed", f"{state.committed} of {state.shards}"),
        ("locations that gave way", f"{state.gave_way} {_reasons(state.refusals)}"),
        ("levels", _reasons(state.levels)),
        ("splits", _reasons(state.splits)),
        ("size", f"{state.bytes_on_disk / 1e6:.1f} MB"),
    ):
        overview.add_row(name, value)
    complete = [stratum.complete for stratum in state.strata]
    balance = Table("biome", "year", "owed", "stored", "complete", "gave way", title="Strata", title_justify="left")
    for stratum in state.strata:
        cells = (stratum.biome, stratum.year, stratum.quota, stratum.stored, stratum.complete, stratum.gave_way)
        balance.add_row(*("" if cell is None else str(cell) for cell in cells))
    balance.caption = f"complete rows per stratum: {min(complete, default=0)} to {max(complete, default=0)}"
    absent = Table("modality", "absent from tiles", title="Absences", title_justify="left")
    for name, reasons in state.absences.items():
        absent.add_row(name, _reasons(reasons))
    return [overview, balance, absent]


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
