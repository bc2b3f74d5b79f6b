from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmearth_data.latitudes import BANDS, bands_at, parallel


def test_parallels_are_named_by_hemisphere() -> None:
    assert [parallel(degrees) for degrees in (-55.6, -10, 0, 82.8)] == ["56°S", "10°S", "0°", "83°N"]


@given(st.floats(-90, 90, allow_subnormal=False))
def test_a_latitude_lies_between_the_parallels_that_its_band_names(lat: float) -> None:
    name = BANDS[int(bands_at(np.array([lat]))[0])]
    south, north = (float(text.rstrip("°NS")) * (-1 if text.endswith("S") else 1) for text in name.split(" to "))
    assert north - south == 10
    assert south <= lat < north or lat == north == 90
