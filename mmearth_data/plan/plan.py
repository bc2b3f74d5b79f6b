"""The plan on disk: the adopted location tables, what was resolved, and the rounds that give out the store's rows.

    DIR/_plan/plan.json               the adopted tables and the rows per shard: written last when adopting one
    DIR/_plan/locations.parquet       the first adopted table, byte for byte; locations-01.parquet … longer ones
    DIR/_plan/resolved/NNNNN.parquet  acquisitions of one batch of locations (resolution.py)
    DIR/_plan/round-NN.parquet        the rows that round NN gave out, and to whom (rounds.py)
    DIR/_plan/shards/NNNNNN.parquet   acquisitions of one shard's locations (gathering.py)
    DIR/_plan/given-up.json           locations to go past (given_up.py)
    DIR/_plan/account/                what it has cost (mmearth_data/cost/account.py)

Every file appears whole or not at all. A round is planned once the shards of all earlier rounds are committed, and
what a table asks for once all that shorter ones ask for is done, so its rows follow from the store's content alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from mmearth_data import grid
from mmearth_data.adopted import AdoptedTables, PlanError, read_adopted, write_adopted
from mmearth_data.location import COLUMNS, read_locations
from mmearth_data.modalities import Modality, stored_with
from mmearth_data.plan.gathering import Gathered
from mmearth_data.plan.given_up import give_up, given_up
from mmearth_data.plan.outcomes import Outcomes
from mmearth_data.plan.parts import Parts, check_contains
from mmearth_data.plan.progress import Summary, stratum_summaries
from mmearth_data.plan.resolution import Resolution
from mmearth_data.plan.rounds import Rounds
from mmearth_data.plan.slots import MAX_SHARD_ROWS, VACANT, IndexArray, first_round, later_round, shard_rows
from mmearth_data.source import Acquisition, Location, Resolved
from mmearth_data.store import layout, shards
from mmearth_data.store.files import make_directory, remove_left_overs, write_atomic
from mmearth_data.store.leases import LeaseLost
from mmearth_data.store.locking import exclusive
from mmearth_data.store.objects import Place, at

logger = logging.getLogger(__name__)

_DIGEST = "location_table_sha256"


@dataclass(frozen=True)
class Slot:
    """A row of the store: the location's row of the table and its acquisitions, or None and none where it is vacant.

    ``answered`` is false where no answer for the location could be used when it was resolved.
    """

    row: int
    location: dict[str, Any] | None
    acquisitions: tuple[Acquisition, ...]
    answered: bool = True


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
    parts: Parts
    rows_per_shard: int

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

        A table that contains the one that the store follows extends the plan: what the store has stays where it is,
        and shards are appended. A shorter table that it followed before asks for no more than it did. A new store also
        holds the modalities called ``downstream``; a store that is there keeps those it was made with. Raises
        LocationTableError for a bad table, UnknownModalityError for a name that is no such modality, PlanError where
        the store follows another table or lacks a modality asked for, and StoreError where it cannot be made.
        """
        asked = stored_with(downstream)
        path, source = at(store), at(locations)
        table = read_locations(source)
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        folder = path / "_plan"
        make_directory(folder / "resolved")
        with exclusive(folder / "lock") as renew:
            for swept in (folder, folder / "resolved", folder / "shards", folder / "account"):
                remove_left_overs(swept)
            if not (folder / "plan.json").is_file():
                cls._adopt(path, table, content, digest, max_shard_rows, asked, renew)
            elif digest not in (known.sha256 for known in read_adopted(folder).tables):
                cls._extend(path, table, content, digest, source, renew)
        held = layout.read_layout(path).modalities
        if lacking := [modality.name for modality in asked if modality not in held]:
            raise PlanError(
                f"{path} was made without {' and '.join(lacking)}, and a store keeps the modalities it was made with; "
                "collect into a new --store"
            )
        return cls.open(path, digest)

    @classmethod
    def open(cls, store: str | Place, sha256: str | None = None) -> Plan:
        """The plan that a store already has, as far as the table of that digest asks; raises PlanError."""
        folder = at(store) / "_plan"
        adopted = read_adopted(folder)
        digests = [table.sha256 for table in adopted.tables]
        followed = adopted.tables[: len(digests) if sha256 is None else digests.index(sha256) + 1]
        tables = [read_locations(folder / table.file) for table in followed]
        parts = Parts.of(tables, [table.seed for table in followed])
        return cls(store=at(store), parts=parts, rows_per_shard=adopted.shard_rows)

    def is_whole(self) -> bool:
        """Whether the plan has every table that the store follows by now."""
        return len(self.parts.parts) == len(read_adopted(self.store / "_plan").tables)

    @staticmethod
    def _adopt(
        path: Place,
        table: gpd.GeoDataFrame,
        content: bytes,
        digest: str,
        most: int,
        asked: tuple[Modality, ...],
        renew: Callable[[], None],
    ) -> None:
        strata = len(table[["biome", "year"]].drop_duplicates())
        rows, pixels = shard_rows(strata, most), int(grid.decode(table["location_id"].to_numpy()[:1]).pixels[0])
        made = (path / "zarr.json").is_file() and layout.read_layout(path).attrs.get(_DIGEST) == digest
        if not made:
            renew()
            layout.create(path, tile_pixels=pixels, shard_rows=rows, attrs={_DIGEST: digest}, modalities=asked)
        _keep(path / "_plan", AdoptedTables(rows, ()).with_table(digest, len(table)), content, renew)

    @classmethod
    def _extend(
        cls,
        path: Place,
        table: gpd.GeoDataFrame,
        content: bytes,
        digest: str,
        source: Place,
        renew: Callable[[], None],
    ) -> None:
        folder, follows = path / "_plan", cls.open(path)
        remedy = (
            f"continue with {folder / read_adopted(folder).tables[-1].file}, extend it by a table with the same seed, "
            f"layers and options, or collect {source} into a new --store"
        )
        try:
            check_contains(table, follows.table, remedy)
        except PlanError as error:
            raise PlanError(f"{source} does not extend the location table of {path}: {error}") from None
        _keep(folder, read_adopted(folder).with_table(digest, len(table)), content, renew)
        logger.info("%s follows %d locations now, %d before", path, len(table), len(follows.table))

    @property
    def table(self) -> gpd.GeoDataFrame:
        """Every location, in the order of the plan: of the first table it adopted, then what longer ones add."""
        return self.parts.table

    @property
    def seed(self) -> int:
        """What tells this plan from others, however often it is extended."""
        return self.parts.parts[0].seed

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the store holds of each tile."""
        return layout.read_layout(self.store).modalities

    # -- resolving

    @property
    def batches(self) -> int:
        """Number of batches the locations are resolved in."""
        return self._resolution.batches

    def batch(self, number: int) -> tuple[Location, ...]:
        """The locations of one batch."""
        return self._resolution.batch(number)

    def unresolved(self) -> tuple[int, ...]:
        """Batches with locations to ask for: not saved, not intact, saved of other locations, or without all answers.

        Locations that were given up are not asked for, unless their batch has nothing else to be saved with.
        """
        passed_over = given_up(self.store)
        return tuple(number for number in self._resolution.lacking() if self._unanswered(number, passed_over))

    def unanswered(self, number: int) -> tuple[Location, ...]:
        """The locations of one batch that are still to be asked for."""
        return self._unanswered(number, given_up(self.store))

    def _unanswered(self, number: int, passed_over: Set[int]) -> tuple[Location, ...]:
        every = self._resolution.unanswered(number)
        left = tuple(place for place in every if place.location_id not in passed_over)
        return left if left or self._resolution.is_saved(number) else every

    def save_resolved(self, number: int, resolved: Sequence[Resolved]) -> None:
        """Save what was resolved for one batch, in the order of its locations; those left out have no answer yet."""
        self._resolution.save(number, resolved)

    # -- rounds

    def rounds(self) -> int:
        """Rounds planned so far, those for longer tables than this plan knows left out."""
        return self._rounds.count()

    def pending(self) -> tuple[int, ...]:
        """Shards that were given out and are not committed, in order."""
        planned = {int(shard) for shard in self._rounds.given()["shard"].unique()}
        return tuple(sorted(planned - shards.committed(self.store)))

    def next_round(self) -> tuple[int, ...] | None:
        """Plan the next round and return its shards; None where every stratum has its quota or has run dry.

        While shards of an earlier round are uncommitted those are returned, whoever planned them. Raises PlanError
        while a batch is not saved. Locations without an answer are given rows as if they had products.
        """
        while True:
            try:
                with exclusive(self.store / "_plan" / "lock") as renew:
                    return self._plan_round(renew)
            except LeaseLost as lost:
                logger.warning("a round was not planned, which is tried again: %s", lost)

    def _plan_round(self, renew: Callable[[], None]) -> tuple[int, ...] | None:
        """``next_round`` under the plan's lock; ``renew`` is called before each write."""
        if waiting := self.pending():
            return waiting
        number = len(self._rounds.parts())
        first_row = sum(len(self._rounds.read(earlier)) for earlier in range(number))
        part, picks = self._picks(number)
        if not len(picks):
            return None
        renew()
        # A run that was killed here may have made room for more: what had no answer then may turn out to have nothing.
        layout.resize(self.store, max(first_row + len(picks), layout.read_layout(self.store).rows))
        location_ids = np.where(picks == VACANT, 0, self.parts.ids[picks])
        renew()
        self._rounds.write(number, part, location_ids, first_row, self.rows_per_shard)
        result = tuple(int(shard) for shard in self._rounds.read(number)["shard"].unique())
        logger.info("round %d: %d locations in %d shards", number, int((picks != VACANT).sum()), len(result))
        return result

    def tiles(self, shards: Iterable[int]) -> int:
        """Number of locations that these shards were given to."""
        return self._rounds.tiles(shards)

    def give_up(self, location_ids: Iterable[int]) -> None:
        """Go past these locations, which have no answer or are of shards that are not committed.

        Raises what ``plan.given_up`` says.
        """
        wanted = set(location_ids)
        if not wanted:
            return
        with exclusive(self.store / "_plan" / "lock"):
            given = self._rounds.given()
            shard_of: dict[int, int | None] = {
                place.location_id: None
                for number in set(self._resolution.lacking()) - set(self._resolution.unsaved())
                for place in self._resolution.unanswered(number)
            }
            shard_of |= dict(zip(given["location_id"].tolist(), given["shard"].tolist(), strict=True))
            shard_of.pop(0, None)
            give_up(self.store, wanted, shard_of)

    def spec(self, shard: int) -> ShardSpec:
        """The slots of one shard, with their locations and acquisitions."""
        number = self._rounds.of_shard(shard)
        if number is None:
            raise PlanError(f"shard {shard} was not given out; the plan has {self.rounds()} rounds")
        return ShardSpec(shard=shard, round=number, slots=self._slots(shard, self._rounds.read(number)))

    def summary(self) -> Summary:
        """How far the plan is, counted on committed shards."""
        unsaved, given = set(self._resolution.unsaved()), self._rounds.given()
        planned = set(given["shard"].tolist())
        done = planned & shards.committed(self.store)
        part = self.parts.parts[-1]
        stored, gave_way = self._outcomes.of(part)
        untried = np.zeros(len(self.table), dtype=np.bool_) if unsaved else self._resolution.available
        untried &= ~np.isin(self.parts.ids, given["location_id"])
        return Summary(
            locations=len(self.table),
            resolved=len(self.table) - sum(len(self._resolution.unanswered(n)) for n in self.unresolved()),
            rounds=self.rounds(),
            shards=len(planned),
            committed=len(done),
            strata=stratum_summaries(
                part.names,
                part.strata,
                stored,
                gave_way,
                untried=untried,
                settled=not unsaved and planned == done,
            ),
        )

    def _picks(self, number: int) -> tuple[int, IndexArray]:
        """Whom the next round, of that number, gives its rows to, and for which table; for none where all is done."""
        available = self._resolution.available
        used = np.isin(self.parts.ids, self._rounds.given()["location_id"])
        begun = max(self._rounds.parts(), default=-1)  # what shorter tables asked for was done before
        for index, part in list(enumerate(self.parts.parts))[max(begun, 0) :]:
            free, given, stored = available[: part.end], used[: part.end], self._outcomes.of(part)[0]
            if index == begun:
                picks = later_round(part.strata, free, given, stored, self.rows_per_shard, part.seed, number)
            else:
                picks = first_round(part.short_of(stored), free & ~given, self.rows_per_shard, part.seed)
            if len(picks):
                return index, picks
        return 0, np.empty(0, dtype=np.int64)

    def _slots(self, shard: int, given: pd.DataFrame) -> tuple[Slot, ...]:
        """The slots of a shard, of whose round ``given`` are the rows."""
        part, rows = self.parts.parts[given.attrs["part"]], given[given["shard"] == shard]
        location_ids = rows["location_id"].to_numpy(np.int64)
        index = self.parts.index_of(location_ids[location_ids != 0])
        described = self.table.iloc[index][list(COLUMNS)].assign(reserve=part.reserve[index])
        places = {int(record["location_id"]): record for record in described.to_dict("records")}
        found = self._gathered.read(shard, given)
        return tuple(
            Slot(row, places[location_id], found[location_id] or (), answered=found[location_id] is not None)
            if location_id
            else Slot(row, None, ())
            for row, location_id in zip(rows["row"].tolist(), location_ids.tolist(), strict=True)
        )

    @cached_property
    def _gathered(self) -> Gathered:
        return Gathered(self.store / "_plan" / "shards", self._resolution)

    @cached_property
    def _resolution(self) -> Resolution:
        return Resolution(self.store / "_plan" / "resolved", self.parts)

    @cached_property
    def _rounds(self) -> Rounds:
        return Rounds(self.store / "_plan", len(self.parts.parts))

    @cached_property
    def _outcomes(self) -> Outcomes:
        return Outcomes(self.store, self.parts)


def _keep(folder: Place, adopted: AdoptedTables, content: bytes, renew: Callable[[], None]) -> None:
    """Adopt the last of these tables: its bytes first, then the list that names it."""
    renew()
    write_atomic(folder / adopted.tables[-1].file, content)
    renew()
    write_adopted(folder, adopted)
