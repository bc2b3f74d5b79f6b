"""The location tables that a store's plan has adopted, as ``_plan/plan.json`` lists them: the first, then longer ones.

Format 1 knows one table; a plan that was extended has format 2, which an older mmearth refuses by number.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mmearth_data.store.files import write_atomic
from mmearth_data.store.objects import Place

FORMATS = (1, 2)
FIRST_TABLE = "locations.parquet"


class PlanError(ValueError):
    """The plan cannot be made or continued; the message says why and what to do."""


@dataclass(frozen=True)
class AdoptedTable:
    """One table: its file in ``_plan``, a byte for byte copy; its SHA-256, its rows, the seed of its random orders."""

    file: str
    sha256: str
    locations: int
    seed: int


@dataclass(frozen=True)
class AdoptedTables:
    """All tables of a plan, each of which contains the one before, and the rows of the store's shards."""

    shard_rows: int
    tables: tuple[AdoptedTable, ...]

    def with_table(self, sha256: str, locations: int) -> AdoptedTables:
        """The same with one table more."""
        number = len(self.tables)
        file = f"locations-{number:02d}.parquet" if number else FIRST_TABLE
        table = AdoptedTable(file, sha256, locations, int(sha256[:8], 16))
        return AdoptedTables(self.shard_rows, (*self.tables, table))


def read_adopted(folder: Place) -> AdoptedTables:
    """What ``plan.json`` in the folder ``_plan`` says; raises PlanError for none, a damaged one or another format."""
    damaged = f"{folder / 'plan.json'} is damaged; restore it from a copy of the store"
    try:
        document: dict[str, Any] = json.loads((folder / "plan.json").read_bytes())
        kind = document.get("format")
    except FileNotFoundError:
        raise PlanError(f"{folder.parent} has no plan; make one with mmearth collect --locations FILE") from None
    except (ValueError, AttributeError) as error:
        raise PlanError(damaged) from error
    if kind not in FORMATS:
        raise PlanError(f"{folder.parent} has a plan of format {kind}, not {FORMATS[-1]}; collect anew")
    try:
        rows = int(document["shard_rows"])
        if kind == 1:
            return AdoptedTables(rows, ()).with_table(document["table_sha256"], int(document["locations"]))
        return AdoptedTables(rows, tuple(AdoptedTable(**table) for table in document["tables"]))
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(damaged) from error


def write_adopted(folder: Place, adopted: AdoptedTables) -> None:
    """Write ``plan.json``: from then on the plan has these tables; raises StoreError."""
    first, *longer = adopted.tables
    document: dict[str, Any] = {
        "format": 1,
        "table_sha256": first.sha256,
        "locations": first.locations,
        "shard_rows": adopted.shard_rows,
    }
    if longer:
        tables = [asdict(table) for table in adopted.tables]
        document = {"format": 2, "shard_rows": adopted.shard_rows, "tables": tables}
    write_atomic(folder / "plan.json", json.dumps(document, indent=1).encode())


def planned_locations(store: Place) -> Place:
    """The file of the location table that the store follows at present; the first one while there is no plan.

    Raises PlanError where the plan cannot be read.
    """
    folder = store / "_plan"
    if not (folder / "plan.json").is_file():
        return folder / FIRST_TABLE
    return folder / read_adopted(folder).tables[-1].file
