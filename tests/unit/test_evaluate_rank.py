"""The effective rank is what it is in cases that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmearth_train.evaluate.rank import effective_rank


def orthogonal(columns: int) -> np.ndarray:
    """Columns of a Hadamard matrix but the constant one: uncorrelated, of mean 0 and variance 1."""
    matrix = np.ones((1, 1))
    while len(matrix) <= columns:
        matrix = np.kron(matrix, np.array([[1.0, 1.0], [1.0, -1.0]]))
    return matrix[:, 1 : columns + 1]


def test_uncorrelated_features_count_each_whatever_their_scale() -> None:
    features = orthogonal(7) * np.array([1e-3, 1, 10, 1e4, 2, 3, 4]) + np.arange(7)
    assert effective_rank(features) == pytest.approx(7)


def test_copies_count_once_and_constants_not_at_all() -> None:
    features = orthogonal(3)
    assert effective_rank(features[:, [0, 0, 0]] * [1, -2, 3]) == pytest.approx(1)
    assert effective_rank(np.concatenate([features, np.full((len(features), 2), 7.1)], axis=1)) == pytest.approx(3)
    assert effective_rank(np.full((5, 4), 0.3)) == 0.0


def test_many_rows_in_parts_have_the_spectrum_of_all_at_once() -> None:
    """Against singular values; variances six orders apart, in single precision as encoders give them."""
    generator = np.random.default_rng(3)
    mixed = generator.normal(size=(40_000, 24)) @ (generator.normal(size=(24, 24)) * np.logspace(0, -3, 24)[:, None])
    features = (1e3 * generator.normal(size=24) + mixed).astype(np.float32)
    exact = features.astype(np.float64)
    values = np.linalg.svd((exact - exact.mean(axis=0)) / exact.std(axis=0), compute_uv=False) ** 2
    share = values / values.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)
    assert effective_rank(features[:0]) == 0.0


def test_fewer_rows_than_features_bound_the_rank() -> None:
    features = np.random.default_rng(4).normal(size=(12, 320))
    centred = (features - features.mean(axis=0)) / features.std(axis=0)
    share = np.linalg.svd(centred, compute_uv=False)[:11] ** 2
    share /= share.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)
    assert effective_rank(features) < 11


def test_two_features_of_a_given_correlation() -> None:
    a, b = orthogonal(2).T
    r = 0.6
    shares = np.array([(1 + r) / 2, (1 - r) / 2])
    found = effective_rank(np.stack([a, r * a + np.sqrt(1 - r**2) * b], axis=1))
    assert found == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
