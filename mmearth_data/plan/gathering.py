"""What each shard is to fetch, gathered from the batches into one file per shard.

    DIR/_plan/shards/NNNNNN.parquet    acquisitions of the shard's locations, in the order of its rows

The locations of a shard are a random draw of the plan, so they lie in as many batches as it has rows. Whoever needs a
shard that has no file yet goes through the batches once for the next SHARDS_AT_ONCE shards of its round together. The
files are copies: what is missing or damaged is gathered again. A shard with a location without an answer gets none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from mmearth_data.plan import acquisitions
from mmearth_data.plan.resolution import Resolution
from mmearth_data.plan.slots import IndexArray
from mmearth_data.source import Acquisition
from mmearth_data.store.locking import exclusive
from mmearth_data.store.objects import Place

SHARDS_AT_ONCE = 256
"""Shards gathered in one pass, for the moment of which each takes some 2 MB (224 rows of eight products each). Going
through the batches takes as long however many there are: of 1.2 million locations 14,400 batches, 21 times over."""


@dataclass(frozen=True)
class Gathered:
    """The files of ``folder``, made from what ``resolution`` has saved."""

    folder: Place
    resolution: Resolution

    def read(self, shard: int, given: pd.DataFrame) -> dict[int, tuple[Acquisition, ...] | None]:
        """The acquisitions of each location of a shard, whose round has the rows ``given`` (rounds.py).

        None for a location without an answer.
        """
        wanted = _located(given, shard)
        table = self._read(shard, wanted)
        if table is None:
            with exclusive(self.folder / "lock"):
                table = self._read(shard, wanted)  # another process may have been faster
                if table is None:
                    table = self._gather(shard, given)
        return acquisitions.by_location(table)

    def _read(self, shard: int, wanted: IndexArray) -> pa.Table | None:
        table = acquisitions.read_saved(self._file(shard))
        if table is None or not np.array_equal(table["location_id"].to_numpy(), wanted):
            return None
        return table

    def _gather(self, shard: int, given: pd.DataFrame) -> pa.Table:
        """Write the files of ``shard`` and of those after it that have none; returns that of ``shard``."""
        there = {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()
        later = [int(other) for other in np.unique(given["shard"]) if other > shard]
        without = [other for other in later if self._file(other).name not in there]
        wanted = {other: _located(given, other) for other in (shard, *without[: SHARDS_AT_ONCE - 1])}
        index = self.resolution.parts.index_of(np.concatenate(list(wanted.values())))
        found = pa.concat_tables([acquisitions.SCHEMA.empty_table(), *self.resolution.rows_of(index)])
        found = found.combine_chunks()  # else each take below puts all of them together anew
        ids = found["location_id"].to_numpy()
        order = np.argsort(ids)
        tables = {}
        for other, location_ids in wanted.items():
            tables[other] = found.take(order[np.searchsorted(ids, location_ids, sorter=order)])
            if not tables[other]["available"].null_count:
                acquisitions.write_table(tables[other], self._file(other))
        return tables[shard]

    def _file(self, shard: int) -> Place:
        return self.folder / f"{shard:06d}.parquet"


def _located(given: pd.DataFrame, shard: int) -> IndexArray:
    """The locations of a shard, in the order of its rows."""
    ids: IndexArray = given.loc[(given["shard"] == shard) & (given["location_id"] != 0), "location_id"].to_numpy(
        np.int64
    )
    return ids
