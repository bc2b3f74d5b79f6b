"""How many directions features really use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def effective_rank(features: NDArray[np.floating]) -> float:
    """The exponential of the entropy of the spectrum of standardised features (n, k): between 1 and min(n, k).

    The spectrum is that of the correlation matrix: variances along the principal axes as shares of their sum (after Roy
    and Vetterli 2007, The effective rank, EUSIPCO, who take singular values). 0 where no feature varies.
    """
    values = features.astype(np.float64)
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > 1e-12 * np.maximum(np.abs(values).max(axis=0, initial=0.0), 1e-300)
    if not varies.any():
        return 0.0
    variances = np.linalg.svd(centred[:, varies] / spread[varies], compute_uv=False) ** 2
    share = variances[variances > 0] / variances.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
