"""Scores from sums over tiles are those of scikit-learn, for all tiles and for any resample of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from mmearth_train.evaluate.metrics import R2, Accuracy, MacroF1


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 300)
    predicted = np.where(rng.random(300) < 0.6, truth, rng.integers(0, 8, 300))
    return truth, predicted


def test_accuracy_and_macro_f1_are_sklearns(labels: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labels
    accuracy, f1 = Accuracy(), MacroF1(9)
    assert accuracy.value(accuracy.contributions(truth, predicted).sum(axis=0)) == pytest.approx(
        reference.accuracy_score(truth, predicted)
    )
    # Classes 6 to 8 are never true: they are no term of the mean, but a claim of them is a miss of another class.
    assert f1.value(f1.contributions(truth, predicted).sum(axis=0)) == pytest.approx(
        reference.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    )


def test_macro_f1_of_resamples_is_sklearns_on_the_resampled_tiles(labels: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labels
    f1 = MacroF1(9)
    counts = np.random.default_rng(1).multinomial(12, np.full(300, 1 / 300), size=20)
    values = f1.value(counts @ f1.contributions(truth, predicted))
    for value, count in zip(values, counts, strict=True):
        drawn = np.repeat(np.arange(300), count)
        expected = reference.f1_score(
            truth[drawn], predicted[drawn], labels=np.unique(truth[drawn]), average="macro", zero_division=0
        )
        assert value == pytest.approx(expected)


def test_r2_is_sklearns_mean_over_outputs() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(1e4, [1.0, 5.0, 0.2], size=(200, 3))
    predicted = truth + rng.normal(0, [0.5, 6.0, 0.01], size=(200, 3))
    r2 = R2()
    rows = r2.contributions(truth, predicted)
    assert r2.value(rows.sum(axis=0)) == pytest.approx(reference.r2_score(truth, predicted), rel=1e-9)
    drawn = rng.integers(0, 200, 150)
    assert r2.value(rows[drawn].sum(axis=0)) == pytest.approx(
        reference.r2_score(truth[drawn], predicted[drawn]), rel=1e-9
    )


def test_outputs_without_variance_are_left_out_and_none_left_is_nan() -> None:
    truth = np.stack([np.arange(10.0), np.full(10, 0.1)], axis=1)
    r2 = R2()
    rows = r2.contributions(truth, truth + 1.0)
    assert r2.value(rows.sum(axis=0)) == pytest.approx(reference.r2_score(truth[:, 0], truth[:, 0] + 1))
    assert np.isnan(r2.value(rows[:1].sum(axis=0)))
