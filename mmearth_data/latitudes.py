"""Latitude: what parallels are called, and the bands between them by which plans and reports count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BAND_DEGREES = 10


def parallel(degrees: float) -> str:
    """A parallel by name, such as 56°S, to whole degrees."""
    return f"{abs(degrees):.0f}°{'S' if degrees < 0 else 'N' if degrees else ''}"


BANDS = tuple(f"{parallel(south)} to {parallel(south + BAND_DEGREES)}" for south in range(-90, 90, BAND_DEGREES))
"""Names of the bands from south to north; each begins with its southern parallel."""


def bands_at(lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """The place in ``BANDS`` of each latitude in degrees, shape (n,); the pole is in the last."""
    return np.minimum(np.floor(lat / BAND_DEGREES).astype(np.int64) + len(BANDS) // 2, len(BANDS) - 1)
