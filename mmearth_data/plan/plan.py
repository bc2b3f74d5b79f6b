"""The plan on disk: the adopted location table, what was resolved, and the rounds that give out the store's rows.

    DIR/_plan/plan.json               digest of the table, tile size, rows per shard: written last when adopting
    DIR/_plan/locations.parquet       the adopted table, byte for byte
    DIR/_plan/resolved/NNNNN.parquet  acquisitions of one batch of locations, in table order
    DIR/_plan/round-NN.parquet        the rows that round NN gave out, and to whom
    DIR/_plan/given-up.json           locations to go past (given_up.py)

Every file appears whole or not at all. A round is planned once the shards of all earlier rounds are committed, so its
table follows from the store's content alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmearth_data import grid
from mmearth_data.location import COLUMNS, read_locations
from mmearth_data.modalities import Modality, stored_with
from mmearth_data.plan import acquisitions
from mmearth_data.plan.given_up import give_up
from mmearth_data.plan.progress import Summary, stratum_summaries
from mmearth_data.plan.slots import MAX_SHARD_ROWS, VACANT, IndexArray, Strata, first_round, later_round, shard_rows
from mmearth_data.source import Acquisition, Location, Resolved
from mmearth_data.store import layout, shards
from mmearth_data.store.files import each, make_directory, readable, remove_left_overs, write_atomic
from mmearth_data.store.locking import exclusive
from mmearth_data.store.objects import Place, at

logger = logging.getLogger(__name__)

BATCH_LOCATIONS = 56
"""Locations resolved at once; batch n holds the table's rows 56·n to 56·n + 55."""
FORMAT = 1
_DIGEST = "location_table_sha256"
_ROUND = re.compile(r"round-\d\d\.parquet")
_ROUND_SCHEMA = pa.schema([("row", pa.int64()), ("shard", pa.int32()), ("location_id", pa.int64())])


class PlanError(ValueError):
    """The plan cannot be made or continued; the message says why and what to do."""


@dataclass(frozen=True)
class Slot:
    """A row of the store: the location's row of the table and its acquisitions, or None and none where it is vacant."""

    row: int
    location: dict[str, Any] | None
    acquisitions: tuple[Acquisition, ...]


@dataclass(frozen=True)
class ShardSpec:
    """Everything needed to collect one shard: its number, its round and its slots by row."""

    shard: int
    round: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Plan:
    """The plan of the store at ``store``; make one with ``prepare`` or ``open``."""

    store: Place
    table: gpd.GeoDataFrame
    rows_per_shard: int
    seed: int

    @classmethod
    def prepare(
        cls,
        store: str | Place,
        locations: str | Place,
        *,
        max_shard_rows: int = MAX_SHARD_ROWS,
        downstream: Sequence[str] = (),
    ) -> Plan:
        """Adopt the location table at ``locations`` for the store, or continue the plan that already adopted it.

        A new store also holds the modalities called ``downstream``; a store that is there keeps those it was made
        with. Raises LocationTableError for a bad table, UnknownModalityError for a name that is no such modality,
        PlanError where the store follows another table or lacks a modality asked for, and StoreError where it cannot be
        made.
        """
        asked = stored_with(downstream)
        path, source = at(store), at(locations)
        table = read_locations(source)
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        folder = path / "_plan"
        make_directory(folder / "resolved")
        with exclusive(folder / "lock"):
            for swept in (folder, folder / "resolved"):
                remove_left_overs(swept)
            if not (folder / "plan.json").is_file():
                cls._adopt(path, table, content, digest, max_shard_rows, asked)
        if _settings(folder)["table_sha256"] != digest:
            raise PlanError(
                f"{path} follows another location table; continue with {folder / 'locations.parquet'} "
                f"or collect {source} into a new --store"
            )
        held = layout.read_layout(path).modalities
        if lacking := [modality.name for modality in asked if modality not in held]:
            raise PlanError(
                f"{path} was made without {' and '.join(lacking)}, and a store keeps the modalities it was made with; "
                "collect into a new --store"
            )
        return cls.open(path)

    @classmethod
    def open(cls, store: str | Place) -> Plan:
        """The plan that a store already has; raises PlanError where it has none."""
        folder = at(store) / "_plan"
        settings = _settings(folder)
        return cls(
            store=at(store),
            table=read_locations(folder / "locations.parquet"),
            rows_per_shard=int(settings["shard_rows"]),
            seed=int(settings["table_sha256"][:8], 16),
        )

    @staticmethod
    def _adopt(
        path: Place, table: gpd.GeoDataFrame, content: bytes, digest: str, most: int, asked: tuple[Modality, ...]
    ) -> None:
        strata = len(table[["biome", "year"]].drop_duplicates())
        rows, pixels = shard_rows(strata, most), int(grid.decode(table["location_id"].to_numpy()[:1]).pixels[0])
        settings = {"format": FORMAT, "table_sha256": digest, "locations": len(table), "shard_rows": rows}
        made = (path / "zarr.json").is_file() and layout.read_layout(path).attrs.get(_DIGEST) == digest
        if not made:
            layout.create(path, tile_pixels=pixels, shard_rows=rows, attrs={_DIGEST: digest}, modalities=asked)
        write_atomic(path / "_plan" / "locations.parquet", content)
        write_atomic(path / "_plan" / "plan.json", json.dumps(settings, indent=1).encode())

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the store holds of each tile."""
        return layout.read_layout(self.store).modalities

    # -- resolving

    @property
    def batches(self) -> int:
        """Number of batches the table is resolved in."""
        return -(-len(self.table) // BATCH_LOCATIONS)

    def batch(self, number: int) -> tuple[Location, ...]:
        """The locations of one batch."""
        part = self.table.iloc[number * BATCH_LOCATIONS : (number + 1) * BATCH_LOCATIONS]
        return tuple(Location(int(i), int(y)) for i, y in zip(part["location_id"], part["year"], strict=True))

    def unresolved(self) -> tuple[int, ...]:
        """Batches that are not saved, or not intact."""
        numbers = range(self.batches)
        resolved = each(self.store, self.is_resolved, numbers)
        return tuple(number for number, there in zip(numbers, resolved, strict=True) if not there)

    def is_resolved(self, number: int) -> bool:
        """Whether a batch is saved, and intact."""
        return acquisitions.intact(self._batch_file(number), len(self.batch(number)))

    def save_resolved(self, number: int, resolved: Sequence[Resolved]) -> None:
        """Save what was resolved for one batch; it must be for the batch's locations, in their order."""
        if [entry.location_id for entry in resolved] != [place.location_id for place in self.batch(number)]:
            raise PlanError(f"what was resolved is not batch {number} of the plan; resolve Plan.batch({number})")
        acquisitions.write(resolved, self._batch_file(number))

    def _batch_file(self, number: int) -> Place:
        return self.store / "_plan" / "resolved" / f"{number:05d}.parquet"

    # -- rounds

    def rounds(self) -> int:
        """Rounds planned so far."""
        return sum(_ROUND.fullmatch(entry.name) is not None for entry in (self.store / "_plan").iterdir())

    def pending(self) -> tuple[int, ...]:
        """Shards that were given out and are not committed, in order."""
        planned = {int(shard) for number in range(self.rounds()) for shard in self._round(number)["shard"].unique()}
        return tuple(sorted(planned - shards.committed(self.store)))

    def next_round(self) -> tuple[int, ...] | None:
        """Plan the next round and return its shards; None where every stratum has its quota or has run dry.

        While shards of an earlier round are uncommitted those are returned, whoever planned them. Raises PlanError
        while a batch is unresolved.
        """
        with exclusive(self.store / "_plan" / "lock"):
            if waiting := self.pending():
                return waiting
            if missing := self.unresolved():
                raise PlanError(
                    f"{len(missing)} batches of locations are unresolved; resolve them before planning a round"
                )
            number = self.rounds()
            first_row = sum(len(self._round(earlier)) for earlier in range(number))
            picks = self._picks(number)
            if not len(picks):
                return None
            rows = first_row + np.arange(len(picks))
            columns = [rows, rows // self.rows_per_shard, np.where(picks == VACANT, 0, self._ids[picks])]
            table = pa.table(columns, schema=_ROUND_SCHEMA)
            layout.resize(self.store, first_row + len(picks))
            acquisitions.write_table(table, self._round_file(number))
        result = tuple(int(shard) for shard in np.unique(rows // self.rows_per_shard))
        logger.info("round %d: %d locations in %d shards", number, int((picks != VACANT).sum()), len(result))
        return result

    def tiles(self, shards: Iterable[int]) -> int:
        """Number of locations that these shards were given to."""
        given = self._given()
        return int((given["shard"].isin(set(shards)) & (given["location_id"] != 0)).sum())

    def give_up(self, location_ids: Iterable[int]) -> None:
        """Go past these locations of shards that are not committed; raises what ``plan.given_up`` says."""
        given = self._given()
        shard_of = dict(zip(given["location_id"].tolist(), given["shard"].tolist(), strict=True))
        shard_of.pop(0, None)
        give_up(self.store, location_ids, shard_of)

    def spec(self, shard: int) -> ShardSpec:
        """The slots of one shard, with their locations and acquisitions."""
        for number in range(self.rounds()):
            given = self._round(number)
            part = given[given["shard"] == shard]
            if len(part):
                slots = self._slots(part["row"].to_list(), part["location_id"].to_list())
                return ShardSpec(shard=shard, round=number, slots=slots)
        raise PlanError(f"shard {shard} was not given out; the plan has {self.rounds()} rounds")

    def summary(self) -> Summary:
        """How far the plan is, counted on committed shards."""
        missing, given, done = set(self.unresolved()), self._given(), shards.committed(self.store)
        stored, gave_way = self._outcomes()
        untried = np.zeros(len(self.table), dtype=np.bool_) if missing else self._available()
        untried &= ~np.isin(self._ids, given["location_id"])
        planned = int(given["shard"].nunique())
        return Summary(
            locations=len(self.table),
            resolved=sum(len(self.batch(n)) for n in range(self.batches) if n not in missing),
            rounds=self.rounds(),
            shards=planned,
            committed=len(done),
            strata=stratum_summaries(
                self._stratum_names,
                self._strata,
                stored,
                gave_way,
                untried=untried,
                settled=not missing and planned == len(done),
            ),
        )

    def _picks(self, number: int) -> IndexArray:
        available, rows = self._available(), self.rows_per_shard
        if number == 0:
            return first_round(self._strata, available, rows, self.seed)
        used = np.isin(self._ids, self._given()["location_id"])
        return later_round(self._strata, available, used, self._outcomes()[0], rows, self.seed, number)

    def _round_file(self, number: int) -> Place:
        return self.store / "_plan" / f"round-{number:02d}.parquet"

    def _round(self, number: int) -> pd.DataFrame:
        if number not in self._rounds_read:
            table = pq.read_table(readable(self._round_file(number)), schema=_ROUND_SCHEMA)
            self._rounds_read[number] = table.to_pandas()
        return self._rounds_read[number]

    def _given(self) -> pd.DataFrame:
        """The rows of every round planned so far."""
        empty: pd.DataFrame = _ROUND_SCHEMA.empty_table().to_pandas()
        return pd.concat([empty, *(self._round(number) for number in range(self.rounds()))], ignore_index=True)

    def _outcomes(self) -> tuple[IndexArray, IndexArray]:
        """Rows stored, and locations that gave way, per stratum, over the committed shards."""
        counts = np.zeros((2, len(self._stratum_names)), dtype=np.int64)
        for table in shards.row_tables(self.store, sorted(shards.committed(self.store))):
            rows = table.select(["location_id", "outcome"]).to_pandas()
            rows = rows[rows["location_id"] != 0]
            stratum = self._strata.stratum[self._index_of(rows["location_id"].to_numpy(np.int64))]
            np.add.at(counts, ((rows["outcome"] != "stored").to_numpy(np.int64), stratum), 1)
        return counts[0], counts[1]

    # -- lookups

    @cached_property
    def _rounds_read(self) -> dict[int, pd.DataFrame]:
        """Tables of rounds by number: once written they never change."""
        return {}

    @cached_property
    def _ids(self) -> IndexArray:
        ids: IndexArray = self.table["location_id"].to_numpy(np.int64)
        return ids

    @cached_property
    def _order(self) -> IndexArray:
        return np.argsort(self._ids, kind="stable")

    @cached_property
    def _stratum_names(self) -> list[tuple[str, int]]:
        return sorted({(str(b), int(y)) for b, y in zip(self.table["biome"], self.table["year"], strict=True)})

    @cached_property
    def _strata(self) -> Strata:
        number = {name: index for index, name in enumerate(self._stratum_names)}
        names = zip(self.table["biome"], self.table["year"], strict=True)
        stratum = np.array([number[str(biome), int(year)] for biome, year in names], dtype=np.int64)
        primary = stratum[~self.table["reserve"].to_numpy(np.bool_)]
        quota = np.bincount(primary, minlength=len(number)).astype(np.int64)
        return Strata(stratum=stratum, rank=self.table["rank"].to_numpy(np.int64), quota=quota)

    def _index_of(self, location_ids: IndexArray) -> IndexArray:
        return self._order[np.searchsorted(self._ids, location_ids, sorter=self._order)]

    def _available(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        def part(number: int) -> pa.Table:
            return pq.read_table(readable(self._batch_file(number)), columns=["available"])

        parts = list(each(self.store, part, range(self.batches)))
        return np.asarray(pa.concat_tables(parts)["available"].to_numpy(), dtype=np.bool_)

    def _slots(self, rows: list[int], location_ids: list[int]) -> tuple[Slot, ...]:
        filled = np.array([i for i in location_ids if i], dtype=np.int64)
        index = self._index_of(filled)
        records = self.table.iloc[index][list(COLUMNS)].to_dict("records")
        places = {int(record["location_id"]): record for record in records}
        found: dict[int, tuple[Acquisition, ...]] = {}
        for number in np.unique(index // BATCH_LOCATIONS):
            members = {int(i) for i in filled[index // BATCH_LOCATIONS == number]}
            found |= acquisitions.read(self._batch_file(int(number)), members)
        return tuple(
            Slot(row, places.get(location_id), found.get(location_id, ()))
            for row, location_id in zip(rows, location_ids, strict=True)
        )


def _settings(folder: Place) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((folder / "plan.json").read_bytes())
    except FileNotFoundError:
        raise PlanError(f"{folder.parent} has no plan; make one with mmearth collect --locations FILE") from None
    if settings.get("format") != FORMAT:
        raise PlanError(f"{folder.parent} has a plan of format {settings.get('format')}, not {FORMAT}; collect anew")
    return settings
