"""Kernels: weights around a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.errors import ServiceError

MAX_RADIUS = 512


@dataclass(frozen=True, eq=False)
class Kernel:
    """Weights with the row and column of the pixel in their middle."""

    weights: NDArray[np.float64]
    row: int
    column: int

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """How many pixels it reaches up, left, down and right."""
        height, width = self.weights.shape
        return self.row, self.column, height - 1 - self.row, width - 1 - self.column


def finished(weights: NDArray[np.float64], normalize: bool, magnitude: float, where: str) -> Kernel:
    """A kernel around its middle, its weights scaled to sum to 1 and then by the magnitude."""
    height, width = weights.shape
    if max(height, width) > 2 * MAX_RADIUS + 1:
        raise ServiceError(f"{where}: kernels reach {MAX_RADIUS} pixels at most.")
    if not np.isfinite(magnitude):
        raise ServiceError(f"{where}: 'magnitude' must be finite; got {magnitude}.")
    total = np.abs(weights).sum()
    if normalize and total > 0:
        weights = weights / total
    return Kernel(weights * magnitude, (height - 1) // 2, (width - 1) // 2)


def offsets(
    x_radius: float, y_radius: float, units: str, where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of a kernel's pixels, counted from its middle; a 400 for radii that are none."""
    if units not in ("pixels", "pixel"):
        raise ServiceError(f"{where}: the emulator measures kernels in pixels; got '{units}'.")
    if not (0 <= x_radius <= MAX_RADIUS and 0 <= y_radius <= MAX_RADIUS):
        raise ServiceError(f"{where}: a radius must be between 0 and {MAX_RADIUS}; got {x_radius} and {y_radius}.")
    across, down = int(x_radius), int(y_radius)
    rows, columns = np.mgrid[-down : down + 1, -across : across + 1]
    return columns.astype(np.float64), rows.astype(np.float64)
