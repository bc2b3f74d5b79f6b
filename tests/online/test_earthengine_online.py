"""The real Earth Engine: twenty tiles of our export against the project named in MMEARTH_PROJECT; skipped without one.

Run with ``MMEARTH_PROJECT=my-project python -m pytest tests/online`` after ``earthengine authenticate``.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from mmearth_data import checks, grid
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.modalities import MODALITIES
from mmearth_data.source import Location

PLACES = np.array([(lon, lat) for lon in (-100.0, -60.0, 9.0, 25.0, 140.0) for lat in (-25.0, -10.0, 40.0, 60.0)])


@pytest.fixture(scope="module")
def source() -> EarthEngineSource:
    project = os.environ.get("MMEARTH_PROJECT")
    if not project:
        pytest.skip("MMEARTH_PROJECT names no Google Cloud project with Earth Engine")
    return connect(project)


def test_places_resolve_in_two_requests_and_their_tiles_pass_the_checks(source: EarthEngineSource) -> None:
    ids = grid.cells_at(PLACES[:, 0], PLACES[:, 1])
    before = source.requests
    resolved = source.resolve([Location(int(i), 2017 + k % 4) for k, i in enumerate(ids)])
    assert source.requests - before == 2
    assert any(entry.acquisitions for entry in resolved)
    for entry in resolved:
        for acquisition in entry.acquisitions[:1]:
            tile = source.fetch(acquisition)
            checks.check_content(tile)
            present = {name for name, pixels in tile.pixels.items() if MODALITIES[name].valid(pixels).any()}
            assert present | set(tile.absent) == set(tile.pixels)
            assert {"sentinel2", "esa_worldcover"} <= present
