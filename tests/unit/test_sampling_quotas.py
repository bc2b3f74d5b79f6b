from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling import quotas

claims = st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 40)), min_size=1, max_size=12)


def greedy(weight: list[int], caps: list[int], seats: int) -> list[int]:
    """Sainte-Laguë seat by seat, in exact fractions."""
    held = [0] * len(weight)
    order = []
    for _ in range(min(seats, sum(caps))):
        able = [k for k in range(len(weight)) if held[k] < caps[k]]
        best = max(able, key=lambda k: (Fraction(weight[k], 2 * held[k] + 1), -k))
        held[best] += 1
        order.append(best)
    return order


@given(claims, st.integers(0, 200))
def test_seats_go_where_the_divisor_method_sends_them(claim: list[tuple[int, int]], seats: int) -> None:
    weight, caps = [w for w, _ in claim], [c for _, c in claim]
    found = quotas.apportion(np.array(weight, dtype=float), np.array(caps), seats)
    assert list(found) == greedy(weight, caps, seats)


@given(claims, st.integers(0, 200), st.integers(0, 200))
def test_more_seats_take_none_away(claim: list[tuple[int, int]], seats: int, more: int) -> None:
    weight, caps = np.array([w for w, _ in claim], dtype=float), np.array([c for _, c in claim])
    small, large = quotas.apportion(weight, caps, seats), quotas.apportion(weight, caps, seats + more)
    assert list(large[: len(small)]) == list(small)
    assert len(large) == min(seats + more, caps.sum())
    assert (np.bincount(large, minlength=len(caps)) <= caps).all()


@given(claims, st.integers(1, 200))
def test_caps_that_do_not_bind_do_not_matter(claim: list[tuple[int, int]], seats: int) -> None:
    weight, caps = np.array([w for w, _ in claim], dtype=float), np.array([c for _, c in claim])
    capped = quotas.apportion(weight, caps, seats)
    held = np.bincount(capped, minlength=len(caps))
    looser = np.where(held < caps, caps + 1000, caps)
    if len(capped) == seats:
        assert list(quotas.apportion(weight, looser, seats)) == list(capped)


groups = st.lists(st.integers(0, 3), min_size=12, max_size=12)


@given(claims, groups, st.integers(0, 200), st.integers(0, 200))
def test_groups_share_equally_until_one_is_full_and_more_seats_take_none_away(
    claim: list[tuple[int, int]], group: list[int], seats: int, more: int
) -> None:
    """Seat by seat in exact fractions: first a group, then one of its claimants."""
    weight, caps, group = [w for w, _ in claim], [c for _, c in claim], group[: len(claim)]
    names = sorted(set(group))
    turns = greedy([1] * len(names), [sum(c for c, g in zip(caps, group, strict=True) if g == n) for n in names], seats)
    queues = {}
    for name in names:
        mine = [k for k in range(len(claim)) if group[k] == name]
        inner = greedy([weight[k] for k in mine], [caps[k] for k in mine], seats)
        queues[name] = iter([mine[k] for k in inner])
    arrays = np.array(weight, dtype=float), np.array(caps), np.array(group)
    found = quotas.apportion_in_groups(*arrays, seats)
    assert list(found) == [next(queues[names[turn]]) for turn in turns]
    assert list(quotas.apportion_in_groups(*arrays, seats + more)[: len(found)]) == list(found)


@given(claims, st.integers(0, 200))
def test_one_group_is_no_group(claim: list[tuple[int, int]], seats: int) -> None:
    weight, caps = np.array([w for w, _ in claim], dtype=float), np.array([c for _, c in claim])
    alone = quotas.apportion_in_groups(weight, caps, np.zeros(len(caps), dtype=np.int64), seats)
    assert list(alone) == list(quotas.apportion(weight, caps, seats))


def test_many_seats_follow_the_weights() -> None:
    weight = np.array([1.0, 2.5, 100.0, 1e-3])
    seats = 1_000_000
    held = np.bincount(quotas.apportion(weight, np.full(4, 10**9), seats), minlength=4)
    assert held.sum() == seats
    assert np.abs(held - seats * weight / weight.sum()).max() < 2


def test_a_claimant_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight above zero"):
        quotas.apportion(np.array([1.0, 0.0]), np.array([1, 1]), 2)


@given(st.integers(0, 10**7), st.integers(1, 6), st.integers(1, 14))
def test_strata_and_biomes_differ_by_at_most_one(locations: int, years: int, biomes: int) -> None:
    primary = quotas.primaries(locations, years, biomes)
    assert primary.sum() == locations
    assert np.ptp(primary) <= 1
    assert np.ptp(primary.sum(axis=0)) <= 1


@given(st.integers(0, 10**6), st.integers(0, 1000), st.integers(1, 6), st.integers(1, 14))
def test_a_larger_plan_takes_nothing_from_any_stratum(locations: int, more: int, years: int, biomes: int) -> None:
    small, large = (quotas.primaries(n, years, biomes) for n in (locations, locations + more))
    assert (large >= small).all()
    assert (large + quotas.reserves(large) >= small + quotas.reserves(small)).all()


@pytest.mark.parametrize(("primary", "reserve"), [(0, 0), (1, 4), (10, 4), (20, 4), (21, 5), (100, 20), (101, 21)])
def test_reserves_are_a_fifth_and_at_least_four(primary: int, reserve: int) -> None:
    assert quotas.reserves(np.array([primary]))[0] == reserve


@given(st.integers(0, 5000), st.integers(1, 4), st.integers(1, 14))
def test_the_largest_plan_fits_and_one_more_round_does_not(cells: int, years: int, biomes: int) -> None:
    most = quotas.largest_plan(cells, years, biomes)
    strata = years * biomes
    if most:
        assert quotas.depth(most, years, biomes) * years <= cells
    assert quotas.depth(most + strata, years, biomes) * years > cells


def test_small_ecoregions_weigh_a_tenth_of_the_mean() -> None:
    assert list(quotas.weights(np.array([1.0, 99.0, 200.0]))) == [10.0, 99.0, 200.0]


@given(st.integers(0, 2**64 - 1), st.integers(1, 50), st.integers(1, 6))
def test_each_round_gives_every_year_one_seat_and_rounds_do_not_depend_on_their_number(
    key: int, rounds: int, years: int
) -> None:
    order = quotas.year_order(key, rounds, years)
    assert (np.sort(order, axis=1) == np.arange(years)).all()
    assert (quotas.year_order(key, rounds + 5, years)[:rounds] == order).all()


def test_ecoregions_that_alternate_are_seen_in_every_year() -> None:
    seats = quotas.apportion(np.array([1.0, 1.0]), np.array([1000, 1000]), 1600).reshape(400, 4)
    order = quotas.year_order(7, 400, 4)
    for year in range(4):
        share = (seats[order == year] == 0).mean()
        assert 0.4 < share < 0.6
