"""How many directions features really use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS = 1 << 14
"""Tiles at a time: 42 MB of 320 features in double precision."""


def effective_rank(features: NDArray[np.floating]) -> float:
    """The exponential of the entropy of the spectrum of standardised features (n, k): between 1 and min(n, k).

    The spectrum is that of the correlation matrix: variances along the principal axes as shares of their sum (after Roy
    and Vetterli 2007, The effective rank, EUSIPCO, who take singular values). 0 where no feature varies. Rows are
    taken some at a time: beside the features it needs memory for them and for k × k numbers alone.
    """
    if not len(features):
        return 0.0
    parts = [features[first : first + _ROWS] for first in range(0, len(features), _ROWS)]
    mean = features.mean(axis=0, dtype=np.float64)
    products = np.zeros((features.shape[1],) * 2)
    largest = np.zeros(features.shape[1])
    for part in parts:
        centred = part.astype(np.float64) - mean
        products += centred.T @ centred
        largest = np.maximum(largest, np.abs(part).max(axis=0))
    spread = np.sqrt(products.diagonal() / len(features))
    varies = spread > 1e-12 * np.maximum(largest, 1e-300)
    if not varies.any():
        return 0.0
    correlation = products[np.ix_(varies, varies)] / np.outer(spread[varies], spread[varies])
    variances = np.linalg.eigvalsh(correlation)
    share = variances[variances > 0] / variances[variances > 0].sum()
    return float(np.exp(-(share * np.log(share)).sum()))
