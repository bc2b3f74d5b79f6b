"""How far a store is, at any moment of a collection: what is committed, what is missing, and why.

Counts come from the row tables of committed shards, so they hold before anything is consolidated.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmearth_data.adopted import planned_locations
from mmearth_data.store.commits import committed, row_tables
from mmearth_data.store.files import StoreError, files_below, readable
from mmearth_data.store.layout import read_layout
from mmearth_data.store.objects import Place
from mmearth_data.store.rows import STORED_OUTCOME
from mmearth_data.store.schema import Status

Stratum = tuple[str, int]


@dataclass(frozen=True)
class StratumStatus:
    """One stratum (biome, year): tiles owed (None without a plan), rows stored and complete, locations that gave way.

    ``complete`` counts stored rows whose sentinel2 is complete: strata are equal when these are.
    """

    biome: str
    year: int
    quota: int | None
    stored: int
    complete: int
    gave_way: int


@dataclass(frozen=True)
class StoreStatus:
    """The state of a store.

    ``quota``: tiles owed by the plan, None where the store has none. ``shards``: those it has room for. Of the rows of
    ``committed`` shards, ``stored`` hold a tile, ``gave_way`` a location without one (``refusals``: reason → rows) and
    ``empty`` no location. ``absences``: modality → reason → stored rows. ``bytes_on_disk`` counts every file.
    """

    path: str
    quota: int | None
    rows: int
    shards: int
    committed: int
    stored: int
    gave_way: int
    empty: int
    levels: dict[str, int]
    splits: dict[str, int]
    refusals: dict[str, int]
    absences: dict[str, dict[str, int]]
    strata: tuple[StratumStatus, ...]
    bytes_on_disk: int

    def to_json(self) -> str:
        """The same as one JSON object."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def _quotas(path: Place) -> Counter[Stratum] | None:
    """Tiles owed per stratum: the primaries of the location table that the store follows."""
    file = planned_locations(path)
    try:
        table = pq.read_table(readable(file), columns=["biome", "year", "reserve"])
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise StoreError(f"{file} is damaged; restore it from the location table given to collect") from error
    return _count_strata(table.filter(pc.invert(table["reserve"])))


def _count_strata(table: pa.Table) -> Counter[Stratum]:
    return Counter(zip(table["biome"].to_pylist(), table["year"].to_pylist(), strict=True))


def _count(column: pa.ChunkedArray) -> Counter[str]:
    """How often each word occurs, empty ones and nulls left out."""
    return Counter(
        {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist() if entry["values"]}
    )


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def status(path: str | Place) -> StoreStatus:
    """How far the store at ``path`` is; raises StoreError where there is none or a row table is damaged."""
    layout = read_layout(path)
    shards = committed(path)
    quotas = _quotas(layout.path)
    totals: Counter[str] = Counter()
    levels, splits, refusals = Counter[str](), Counter[str](), Counter[str]()
    absences = {modality.name: Counter[str]() for modality in layout.modalities}
    stored, complete, gave_way = Counter[Stratum](), Counter[Stratum](), Counter[Stratum]()
    for table in row_tables(path, sorted(shards)):
        located = table.filter(pc.not_equal(table["location_id"], 0))
        is_stored = pc.equal(located["outcome"], STORED_OUTCOME)
        tiles, others = located.filter(is_stored), located.filter(pc.invert(is_stored))
        totals.update(stored=tiles.num_rows, gave_way=others.num_rows, empty=table.num_rows - located.num_rows)
        stored.update(_count_strata(tiles))
        complete.update(_count_strata(tiles.filter(pc.equal(tiles["status_sentinel2"], int(Status.COMPLETE)))))
        gave_way.update(_count_strata(others))
        levels.update(_count(tiles["level"]))
        splits.update(_count(tiles["split"]))
        refusals.update(_count(others["reason"]))
        for name, reasons in absences.items():
            reasons.update(_count(tiles[f"absent_{name}"]))
    strata = sorted(set(stored) | set(gave_way) | set(quotas or ()))
    return StoreStatus(
        path=str(layout.path),
        quota=None if quotas is None else quotas.total(),
        rows=layout.rows,
        shards=layout.shards,
        committed=len(shards),
        stored=totals["stored"],
        gave_way=totals["gave_way"],
        empty=totals["empty"],
        levels=_sorted(levels),
        splits=_sorted(splits),
        refusals=_sorted(refusals),
        absences={name: _sorted(reasons) for name, reasons in absences.items() if reasons},
        strata=tuple(
            StratumStatus(
                biome=stratum[0],
                year=stratum[1],
                quota=None if quotas is None else quotas[stratum],
                stored=stored[stratum],
                complete=complete[stratum],
                gave_way=gave_way[stratum],
            )
            for stratum in strata
        ),
        bytes_on_disk=sum(size for _, size in files_below(layout.path)),
    )
