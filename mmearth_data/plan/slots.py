"""Who gets which row of the store: pure functions of the location table and of what is available.

Rows are given out round by round. Every answer depends on its arguments alone, so that it is the same however many
workers there are and however often they were killed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_SHARD_ROWS = 224
"""Rows of a shard at most: 4 × 56 strata = 7 × 32 = 28 × 8, so that inner chunks of 8, 16 or 32 rows divide it."""
VACANT = -1
"""The index of a row that no location fills."""

IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Strata:
    """The strata of a location table of n rows: each location's stratum (0…k−1) and rank in it, and the quotas (k,)."""

    stratum: IndexArray
    rank: IndexArray
    quota: IndexArray

    def queue(self, stratum: int, candidates: BoolArray) -> IndexArray:
        """Table indices of the candidates of one stratum by rank."""
        members = np.flatnonzero((self.stratum == stratum) & candidates)
        return members[np.argsort(self.rank[members], kind="stable")]


def shard_rows(strata: int, most: int = MAX_SHARD_ROWS) -> int:
    """Rows of a shard: the largest multiple of the number of strata up to ``most``; ``most`` where there are more."""
    return most // strata * strata or most


def first_round(strata: Strata, available: BoolArray, rows: int, seed: int) -> IndexArray:
    """Table indices, VACANT among them, of the rows of the first shards, shape (shards × rows,).

    The first available locations of each stratum by rank, up to its quota, in one random order; every shard but the
    last ones holds each stratum equally often.
    """
    order = np.random.default_rng([seed, 0])
    count = len(strata.quota)
    share = max(rows // count, 1)
    picks = [order.permutation(strata.queue(s, available)[: strata.quota[s]]) for s in range(count)]
    if share * count > rows:
        return _fill(order.permutation(np.concatenate(picks)), rows)
    shards = max((-(-len(pick) // share) for pick in picks), default=0)
    result = np.full((shards, rows), VACANT, dtype=np.int64)
    for shard in range(shards):
        dealt = np.concatenate([pick[shard * share : (shard + 1) * share] for pick in picks])
        result[shard, : len(dealt)] = dealt
        result[shard] = order.permutation(result[shard])
    return result.reshape(-1)


def later_round(
    strata: Strata, available: BoolArray, used: BoolArray, stored: IndexArray, rows: int, seed: int, number: int
) -> IndexArray:
    """Table indices of the rows of further shards for the strata whose ``stored`` tiles are short of their quota.

    The next locations by rank that are available and were not ``used``, in one random order; empty where every stratum
    has its quota or has run dry.
    """
    short = np.maximum(strata.quota - stored, 0)
    picks = [strata.queue(s, available & ~used)[: short[s]] for s in range(len(strata.quota))]
    return _fill(np.random.default_rng([seed, number]).permutation(np.concatenate(picks)), rows)


def _fill(picks: IndexArray, rows: int) -> IndexArray:
    """The picks in order, filled up with VACANT to whole shards."""
    result = np.full(-(-len(picks) // rows) * rows, VACANT, dtype=np.int64)
    result[: len(picks)] = picks
    return result
