"""The batches that a plan's locations are resolved in, and what was saved of them.

    DIR/_plan/resolved/NNNNN.parquet    acquisitions of batch NNNNN, in the plan's order (parts.py)

A file counts only if it holds the very locations of its batch: one that another size of batches was saved in, or that
was copied from another plan, is as good as none, and the batch is resolved anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from mmearth_data.adopted import PlanError
from mmearth_data.plan import acquisitions
from mmearth_data.plan.parts import Parts
from mmearth_data.plan.slots import BoolArray, IndexArray
from mmearth_data.source import Location, Resolved
from mmearth_data.store.files import each
from mmearth_data.store.objects import Place

logger = logging.getLogger(__name__)

BATCH_LOCATIONS = 100
"""Locations resolved at once at most: batch n holds the plan's n-th 100, and none of two tables."""


@dataclass(frozen=True)
class Resolution:
    """What was resolved of the locations of ``parts``, in files of ``folder``."""

    folder: Place
    parts: Parts

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self._ranges)

    def size(self, number: int) -> int:
        """Number of locations of one batch."""
        return len(self._ranges[number])

    def batch(self, number: int) -> tuple[Location, ...]:
        """The locations of one batch."""
        part = self.parts.table.iloc[self._ranges[number]]
        return tuple(Location(int(i), int(y)) for i, y in zip(part["location_id"], part["year"], strict=True))

    def missing(self) -> tuple[int, ...]:
        """Batches that are not saved, not intact, or saved of other locations, which is said."""
        numbers, foreign = range(self.batches), len(self._foreign)
        saved = list(each(self.folder, self.is_saved, numbers))
        if len(self._foreign) > foreign:
            logger.warning(
                "%d of the batches in %s hold other locations than the plan's (an older mmearth made them larger or "
                "smaller); they are resolved anew",
                len(self._foreign),
                self.folder,
            )
        return tuple(number for number, there in zip(numbers, saved, strict=True) if not there)

    def is_saved(self, number: int) -> bool:
        """Whether a batch is saved, intact and of its own locations; one that was seen to be is not read again."""
        if number not in self._available:
            found = acquisitions.read_saved(self._file(number), ["location_id", "available"])
            if found is None:
                return False
            span = self._ranges[number]
            if not np.array_equal(found["location_id"].to_numpy(), self.parts.ids[span.start : span.stop]):
                self._foreign.add(number)
                return False
            self._available[number] = found["available"].to_numpy()
        return True

    def save(self, number: int, resolved: Sequence[Resolved]) -> None:
        """Save what was resolved for one batch; it must be for the batch's locations, in their order."""
        if [entry.location_id for entry in resolved] != [place.location_id for place in self.batch(number)]:
            raise PlanError(f"what was resolved is not batch {number} of the plan; resolve Plan.batch({number})")
        acquisitions.write(resolved, self._file(number))

    @property
    def available(self) -> BoolArray:
        """Which locations have an acquisition; raises PlanError while a batch is missing."""
        if missing := self.missing():
            raise PlanError(f"{len(missing)} batches of locations are unresolved; resolve them before planning a round")
        return np.concatenate([self._available[number] for number in range(self.batches)])

    def rows_of(self, index: IndexArray) -> Iterator[pa.Table]:
        """Rows of acquisitions.SCHEMA for the locations at these places of the plan's order, one table per batch.

        Raises PlanError where a batch is gone or damaged.
        """
        places, starts = np.sort(index), np.array([span.start for span in self._ranges])
        batch = np.searchsorted(starts, places, side="right") - 1
        numbers, first = np.unique(batch, return_index=True)

        def read(of_batch: tuple[int, IndexArray]) -> pa.Table:
            number, rows = of_batch
            table = acquisitions.read_saved(self._file(number))
            if table is None or len(table) != self.size(number):
                raise PlanError(f"{self._file(number)} is gone or damaged; run again, and it is resolved anew")
            return table.take(rows - starts[number])

        return each(self.folder, read, zip(numbers.tolist(), np.split(places, first[1:]), strict=True))

    def _file(self, number: int) -> Place:
        return self.folder / f"{number:05d}.parquet"

    @cached_property
    def _ranges(self) -> tuple[range, ...]:
        """Of each batch, the places of its locations in the plan's order."""
        return self.parts.batch_ranges(BATCH_LOCATIONS)

    @cached_property
    def _available(self) -> dict[int, BoolArray]:
        """Of batches that were seen saved, which locations have an acquisition: once written, that never changes."""
        return {}

    @cached_property
    def _foreign(self) -> set[int]:
        """Batches whose files were seen to hold other locations."""
        return set()
