"""Who gets which row: equal shards, ranks in order, further rounds, and no dependence on anything else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmearth_data.plan.slots import MAX_SHARD_ROWS, VACANT, Strata, first_round, later_round, shard_rows


def strata_of(primaries: list[int], reserves: list[int], seed: int = 0) -> Strata:
    """Strata of those sizes, with the table's rows in random order."""
    stratum = np.repeat(np.arange(len(primaries)), np.add(primaries, reserves))
    rank = np.concatenate([np.arange(p + r) for p, r in zip(primaries, reserves, strict=True)])
    order = np.random.default_rng(seed).permutation(len(stratum))
    return Strata(stratum=stratum[order], rank=rank[order], quota=np.array(primaries))


@pytest.mark.parametrize(("strata", "rows"), [(56, 224), (1, 224), (5, 220), (100, 200), (224, 224), (300, 224)])
def test_a_shard_is_the_largest_multiple_of_the_strata(strata: int, rows: int) -> None:
    assert shard_rows(strata) == rows
    if strata <= MAX_SHARD_ROWS:
        assert max(n for n in range(1, MAX_SHARD_ROWS + 1) if n % strata == 0) == rows


def test_every_full_shard_holds_each_stratum_equally_often_and_reading_in_order_is_shuffled() -> None:
    strata = strata_of([40] * 56, [8] * 56)
    rows = shard_rows(56)
    picks = first_round(strata, np.ones(len(strata.rank), dtype=bool), rows, seed=3).reshape(-1, rows)
    assert len(picks) == 10
    for shard in picks:
        assert set(Counter(strata.stratum[shard].tolist()).values()) == {4}
    assert (strata.rank[picks.reshape(-1)] < 40).all()
    assert len(np.unique(picks)) == 56 * 40
    runs = np.diff(strata.stratum[picks[0]])
    assert (runs == 0).mean() < 0.1
    ranks = strata.rank[picks]
    assert abs(np.corrcoef(np.arange(ranks.size), ranks.reshape(-1))[0, 1]) < 0.1


def test_rows_that_do_not_fill_are_vacant() -> None:
    strata = strata_of([5, 5], [1, 1])
    picks = first_round(strata, np.ones(12, dtype=bool), 8, seed=1).reshape(-1, 8)
    assert [int((shard != VACANT).sum()) for shard in picks] == [8, 2]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rounds_take_each_stratum_by_rank_until_its_quota_or_its_end(data: st.DataObject) -> None:
    """Against a plain simulation: whatever is stored, every stratum ends with its quota or without candidates."""
    primaries = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    reserves = data.draw(st.lists(st.integers(0, 5), min_size=len(primaries), max_size=len(primaries)))
    strata = strata_of(primaries, reserves, seed=data.draw(st.integers(0, 9)))
    count = len(strata.rank)
    available = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    rows = shard_rows(len(primaries), 12)
    used = np.zeros(count, dtype=bool)
    stored = np.zeros(len(primaries), dtype=np.int64)
    for number in range(count + 2):
        if number == 0:
            picks = first_round(strata, available, rows, seed=11)
        else:
            picks = later_round(strata, available, used, stored, rows, seed=11, number=number)
        assert len(picks) % rows == 0
        given_now = picks[picks != VACANT]
        assert available[given_now].all()
        assert not used[given_now].any()
        used[given_now] = True
        np.add.at(stored, strata.stratum[given_now[usable[given_now]]], 1)
        if not len(given_now):
            break
    for s, quota in enumerate(primaries):
        queue = sorted((int(strata.rank[i]), i) for i in np.flatnonzero((strata.stratum == s) & available))
        expected: list[int] = []
        for _, index in queue:
            if sum(usable[i] for i in expected) == quota:
                break
            expected.append(index)
        taken = set(np.flatnonzero(used & (strata.stratum == s)).tolist())
        assert stored[s] <= quota
        assert stored[s] == min(quota, sum(usable[i] for _, i in queue))
        assert taken == set(expected), "exactly those by rank that were needed, and no more"


def test_the_same_arguments_give_the_same_rows_and_another_seed_others() -> None:
    strata = strata_of([9] * 4, [3] * 4)
    available = np.ones(48, dtype=bool)
    first = first_round(strata, available, 12, seed=1)
    np.testing.assert_array_equal(first, first_round(strata, available, 12, seed=1))
    assert (first != first_round(strata, available, 12, seed=2)).any()
