"""Losses and their weighting against scikit-learn, numpy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error

from mmearth_train.losses import IGNORE, cross_entropy, means, normalise_patches, squared_error, weigh


def test_squared_error_is_the_mean_over_valid_values() -> None:
    rng = np.random.default_rng(0)
    prediction, target, valid = rng.normal(size=(6, 5)), rng.normal(size=(6, 5)), rng.random((6, 5)) < 0.6
    target[~valid] = np.nan
    total, count = squared_error(*map(torch.from_numpy, (prediction, target, valid)))
    assert count == valid.sum()
    assert total / count == pytest.approx(mean_squared_error(target[valid], prediction[valid]), rel=1e-13)


def test_cross_entropy_is_the_log_loss_of_valid_classes() -> None:
    rng = np.random.default_rng(1)
    logits, classes = rng.normal(size=(40, 7)), rng.integers(0, 7, 40)
    classes[::4] = IGNORE
    asked = torch.from_numpy(logits).requires_grad_()
    total, count = cross_entropy(asked, torch.from_numpy(classes))
    known = classes != IGNORE
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert count == known.sum()
    assert total.item() / count == pytest.approx(
        log_loss(classes[known], probability[known], labels=range(7)), rel=1e-12
    )
    total.backward()
    expected = (probability - np.eye(7)[classes]) * known[:, None]
    np.testing.assert_allclose(asked.grad, expected, rtol=1e-12, atol=1e-14)


def test_patches_are_normalised_over_their_valid_values_of_all_bands() -> None:
    rng = np.random.default_rng(2)
    values, valid = rng.normal(3, 2, size=(2, 3, 4, 4, 5)), rng.random((2, 3, 4, 4, 5)) < 0.7
    result, kept = normalise_patches(torch.from_numpy(values), torch.from_numpy(valid))
    assert (kept.numpy() == valid).all()
    for n, m in np.ndindex(2, 3):
        known = values[n, m][valid[n, m]]
        expected = (known - known.mean()) / np.sqrt(known.var(ddof=1) + 1e-6)
        np.testing.assert_allclose(result.numpy()[n, m][valid[n, m]], expected, rtol=1e-12, atol=1e-12)


def test_a_patch_with_one_valid_value_is_left_out() -> None:
    valid = torch.zeros(1, 2, 2, 2, 1, dtype=torch.bool)
    valid[0, 0, 0, 0] = True
    valid[0, 1] = True
    _, kept = normalise_patches(torch.rand(valid.shape), valid)
    assert kept[0, 0].sum() == 0
    assert kept[0, 1].sum() == 4


def test_a_flat_patch_becomes_zero_not_nan() -> None:
    result, _ = normalise_patches(torch.full((1, 1, 2, 2, 3), 7.0), torch.ones(1, 1, 2, 2, 3, dtype=torch.bool))
    assert (result == 0).all()


def test_uncertainty_weighting_drops_tasks_without_targets() -> None:
    log_vars = torch.tensor([0.3, -0.7, 2.0], dtype=torch.float64, requires_grad=True)
    losses = means(torch.tensor([6.0, 5.0, 0.0], dtype=torch.float64), torch.tensor([3, 10, 0]))
    total = weigh(losses, torch.tensor([3, 10, 0]), log_vars)
    assert total.item() == pytest.approx(np.exp(-0.3) * 2 + 0.3 + np.exp(0.7) * 0.5 - 0.7, rel=1e-14)
    total.backward()
    np.testing.assert_allclose(log_vars.grad, [1 - np.exp(-0.3) * 2, 1 - np.exp(0.7) * 0.5, 0], rtol=1e-14)


def test_no_valid_target_at_all_gives_zero_and_finite_gradients() -> None:
    prediction = torch.randn(4, 3, requires_grad=True)
    pairs = [
        squared_error(prediction, torch.full((4, 3), torch.nan), torch.zeros(4, 3, dtype=torch.bool)),
        cross_entropy(prediction, torch.full((4,), IGNORE)),
    ]
    sums, counts = torch.stack([s for s, _ in pairs]), torch.stack([c for _, c in pairs])
    total = weigh(means(sums, counts), counts, torch.zeros(2))
    total.backward()
    assert total == 0
    assert (prediction.grad == 0).all()
