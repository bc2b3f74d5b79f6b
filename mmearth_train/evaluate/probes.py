"""Linear probes on frozen features: ridge and multinomial logistic regression along a path of penalties.

Computed in float64 by torch alone, whose threads the caller can bound: at hundreds of tiles one is fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE_PENALTIES: tuple[float, ...] = tuple(10.0 ** (half / 2) for half in range(4, -9, -1))
"""Weight of ½‖W‖² against half the mean squared error per tile, strongest first; features have unit variance."""
LOGISTIC_PENALTIES: tuple[float, ...] = (1000.0, 100.0, 10.0, 1.0)
"""Weight of ½‖W‖² against the cross-entropy summed over training tiles, strongest first; features as above."""
_RANK_TOLERANCE = 1e-10
_MAX_ITERATIONS = 200
_GRADIENT_TOLERANCE = 1e-4
"""Where L-BFGS stops: logits are then within some hundredths of the minimum's, far below what the folds vary."""
_LEAST_LOG_PROBABILITY = -27.0


@dataclass(frozen=True)
class Split:
    """The tiles a model may learn from, how they standardise features, and their correlations' eigenvectors.

    ``variance`` (rank,) and ``axes`` (features, rank) decompose the correlation matrix of the training tiles, which
    every penalty and target then shares; directions without variance are left out.
    """

    train: Tensor
    mean: Tensor
    scale: Tensor
    variance: Tensor
    axes: Tensor

    def standardise(self, features: Tensor) -> Tensor:
        """Features in standard deviations of the training tiles; a constant feature becomes 0."""
        return (features - self.mean) / self.scale

    def project(self, features: Tensor) -> Tensor:
        """Standardised features along ``axes``, (n, features) → (n, rank)."""
        return self.standardise(features) @ self.axes


def split(features: Tensor, train: Tensor) -> Split:
    """Everything about the rows ``train`` of ``features`` (n, features) that does not depend on a target."""
    x = features[train]
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-9 * mean.abs().clamp_min(1e-30), scale, torch.inf)
    x = (x - mean) / scale
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    kept = variance > _RANK_TOLERANCE * variance[-1].clamp_min(1e-300)
    return Split(train, mean, scale, variance[kept], axes[:, kept])


def ridge_path(z: Tensor, variance: Tensor, y: Tensor, penalties: tuple[float, ...]) -> list[Tensor]:
    """Coefficients of ridge regression per penalty, each (rank + 1, outputs) with the intercept last.

    ``z`` (n, rank) are projected training features, ``y`` (n, outputs); minimises mean squared error ÷ 2
    + penalty ÷ 2 · ‖W‖².
    """
    centre = y.mean(dim=0)
    covariance = z.T @ (y - centre) / len(z)
    return [torch.cat([covariance / (variance + p)[:, None], centre[None]]) for p in penalties]


def logistic_path(
    z: Tensor, labels: Tensor, classes: int, penalties: tuple[float, ...], tolerance: float = _GRADIENT_TOLERANCE
) -> list[Tensor]:
    """Coefficients of multinomial logistic regression per penalty, each (rank + 1, classes) with the intercept last.

    Minimises summed cross-entropy + penalty ÷ 2 · ‖W‖², the intercept unpenalised, by L-BFGS, each penalty from the
    solution before it. A class without training tiles is never predicted: its coefficients are 0, its intercept −∞.
    """
    present, index = torch.unique(labels, return_inverse=True)
    onehot = torch.nn.functional.one_hot(index, len(present)).to(z.dtype)
    design = torch.cat([z, z.new_ones(len(z), 1)], dim=1)
    weight = z.new_zeros(design.shape[1], len(present))
    weight[-1] = onehot.mean(dim=0).log()
    path = []
    for penalty in penalties:
        shrinkage = z.new_full((design.shape[1], 1), penalty / len(z))
        shrinkage[-1] = 0.0
        weight = _minimise(design, onehot, weight, shrinkage, tolerance)
        full = z.new_zeros(design.shape[1], classes)
        full[-1] = -torch.inf
        full[:, present] = weight
        path.append(full)
    return path


def _minimise(design: Tensor, onehot: Tensor, start: Tensor, shrinkage: Tensor, tolerance: float) -> Tensor:
    """The weights at the minimum of mean cross-entropy + shrinkage ÷ 2 · weight², (columns of design, classes).

    Each weight is sought in units of 1 ÷ √(the loss's curvature along it at the start): along the axes of ``Split``
    that curvature is nearly the whole story, and correlated features no longer cost thousands of steps.
    """
    probability = torch.softmax(design @ start, dim=1)
    curvature = (design**2).T @ (probability * (1 - probability)) / len(design)
    unit = (curvature + shrinkage).clamp_min(1e-12).rsqrt()
    parameter = start / unit
    solver = torch.optim.LBFGS(
        [parameter],
        max_iter=_MAX_ITERATIONS,
        history_size=10,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        weight = parameter * unit
        log_probability = torch.log_softmax(design @ weight, dim=1)
        shrunk = shrinkage * weight
        residual = (log_probability.exp() - onehot) / len(design)
        parameter.grad = (design.T @ residual + shrunk) * unit
        return 0.5 * (shrunk * weight).sum() - (onehot * log_probability).sum() / len(design)

    with torch.no_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return parameter * unit


def scores(z: Tensor, coefficients: Tensor) -> Tensor:
    """What a fitted model gives each row, (n, outputs): predictions of a ridge, logits of a logistic regression."""
    return z @ coefficients[:-1] + coefficients[-1]


def log_loss(logits: Tensor, labels: Tensor) -> float:
    """Negative log-likelihood summed over rows; a class the model does not know costs the same at any penalty."""
    likelihood = torch.log_softmax(logits, dim=1).gather(1, labels[:, None])
    return -float(likelihood.clamp_min(_LEAST_LOG_PROBABILITY).sum())
