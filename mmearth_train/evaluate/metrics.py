"""Scores as functions of sums over tiles, so that one definition serves the estimate and every bootstrap replicate.

A metric gives each tile a row of numbers (``contributions``); the score of any set of tiles, drawn any number of
times each, follows from the sums of those rows (``value``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Metric(Protocol):
    """A score computed from sums over tiles."""

    @property
    def name(self) -> str:
        """How the score is called in results."""
        ...

    def contributions(self, truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> FloatArray:
        """What each tile adds to the sums, (n, k)."""
        ...

    def value(self, sums: FloatArray) -> FloatArray:
        """The score of sums, (…, k) → (…); NaN where it is undefined."""
        ...


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """The quotient, NaN where the denominator is not positive."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


@dataclass(frozen=True)
class Accuracy:
    """The share of tiles whose class is right."""

    name: str = "accuracy"

    def contributions(self, truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> FloatArray:
        """Right or not, and one, (n, 2)."""
        return np.stack([truth == predicted, np.ones(len(truth))], axis=1).astype(np.float64)

    def value(self, sums: FloatArray) -> FloatArray:
        """Right ÷ all."""
        return _ratio(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class MacroF1:
    """F1 per class, then the mean over the classes that occur in the truth: every class weighs the same."""

    classes: int
    name: str = "macro_f1"

    def contributions(self, truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> FloatArray:
        """Hits, occurrences and predictions of each class, (n, 3·classes); classes are 0 … classes − 1."""
        ids = np.arange(self.classes)
        occurs, claimed = truth[:, None] == ids, predicted[:, None] == ids
        return np.concatenate([occurs & claimed, occurs, claimed], axis=1).astype(np.float64)

    def value(self, sums: FloatArray) -> FloatArray:
        """Mean of 2·hits ÷ (occurrences + predictions) over classes with occurrences."""
        hits, occurs, claimed = np.split(sums, 3, axis=-1)
        return _mean_of_defined(np.where(occurs > 0, _ratio(2 * hits, occurs + claimed), np.nan))


@dataclass(frozen=True)
class R2:
    """1 − squared error ÷ squared deviation from the mean, averaged over outputs that vary.

    0 is what the mean of all scored tiles would reach, a constant learned from the training folds slightly less.
    """

    name: str = "r2"

    def contributions(self, truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> FloatArray:
        """Squared error, value and squared value of each output, then one: (n, 3·outputs + 1).

        Values are taken from their mean over the tiles, which changes no deviation and keeps the sums exact.
        """
        y = np.asarray(truth, dtype=np.float64).reshape(len(truth), -1)
        error = np.asarray(predicted, dtype=np.float64).reshape(y.shape) - y
        y = y - y.mean(axis=0)
        return np.concatenate([error**2, y, y**2, np.ones((len(y), 1))], axis=1)

    def value(self, sums: FloatArray) -> FloatArray:
        """The mean over outputs."""
        error, total, square = np.split(sums[..., :-1], 3, axis=-1)
        spread = square - total**2 / sums[..., -1:]
        # What rounding leaves of a constant output is not variance.
        spread = np.where(spread > 1e-12 * np.maximum(square, 1e-300), spread, 0.0)
        return _mean_of_defined(1.0 - _ratio(error, spread))
