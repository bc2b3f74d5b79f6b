"""Cross-fitting over folds of blocks: every tile is predicted by models that never saw its fold.

The penalty that predicts fold f is chosen inside the other folds: each of them is predicted by models that saw
neither it nor f. As the model without f and g serves both f and g, k folds need k·(k + 1) ÷ 2 fits per penalty.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmearth_train.evaluate.neighbours import neighbour_average
from mmearth_train.evaluate.probes import (
    LOGISTIC_PENALTIES,
    RIDGE_PENALTIES,
    Split,
    log_loss,
    logistic_path,
    ridge_path,
    scores,
    split,
)


class CrossFit:
    """Features and folds made ready once: every target over the same tiles shares standardisation and eigenvectors.

    ``features`` (n, features), ``fold`` (n,) with values 0 … folds − 1, at least three of them, none empty.
    """

    def __init__(self, features: NDArray[np.floating], fold: NDArray[np.int64]) -> None:
        self.features = torch.from_numpy(features.astype(np.float64))
        self.fold = torch.from_numpy(fold)
        self.folds = int(fold.max()) + 1
        self.splits = {
            (f, g): split(self.features, torch.nonzero((self.fold != f) & (self.fold != g))[:, 0])
            for f in range(self.folds)
            for g in range(f, self.folds)
        }

    def regress(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ridge predictions of ``y`` (n, outputs), each tile by a model that did not see its fold.

        The penalty has the least squared error inside, every output in units of its variance there.
        """
        truth = torch.from_numpy(y)

        def fit(part: Split) -> list[Tensor]:
            return ridge_path(
                part.project(self.features[part.train]), part.variance, truth[part.train], RIDGE_PENALTIES
            )

        def loss(predicted: Tensor, rows: Tensor, outer: Tensor) -> float:
            spread = truth[outer].var(dim=0, correction=0).clamp_min(1e-12)
            return float((((predicted - truth[rows]) ** 2).sum(dim=0) / spread).sum())

        result: NDArray[np.float64] = self._predict(fit, loss, y.shape[1]).numpy()
        return result

    def classify(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Classes predicted by logistic regression, (n,), each tile by a model that did not see its fold.

        The penalty has the least cross-entropy inside.
        """
        truth = torch.from_numpy(labels)

        def fit(part: Split) -> list[Tensor]:
            z = part.project(self.features[part.train])
            return logistic_path(z, truth[part.train], classes, LOGISTIC_PENALTIES)

        def loss(logits: Tensor, rows: Tensor, _: Tensor) -> float:
            return log_loss(logits, truth[rows])

        result: NDArray[np.int64] = self._predict(fit, loss, classes).argmax(dim=1).numpy()
        return result

    def _predict(
        self, fit: Callable[[Split], list[Tensor]], loss: Callable[[Tensor, Tensor, Tensor], float], outputs: int
    ) -> Tensor:
        inner: dict[int, Tensor] = {f: torch.zeros(1) for f in range(self.folds)}
        models: dict[int, list[Tensor]] = {}
        for (f, g), part in self.splits.items():
            path = fit(part)
            if f == g:
                models[f] = path
                continue
            for outer, held in ((f, g), (g, f)):
                rows = torch.nonzero(self.fold == held)[:, 0]
                z, seen = part.project(self.features[rows]), self.splits[outer, outer].train
                inner[outer] = inner[outer] + torch.tensor([loss(scores(z, model), rows, seen) for model in path])
        predicted = self.features.new_empty(len(self.features), outputs)
        for f in range(self.folds):
            rows = torch.nonzero(self.fold == f)[:, 0]
            chosen = models[f][int(inner[f].argmin())]
            predicted[rows] = scores(self.splits[f, f].project(self.features[rows]), chosen)
        return predicted

    def average_neighbours(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the nearest tiles outside each tile's fold say of ``values`` (n, outputs), on standardised features."""
        truth = torch.from_numpy(values)
        predicted = torch.empty_like(truth)
        for f in range(self.folds):
            part = self.splits[f, f]
            rows = torch.nonzero(self.fold == f)[:, 0]
            train, query = part.standardise(self.features[part.train]), part.standardise(self.features[rows])
            predicted[rows] = neighbour_average(train, truth[part.train], query)
        result: NDArray[np.float64] = predicted.numpy()
        return result
