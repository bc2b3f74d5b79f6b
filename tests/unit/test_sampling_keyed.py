from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sampling.keyed import below, key_of, mix, permuted

keys = st.integers(0, 2**64 - 1)


@given(keys, st.integers(1, 3000))
def test_a_permutation_sends_every_index_to_a_place_of_its_own(key: int, size: int) -> None:
    assert sorted(permuted(key, np.arange(size), size)) == list(range(size))


@given(keys, st.integers(1, 10**10), st.data())
def test_where_an_index_goes_does_not_depend_on_its_company(key: int, size: int, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    together = permuted(key, index, size)
    assert list(together) == [permuted(key, index[k : k + 1], size)[0] for k in range(len(index))]
    assert together.max() < size


def test_the_beginning_of_a_permutation_is_spread_evenly() -> None:
    for key in range(20):
        first = permuted(key_of(key), np.arange(2000), 1_000_003)
        assert stats.kstest(first / 1_000_003, "uniform").pvalue > 1e-4
        neighbours = np.corrcoef(first[1:], first[:-1])[0, 1]
        assert abs(neighbours) < 0.1


def test_the_mixer_is_splitmix64() -> None:
    """Against the reference implementation's recurrence, in Python integers."""
    mask = 2**64 - 1
    for seed in (0, 1234567):
        state = seed
        for step in range(5):
            z = state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            assert int(mix(seed, np.array([step]))[0]) == z ^ (z >> 31)
            state = (state + 0x9E3779B97F4A7C15) & mask


@pytest.mark.parametrize("bound", [2, 3, 10])
def test_numbers_below_a_bound_are_equally_likely(bound: int) -> None:
    counts = np.bincount(below(key_of(5, "x"), np.arange(20000), bound), minlength=bound)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_keys_differ_by_seed_and_by_word() -> None:
    assert len({key_of(0, "a"), key_of(1, "a"), key_of(0, "b"), key_of(0, "a", "b"), key_of(0, "ab"), key_of(10)}) == 6
