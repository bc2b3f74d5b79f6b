"""Pixels of any projection find the same ground: positions against pyproj, windows against each other."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world import blocks, frames
from mmearth_data.emulator.world.blocks import Block


@pytest.mark.parametrize(
    ("epsg", "transform", "row", "column"),
    [
        (4326, (1 / 12000, 0.0, -180.0, 0.0, -1 / 12000, 84.0), 40_000, 2_265_000),
        (4326, (1 / 12000, 0.0, -180.0, 0.0, -1 / 12000, 84.0), 1_008_000, 1_000_000),
        (4326, (1 / 3600, 0.0, -180.0, 0.0, -1 / 3600, 83.0), 130_000, 700_000),
        (32633, (10.0, 0.0, 120_000.0, 0.0, -10.0, 9_100_000.0), 0, 0),
        (32733, (20.0, 0.0, 300_000.0, 0.0, -20.0, 4_200_000.0), 10, 30),
    ],
)
def test_positions_are_exact_to_a_tenth_of_a_metre(
    epsg: int, transform: tuple[float, float, float, float, float, float], row: int, column: int
) -> None:
    height, width = 140, 150
    patches = frames.locate(epsg, transform, row, column, height, width)
    x = transform[2] + transform[0] * (column + np.arange(width) + 0.5)
    y = transform[5] + transform[4] * (row + np.arange(height) + 0.5)
    x, y = np.meshgrid(x, y)
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
    covered = np.zeros((height, width), dtype=int)
    for patch in patches:
        inside = np.ones((height, width), dtype=bool) if patch.inside is None else patch.inside
        covered += inside
        east, north = Transformer.from_crs(4326, patch.epsg, always_xy=True).transform(lon, lat)
        error = np.hypot(patch.columns * 10.0 - east, -patch.rows * 10.0 - north)[inside]
        assert error.max() < 0.1
        assert (frames.frame_of(lon, lat)[inside] == patch.epsg).mean() > 0.999
    assert (covered == 1).all()


def _ramp(block: Block) -> np.ndarray:
    """Absolute pixel index as a value: any window's content is known in closed form."""
    return block.rows()[:, None] * 100_000 + block.columns()[None, :]


@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (40, 333), (300, 7)])
def test_windows_are_put_together_without_seams(shape: tuple[int, int]) -> None:
    grid = NativeGrid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
    got = blocks.window(grid, 1, 77, -310, *shape, _ramp)
    rows, columns = -500_000 + 77 + np.arange(shape[0]), 50_000 - 310 + np.arange(shape[1])
    np.testing.assert_array_equal(got, rows[:, None] * 100_000 + columns[None, :])
