"""Which row comes when: an epoch's batches and each process's share of them, from the seed and the epoch alone.

Rows lie in groups, the store's inner chunks, and decoding a group gives all of its rows. An epoch permutes the groups
and cuts that sequence into lanes of equal length. Each lane shuffles its rows within a window of groups, and every
batch takes an equal contiguous share of each lane. So a batch mixes rows of a whole window, while a process that
delivers its contiguous share of every batch reads its own lanes alone: no group is decoded by every process.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_train.masking import draw

LANES = 32
"""As many as processes can share a batch without decoding each other's groups (their number should divide it)."""

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Rows of one group that one process delivers while a window lasts, by batch: what is decoded at once.

    ``row`` counts within the group, ``batch`` within the epoch, ``place`` within the process's share of the batch.
    All are (n,), ascending by batch.
    """

    group: int
    row: Int
    batch: Int
    place: Int

    @property
    def first(self) -> int:
        """The first batch that needs the piece."""
        return int(self.batch[0])

    @property
    def last(self) -> int:
        """The last batch that needs the piece."""
        return int(self.batch[-1])

    def parts(self) -> list[tuple[int, slice]]:
        """The batches that need the piece, each with its slice of the rows."""
        starts = [*np.flatnonzero(np.diff(self.batch, prepend=-1)).tolist(), len(self.batch)]
        return [(int(self.batch[a]), slice(a, b)) for a, b in itertools.pairwise(starts)]


def batch_sizes(rows: int, batches: int) -> Int:
    """Rows of each of ``batches`` batches, which may be none; they differ by one at most, the larger ones first."""
    if not batches:
        return np.zeros(0, dtype=np.int64)
    return np.full(batches, rows // batches) + (np.arange(batches) < rows % batches)


def share_bounds(sizes: Int, parts: int) -> Int:
    """Where the equal contiguous shares of batches of these sizes begin and end, (batches, parts + 1)."""
    return sizes[:, None] * np.arange(parts + 1) // parts


def shuffled(
    rows: Int, location_id: Int, sizes: Int, seed: int, epoch: int, *, rows_per_group: int, window_rows: int
) -> Int:
    """All of ``rows`` (ascending) once, in the order of ``epoch``, batch after batch.

    ``location_id`` are those of ``rows``, ``sizes`` (batches,) sum to their number.
    """
    group_of_row = rows // rows_per_group
    groups = np.unique(group_of_row)
    place_of_group = np.argsort(np.argsort(draw(seed, epoch, groups, "order", 1)[:, 0], kind="stable"))
    place = place_of_group[np.searchsorted(groups, group_of_row)]
    by_group = np.argsort(place, kind="stable")

    lanes = int(np.clip(window_rows // rows_per_group, 1, LANES))
    window = max(1, window_rows // (rows_per_group * lanes))
    lengths = np.diff(share_bounds(sizes, lanes), axis=1)
    lane = np.repeat(np.arange(lanes), lengths.sum(axis=0))
    place = place[by_group]
    first_place = place[np.minimum(np.searchsorted(lane, np.arange(lanes)), len(lane) - 1)]
    key = draw(seed, epoch, location_id[by_group], "row", 1)[:, 0]
    by_lane = rows[by_group][np.lexsort((key, (place - first_place[lane]) // window, lane))]

    # Lane after lane lies in ``by_lane``; batch after batch, and in it lane after lane, is what is asked for.
    start_in_lane = np.cumsum(lengths, axis=0) - lengths
    start = np.concatenate([[0], np.cumsum(lengths.sum(axis=0))[:-1]]) + start_in_lane
    counts = lengths.reshape(-1)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    order: Int = by_lane[np.repeat(start.reshape(-1), counts) + within]
    return order


def pieces(order: Int, sizes: Int, first: int, *, rank: int, world: int, rows_per_group: int, span: int) -> list[Piece]:
    """What process ``rank`` reads for its share of the batches from ``first`` on, in the order it is needed.

    ``span`` bounds the batches between a piece's first and last row: a group that comes again later is read again.
    """
    cuts = share_bounds(sizes, world)[:, rank : rank + 2]
    counts = np.where(np.arange(len(sizes)) < first, 0, cuts[:, 1] - cuts[:, 0])
    batch = np.repeat(np.arange(len(sizes)), counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row = order[np.repeat(np.cumsum(sizes) - sizes + cuts[:, 0], counts) + place]
    group, row = row // rows_per_group, row % rows_per_group
    by_group = np.lexsort((batch, group))
    group, row, batch, place = (values[by_group] for values in (group, row, batch, place))
    found: list[Piece] = []
    for start, stop in itertools.pairwise([*np.flatnonzero(np.diff(group, prepend=-1)).tolist(), len(group)]):
        while start < stop:
            end = start + int(np.searchsorted(batch[start:stop], batch[start] + span))
            found.append(Piece(int(group[start]), row[start:end], batch[start:end], place[start:end]))
            start = end
    return sorted(found, key=lambda piece: (piece.first, piece.last))
