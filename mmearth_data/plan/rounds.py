"""The rounds of a plan on disk: which row of the store was given to which location.

    DIR/_plan/round-NN.parquet    the rows that round NN gave out, and to whom

Once written a round never changes, so each is read once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmearth_data.plan.acquisitions import encoded
from mmearth_data.plan.slots import IndexArray
from mmearth_data.store.files import readable
from mmearth_data.store.leases import LeaseLost
from mmearth_data.store.objects import Place, write_once

_PART = b"table"
"""Key of a round's metadata: which of the plan's tables it is for; the first where there is none."""
_NAME = re.compile(r"round-\d{2,}\.parquet")
_SCHEMA = pa.schema([("row", pa.int64()), ("shard", pa.int32()), ("location_id", pa.int64())])


@dataclass(frozen=True)
class Rounds:
    """The rounds in the folder ``_plan`` of a store, of which a plan with ``tables`` tables takes part in its own."""

    folder: Place
    tables: int

    def parts(self) -> list[int]:
        """Of every round that was planned, by whomever, which table it is for."""
        count = sum(_NAME.fullmatch(entry.name) is not None for entry in self.folder.iterdir())
        return [int(self.read(number).attrs["part"]) for number in range(count)]

    def count(self) -> int:
        """Rounds planned so far, those for longer tables than the plan knows left out."""
        return sum(part < self.tables for part in self.parts())

    def read(self, number: int) -> pd.DataFrame:
        """Columns row, shard and location_id (0 where the row is vacant); ``attrs["part"]`` is the table's number."""
        if number not in self._read:
            table = pq.read_table(readable(self._file(number)))
            found = table.cast(_SCHEMA).to_pandas()
            found.attrs["part"] = int((table.schema.metadata or {}).get(_PART, b"0"))
            self._read[number] = found
        return self._read[number]

    def given(self) -> pd.DataFrame:
        """The rows of every round planned so far."""
        empty: pd.DataFrame = _SCHEMA.empty_table().to_pandas()
        return pd.concat([empty, *(self.read(number) for number in range(self.count()))], ignore_index=True)

    def of_shard(self, shard: int) -> int | None:
        """The round that gave out a shard; None where no round did."""
        known = [number for number in sorted(self._read) if self._read[number].attrs["part"] < self.tables]
        for number in (*known, *(number for number in range(self.count()) if number not in known)):
            if (self.read(number)["shard"] == shard).any():
                return number
        return None

    def tiles(self, shards: Iterable[int]) -> int:
        """Number of locations that these shards were given to."""
        wanted = set(shards)
        return sum(self._located(number)[shard] for number in range(self.count()) for shard in wanted)

    def write(self, number: int, part: int, location_ids: IndexArray, first_row: int, rows_per_shard: int) -> None:
        """Plan round ``number`` for a table: its rows from ``first_row`` on go to these locations (0: to nobody).

        Raises LeaseLost where another process has planned the round meanwhile, which object storage tells.
        """
        rows = first_row + np.arange(len(location_ids))
        metadata = {_PART: str(part).encode()} if part else None
        table = pa.table([rows, rows // rows_per_shard, location_ids], schema=_SCHEMA.with_metadata(metadata))
        file = self._file(number)
        if not write_once(file, encoded(table)):
            raise LeaseLost(f"{file} was planned by another process meanwhile; run again")

    def _file(self, number: int) -> Place:
        return self.folder / f"round-{number:02d}.parquet"

    def _located(self, number: int) -> Counter[int]:
        """Of each shard of a round, to how many locations it was given."""
        if number not in self._tiles:
            rows = self.read(number)
            self._tiles[number] = Counter(rows.loc[rows["location_id"] != 0, "shard"].tolist())
        return self._tiles[number]

    @cached_property
    def _read(self) -> dict[int, pd.DataFrame]:
        return {}

    @cached_property
    def _tiles(self) -> dict[int, Counter[int]]:
        return {}
