"""Probes agree with scikit-learn, and predict each tile from other blocks only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from mmearth_train.evaluate.blocks import assign_folds
from mmearth_train.evaluate.crossfit import CrossFit
from mmearth_train.evaluate.neighbours import neighbour_average
from mmearth_train.evaluate.probes import Split, logistic_path, ridge_path, scores, split


@pytest.fixture
def correlated() -> tuple[np.ndarray, np.ndarray]:
    """Features with a few strong directions, one constant and one doubled column; labels that depend on them."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(240, 6))
    features = latent @ rng.normal(size=(6, 40)) + 0.1 * rng.normal(size=(240, 40)) + 5
    features[:, 7] = 3.25
    features[:, 8] = features[:, 9]
    labels = (latent[:, :4] + rng.normal(size=(240, 4))).argmax(axis=1)
    return features, labels


def fitted(features: np.ndarray, rows: np.ndarray) -> tuple[Split, torch.Tensor]:
    part = split(torch.from_numpy(features), torch.from_numpy(rows))
    return part, part.project(torch.from_numpy(features))


@pytest.mark.parametrize("rows", [np.arange(200), np.arange(25)], ids=["more rows", "more features"])
def test_ridge_predicts_what_sklearns_predicts(correlated: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> None:
    features, _ = correlated
    y = np.random.default_rng(1).normal(size=(240, 2)) + features[:, :2]
    part, z = fitted(features, rows)
    scaler = StandardScaler().fit(features[rows])
    for penalty, path in zip(
        (1.0, 0.01), ridge_path(z[rows], part.variance, torch.from_numpy(y[rows]), (1.0, 0.01)), strict=True
    ):
        expected = Ridge(alpha=penalty * len(rows)).fit(scaler.transform(features[rows]), y[rows])
        np.testing.assert_allclose(
            scores(z, path).numpy(), expected.predict(scaler.transform(features)), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("rows", [np.arange(200), np.arange(30)], ids=["more rows", "more features"])
def test_logistic_regression_is_sklearns(correlated: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> None:
    features, labels = correlated
    _, z = fitted(features, rows)
    scaler = StandardScaler().fit(features[rows])
    penalties = (200.0, 20.0, 1.0)
    exact = logistic_path(z[rows], torch.from_numpy(labels[rows]), 4, penalties, tolerance=1e-9)
    usual = logistic_path(z[rows], torch.from_numpy(labels[rows]), 4, penalties)
    for penalty, path, quick in zip(penalties, exact, usual, strict=True):
        model = LogisticRegression(C=1 / penalty, solver="newton-cg", tol=1e-10, max_iter=20_000)
        expected = model.fit(scaler.transform(features[rows]), labels[rows]).predict_proba(scaler.transform(features))
        np.testing.assert_allclose(scores(z, path).softmax(dim=1).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(scores(z, quick).softmax(dim=1).numpy(), expected, atol=0.02)


def test_a_class_without_training_tiles_is_never_predicted(correlated: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = correlated
    rows = np.flatnonzero(labels != 2)
    _, z = fitted(features, rows)
    for path in logistic_path(z[rows], torch.from_numpy(labels[rows]), 4, (100.0, 0.1)):
        probability = scores(z, path).softmax(dim=1)
        assert (probability[:, 2] == 0).all()
        assert torch.isfinite(probability).all()


def test_neighbours_vote_as_in_sklearn() -> None:
    rng = np.random.default_rng(3)
    train, query = rng.normal(size=(150, 12)), rng.normal(size=(60, 12))
    labels, y = rng.integers(0, 5, 150), rng.normal(size=(150, 2))
    as_tensors = torch.from_numpy(train), torch.from_numpy(query)
    found = neighbour_average(as_tensors[0], torch.from_numpy(y), as_tensors[1], k=9).numpy()
    share = neighbour_average(as_tensors[0], torch.eye(5, dtype=torch.float64)[labels], as_tensors[1], k=9).numpy()
    settings = {"n_neighbors": 9, "weights": "distance", "metric": "cosine"}
    np.testing.assert_allclose(found, KNeighborsRegressor(**settings).fit(train, y).predict(query), atol=1e-9)
    expected = KNeighborsClassifier(**settings).fit(train, labels).predict_proba(query)
    np.testing.assert_allclose(share, expected, atol=1e-9)


def test_neighbours_are_those_of_a_loop_when_there_are_fewer_than_asked() -> None:
    rng = np.random.default_rng(4)
    train, query, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.normal(size=(4, 1))
    found = neighbour_average(*(torch.from_numpy(array) for array in (train, y, query)), k=20)
    for row, one in zip(found, query, strict=True):
        distance = [1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in train]
        weight = 1 / np.array(distance)
        assert float(row) == pytest.approx((weight @ y / weight.sum()).item())


def test_a_tile_is_predicted_without_its_fold(correlated: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = correlated
    fold = assign_folds(np.arange(240) // 4, seed=0)
    y = features[:, :1] + 0.0
    held = fold == 2
    # Whatever stands in fold 2's targets, its own predictions stay the same.
    spoiled_y, spoiled_labels = np.where(held[:, None], 1e3, y), np.where(held, 0, labels)
    fit = CrossFit(features, fold)
    np.testing.assert_array_equal(fit.regress(y)[held], fit.regress(spoiled_y)[held])
    np.testing.assert_array_equal(fit.classify(labels, 4)[held], fit.classify(spoiled_labels, 4)[held])
    np.testing.assert_array_equal(fit.average_neighbours(y)[held], fit.average_neighbours(spoiled_y)[held])
    assert not np.array_equal(fit.regress(y)[~held], fit.regress(spoiled_y)[~held])


def test_the_penalty_is_chosen_by_inner_folds_alone(correlated: tuple[np.ndarray, np.ndarray]) -> None:
    features, _ = correlated
    rng = np.random.default_rng(5)
    fold = assign_folds(np.arange(240), seed=1)
    y = features[:, :1] + rng.normal(0, 8, (240, 1))
    grid = [10.0 ** (half / 2) for half in range(4, -9, -1)]
    expected = np.empty_like(y)
    for f in range(5):
        loss = []
        for penalty in grid:
            total = 0.0
            for g in set(range(5)) - {f}:
                train, test = (fold != f) & (fold != g), fold == g
                scaler = StandardScaler().fit(features[train])
                model = Ridge(alpha=penalty * train.sum()).fit(scaler.transform(features[train]), y[train])
                total += float(((model.predict(scaler.transform(features[test])) - y[test].squeeze()) ** 2).sum())
            loss.append(total)
        train = fold != f
        scaler = StandardScaler().fit(features[train])
        model = Ridge(alpha=grid[int(np.argmin(loss))] * train.sum())
        model.fit(scaler.transform(features[train]), y[train])
        expected[fold == f] = model.predict(scaler.transform(features[fold == f])).reshape(-1, 1)
    np.testing.assert_allclose(CrossFit(features, fold).regress(y), expected, atol=1e-6)
