"""Values in another type are those of exact numbers, cut off towards zero and clamped to the type's range."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmearth_data.emulator.bands import cast

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32")


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("given", ["float32", "float64"])
def test_floats_around_the_ends_of_a_type_are_clamped_to_them(given: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    for end in (limits.min, limits.max):
        near = np.array([end, end - 1, end + 1, end / 2], dtype=given)
        steps = np.nextafter(near, np.array([-np.inf, np.inf], dtype=given)[:, None])
        for number in (*near, *steps.ravel()):
            found = int(cast(np.array([number]), dtype)[0])
            assert found == min(max(math.trunc(float(number)), limits.min), limits.max)
