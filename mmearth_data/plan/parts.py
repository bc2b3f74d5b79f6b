"""A plan's locations: those of the first table it adopted in their order, then what each longer table adds.

What a table says of a location never changes once it is adopted, but for one thing: a longer table makes primaries of
the shorter one's reserves. So each table keeps its own view of who is a reserve, and the rounds that were begun
for it give the same rows whenever the plan is extended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import geopandas as gpd
import numpy as np
import pandas as pd

from mmearth_data.adopted import PlanError
from mmearth_data.location import COLUMNS
from mmearth_data.plan.slots import BoolArray, IndexArray, Strata

_MAY_CHANGE = "reserve"
"""What a longer table may say otherwise of a location."""


@dataclass(frozen=True)
class Part:
    """What one adopted table asks for: of the plan's first ``end`` locations, strata with quotas.

    ``reserve`` is this table's column, in the plan's order, shape (end,); ``seed`` that of its random orders.
    """

    end: int
    reserve: BoolArray
    seed: int
    names: tuple[tuple[str, int], ...]
    strata: Strata

    @classmethod
    def of(cls, table: gpd.GeoDataFrame, seed: int) -> Part:
        """The part of ``table``, whose rows are in the plan's order."""
        labels = list(zip(table["biome"].astype(str), table["year"].astype(int), strict=True))
        names = tuple(sorted(set(labels)))
        number = {name: index for index, name in enumerate(names)}
        stratum = np.array([number[label] for label in labels], dtype=np.int64)
        reserve = table["reserve"].to_numpy(np.bool_)
        quota = np.bincount(stratum[~reserve], minlength=len(names)).astype(np.int64)
        strata = Strata(stratum=stratum, rank=table["rank"].to_numpy(np.int64), quota=quota)
        return cls(end=len(table), reserve=reserve, seed=seed, names=names, strata=strata)

    def short_of(self, stored: IndexArray) -> Strata:
        """The strata with what they still need as their quotas."""
        return replace(self.strata, quota=np.maximum(self.strata.quota - stored, 0))


@dataclass(frozen=True)
class Parts:
    """All parts of a plan; ``table`` has every location, in the plan's order, as the last table describes it."""

    table: gpd.GeoDataFrame
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, tables: Sequence[gpd.GeoDataFrame], seeds: Sequence[int]) -> Parts:
        """The parts of tables each of which contains the one before."""
        table, parts = tables[0], [Part.of(tables[0], seeds[0])]
        for longer, seed in zip(tables[1:], seeds[1:], strict=True):
            table = in_order(table, longer)
            parts.append(Part.of(table, seed))
        return cls(table, tuple(parts))

    @cached_property
    def ids(self) -> IndexArray:
        """The location ids in the plan's order."""
        ids: IndexArray = self.table["location_id"].to_numpy(np.int64)
        return ids

    @cached_property
    def _sorted(self) -> IndexArray:
        return np.argsort(self.ids, kind="stable")

    def index_of(self, location_ids: IndexArray) -> IndexArray:
        """Where in the plan's order these locations are; every one must be."""
        return self._sorted[np.searchsorted(self.ids, location_ids, sorter=self._sorted)]

    def find(self, location_ids: IndexArray) -> IndexArray:
        """Where in the plan's order these locations are; its length for those that it does not have.

        A shard's ids are looked up without going through the ids of the whole plan, of which there may be millions.
        """
        place = np.searchsorted(self.ids, location_ids, sorter=self._sorted)
        index = self._sorted[np.minimum(place, len(self.ids) - 1)]
        return np.where(self.ids[index] == location_ids, index, len(self.ids))

    def batch_ranges(self, most: int) -> tuple[range, ...]:
        """The locations that are resolved together, at most that many: no batch has those of two tables."""
        starts = (0, *(part.end for part in self.parts[:-1]))
        return tuple(
            range(first, min(first + most, part.end))
            for start, part in zip(starts, self.parts, strict=True)
            for first in range(start, part.end, most)
        )


def in_order(table: gpd.GeoDataFrame, longer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The rows of ``longer`` with those of ``table`` first, in its order."""
    ids, known = longer["location_id"].to_numpy(np.int64), table["location_id"].to_numpy(np.int64)
    order = np.argsort(ids, kind="stable")
    first = order[np.searchsorted(ids, known, sorter=order)]
    rest = np.flatnonzero(~np.isin(ids, known))
    return longer.iloc[np.concatenate([first, rest])].reset_index(drop=True)


def check_contains(longer: gpd.GeoDataFrame, table: gpd.GeoDataFrame, remedy: str) -> None:
    """Raise PlanError, one line that ends with ``remedy``, unless ``longer`` has all of ``table`` unchanged.

    That is its locations, each with the same year, rank, split and whatever else a location table says, but for
    being a reserve.
    """
    missing = ~np.isin(table["location_id"], longer["location_id"])
    if missing.any():
        lost = int(table["location_id"].to_numpy()[np.argmax(missing)])
        raise PlanError(f"it lacks {int(missing.sum())} of its {len(table)} locations, {lost} first; {remedy}")
    there = in_order(table, longer).iloc[: len(table)]
    for column in COLUMNS:
        if column == _MAY_CHANGE:
            continue
        differs = (there[column].to_numpy() != table[column].to_numpy()) & ~(
            pd.isna(there[column].to_numpy()) & pd.isna(table[column].to_numpy())
        )
        if differs.any():
            at = int(np.argmax(differs))
            lost, said, follows = (
                frame[name].iloc[at] for frame, name in ((table, "location_id"), (there, column), (table, column))
            )
            raise PlanError(f"its location {lost} has {column} {said}, where the store follows {follows}; {remedy}")
