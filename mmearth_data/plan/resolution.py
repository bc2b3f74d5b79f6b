"""The batches that a plan's locations are resolved in, and what was saved of them.

    DIR/_plan/resolved/NNNNN.parquet    acquisitions of batch NNNNN, in the plan's order (parts.py)

A file counts only if it holds the very locations of its batch: one that another size of batches was saved in, or that
was copied from another plan, is as good as none, and the batch is resolved anew. A location for which no answer could
be used is saved as one without an answer: rounds are planned as if it had products, the next run asks for it again,
and its shard waits until it is resolved or a person goes past it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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

_NOTHING, _NO_ANSWER = 0, -1
"""What the answer for a location can come to, beside acquisitions (1): the archive has nothing; none could be used."""


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

    def unsaved(self) -> tuple[int, ...]:
        """Batches that are not saved, not intact, or saved of other locations, which is said."""
        return tuple(number for number, answers in enumerate(self._all_answers()) if answers is None)

    def lacking(self) -> tuple[int, ...]:
        """The same, and batches that are saved with locations that have no answer."""
        every = enumerate(self._all_answers())
        return tuple(number for number, answers in every if answers is None or _NO_ANSWER in answers)

    def is_saved(self, number: int) -> bool:
        """Whether a batch is saved, whole and of its own locations."""
        return self._answers(number) is not None

    def unanswered(self, number: int) -> tuple[Location, ...]:
        """The locations of one batch that have no answer yet: all of them where it is not saved."""
        batch, answers = self.batch(number), self._answers(number)
        if answers is None:
            return batch
        return tuple(place for place, answer in zip(batch, answers, strict=True) if answer == _NO_ANSWER)

    def save(self, number: int, resolved: Sequence[Resolved]) -> None:
        """Save what was resolved for one batch, in the order of its locations; those left out have no answer yet."""
        ids, given = [place.location_id for place in self.batch(number)], [entry.location_id for entry in resolved]
        if given != [location_id for location_id in ids if location_id in set(given)]:
            raise PlanError(f"what was resolved is not batch {number} of the plan; resolve Plan.batch({number})")
        acquisitions.write(ids, resolved, self._file(number))

    @property
    def available(self) -> BoolArray:
        """Which locations have an acquisition or no answer yet; raises PlanError while a batch is not saved."""
        known = [answers for answers in self._all_answers() if answers is not None]
        if missing := self.batches - len(known):
            raise PlanError(f"{missing} batches of locations are unresolved; resolve them before planning a round")
        found: BoolArray = np.concatenate(known) != _NOTHING
        return found

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
                file = self._file(number)
                raise PlanError(f"{file} is gone or damaged; remove it, then run again, and it is resolved anew")
            return table.take(rows - starts[number])

        return each(self.folder, read, zip(numbers.tolist(), np.split(places, first[1:]), strict=True))

    def _file(self, number: int) -> Place:
        return self.folder / f"{number:05d}.parquet"

    @cached_property
    def _ranges(self) -> tuple[range, ...]:
        """Of each batch, the places of its locations in the plan's order."""
        return self.parts.batch_ranges(BATCH_LOCATIONS)

    def _all_answers(self) -> list[NDArray[np.int8] | None]:
        foreign = len(self._foreign)
        found = list(each(self.folder, self._answers, range(self.batches)))
        if len(self._foreign) > foreign:
            logger.warning(
                "%d of the batches in %s hold other locations than the plan's (an older mmearth made them larger or "
                "smaller); they are resolved anew",
                len(self._foreign),
                self.folder,
            )
        return found

    def _answers(self, number: int) -> NDArray[np.int8] | None:
        """Of each location of a batch, what the answer came to; None where it is not saved, whole and its own.

        Once every location has an answer the file never changes, so it is not read again.
        """
        if number in self._known:
            return self._known[number]
        found = acquisitions.read_saved(self._file(number), ["location_id", "available"])
        if found is None:
            return None
        span = self._ranges[number]
        if not np.array_equal(found["location_id"].to_numpy(), self.parts.ids[span.start : span.stop]):
            self._foreign.add(number)
            return None
        answers: NDArray[np.int8] = pc.fill_null(found["available"].cast(pa.int8()), _NO_ANSWER).to_numpy()
        if not found["available"].null_count:
            self._known[number] = answers
        return answers

    @cached_property
    def _known(self) -> dict[int, NDArray[np.int8]]:
        """What is known of batches that are saved with an answer for every location."""
        return {}

    @cached_property
    def _foreign(self) -> set[int]:
        """Batches whose files were seen to hold other locations."""
        return set()
