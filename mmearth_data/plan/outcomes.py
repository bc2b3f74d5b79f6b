"""What committed shards say of their locations: each row table is read once per process, for it never changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmearth_data.plan.parts import Part, Parts
from mmearth_data.plan.slots import BoolArray, IndexArray
from mmearth_data.store import shards
from mmearth_data.store.objects import Place
from mmearth_data.store.rows import is_stored


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a plan's locations in the store."""

    store: Place
    parts: Parts

    def of(self, part: Part) -> tuple[IndexArray, IndexArray]:
        """Of a table's locations in committed shards, those stored and those that gave way, per stratum.

        Raises StoreError where a row table is damaged.
        """
        counts = np.zeros((2, len(part.names)), dtype=np.int64)
        for ids, stored in self._committed():
            index = self.parts.find(ids)
            of_part = index < part.end
            stratum = part.strata.stratum[index[of_part]]
            np.add.at(counts, ((~stored[of_part]).astype(np.int64), stratum), 1)
        return counts[0], counts[1]

    def _committed(self) -> list[tuple[IndexArray, BoolArray]]:
        """Shard by shard, the ids of the locations in it and whether each is stored."""
        there = sorted(shards.committed(self.store))
        unread = [shard for shard in there if shard not in self._read]
        for shard, table in zip(unread, shards.row_tables(self.store, unread), strict=True):
            ids = table["location_id"].to_numpy()
            self._read[shard] = ids[ids != 0], is_stored(table)[ids != 0]
        return [self._read[shard] for shard in there]

    @cached_property
    def _read(self) -> dict[int, tuple[IndexArray, BoolArray]]:
        return {}
