"""Footprints of scenes are shared by all requests, so no request may leave a trace on them."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from mmearth_data.emulator.frames import Frames, PixelGrid


@pytest.mark.parametrize("size", [1, 8])
def test_asking_what_a_footprint_covers_does_not_prepare_it_for_other_threads(size: int) -> None:
    """GEOS builds the index of a prepared geometry at its first use, without a lock: two threads crash."""
    footprint = shapely.box(9.0, 45.0, 10.0, 46.0)
    grid = PixelGrid("EPSG:4326", (1 / size, 0.0, 9.5, 0.0, -1 / size, 45.9), size, size)
    covered = Frames().covered(footprint, grid)
    x = 9.5 + (np.arange(size) + 0.5) / size
    y = 45.9 - (np.arange(size) + 0.5) / size
    expected = ((x > 9.0) & (x < 10.0))[None, :] & ((y > 45.0) & (y < 46.0))[:, None]
    np.testing.assert_array_equal(np.broadcast_to(covered, (size, size)), expected)
    assert not shapely.is_prepared(footprint)
