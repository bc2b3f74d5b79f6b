"""Noise is a pure function of place: windows agree where they overlap, and the statistics are as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from mmearth_data.emulator.world import noise


def test_upsampling_is_the_tensor_product_b_spline() -> None:
    lattice = np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32)
    rows, columns = np.arange(40, 90), np.arange(25, 70)
    wavelength, origin = 13.7, (1, 0)
    got = noise.upsample(lattice, rows, columns, wavelength, origin)

    def basis(index: np.ndarray, first: int, count: int) -> np.ndarray:
        place = (index + 0.5) / wavelength - first
        parts = [BSpline.basis_element(np.arange(k - 1.5, k + 2.0), extrapolate=False)(place) for k in range(count)]
        return np.nan_to_num(np.stack(parts, axis=1))

    expected = basis(rows, origin[0], 9) @ lattice @ basis(columns, origin[1], 8).T
    np.testing.assert_allclose(got, expected, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(-1_000_000, 1_000_000),
    column=st.integers(0, 90_000),
    inner=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60)),
    wavelength=st.sampled_from([2.6, 9.0, 42.0, 190.0, 720.0]),
)
def test_a_window_is_the_same_bits_inside_a_larger_one(
    row: int, column: int, inner: tuple[int, int, int, int], wavelength: float
) -> None:
    top, left, height, width = inner
    whole = noise.smooth(7, np.arange(row, row + 121), np.arange(column, column + 121), wavelength)
    rows, columns = np.arange(row + top, row + top + height), np.arange(column + left, column + left + width)
    part = noise.smooth(7, rows, columns, wavelength)
    np.testing.assert_array_equal(part, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("wavelength", [2.6, 9.0, 33.0])
def test_smooth_noise_has_mean_zero_and_unit_variance(wavelength: float) -> None:
    field = noise.smooth(3, np.arange(900), np.arange(900), wavelength)
    patches = (900 / wavelength) ** 2
    assert abs(field.mean()) < 6 / np.sqrt(patches)
    assert field.var() == pytest.approx(1.0, abs=max(0.05, 8 / np.sqrt(patches)))


def test_hashes_are_uniform_and_neighbours_independent() -> None:
    values = noise.uniform(noise.hash_grid(11, np.arange(-500, 500), np.arange(500))).astype(np.float64)
    counts, _ = np.histogram(values, bins=64, range=(0, 1))
    expected = values.size / 64
    # Chi-square with 63 degrees of freedom: five standard deviations.
    assert abs(((counts - expected) ** 2 / expected).sum() - 63) < 5 * np.sqrt(126)
    for a, b in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1]), (values[1:, 1:], values[:-1, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


def test_noise_in_space_is_continuous_and_has_no_seam_at_the_antimeridian() -> None:
    lat = np.linspace(-80, 80, 200)
    here = noise.space(5, noise.sphere(np.full(200, 180.0), lat), (0.3, 0.05))
    there = noise.space(5, noise.sphere(np.full(200, -180.0), lat), (0.3, 0.05))
    near = noise.space(5, noise.sphere(np.full(200, 180.0 - 1e-4), lat), (0.3, 0.05))
    np.testing.assert_allclose(here, there, atol=1e-9)
    assert np.abs(here - near).max() < 1e-3
    assert here.std(axis=0).min() > 0.3


def hashed(key: int, *indices: int) -> int:
    """The hash of a lattice point, in integers of any size."""
    state = key
    for index, factor in zip(indices, (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35), strict=False):
        state = finished((state + index * factor) % 2**32)
    return state


def finished(state: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        state = (state ^ (state >> shift)) * factor % 2**32
    return state


def bell(value: int) -> float:
    return ((value & 0xFFFF) + (value >> 16) - 65535.0) * np.sqrt(6.0) / 65536.0


def test_hashes_wrap_around_as_integers_of_32_bits_do() -> None:
    rows, columns = np.arange(-1_000_003, -999_999), np.array([0, 7, 65_536, 89_999])
    keys = np.array([3, 2**32 - 1], dtype=np.uint32)
    grids = noise.hash_grids(keys, rows, columns)
    for number, key in enumerate((3, 2**32 - 1)):
        expected = [
            [finished((((int(i) * 0x9E3779B1) % 2**32 ^ key) + int(j) * 0x85EBCA6B) % 2**32) for j in columns]
            for i in rows
        ]
        np.testing.assert_array_equal(grids[number], expected)
    white = noise.white(3, rows, np.arange(40, 45))
    np.testing.assert_array_equal(white, noise.normal(noise.hash_grid(3, rows, np.arange(40, 45))))


def test_noise_in_space_fades_between_the_corners_of_its_lattice() -> None:
    points = np.array([[0.31, -0.62, 0.72], [-0.999, 0.01, -0.04]])
    got = noise.space(9, points, (0.3, 0.05))
    for n, point in enumerate(points):
        for number, wavelength in enumerate((0.3, 0.05)):
            low = np.floor(point / wavelength)
            part = point / wavelength - low
            fade = np.stack([1 - part**2 * (3 - 2 * part), part**2 * (3 - 2 * part)])
            value = sum(
                fade[x, 0] * fade[y, 1] * fade[z, 2]
                * bell(hashed((9 + number * 0x632BE5AB) % 2**32, *(int(v) for v in np.add(low, (x, y, z)))))
                for x in (0, 1) for y in (0, 1) for z in (0, 1)
            )  # fmt: skip
            assert got[n, number] == pytest.approx(1.6 * value, abs=1e-6)


def test_a_surface_without_control_points_around_it_is_refused() -> None:
    with pytest.raises(IndexError, match="control points"):
        noise.upsample(np.zeros((4, 4), dtype=np.float32), np.arange(0, 50), np.arange(0, 20), 10.0, (0, 0))


def test_octaves_add_up_weighted_to_unit_variance() -> None:
    rows, columns = np.arange(5, 60), np.arange(900, 990)
    parts = [noise.smooth(noise.octave_key(4, number), rows, columns, w) for number, w in enumerate((30.0, 11.0, 2.5))]
    expected = (parts[0] + 0.7 * parts[1] + 0.2 * parts[2]) / np.sqrt(1 + 0.7**2 + 0.2**2)
    got = noise.fractal(4, rows, columns, ((30.0, 1.0), (11.0, 0.7), (2.5, 0.2)))
    np.testing.assert_allclose(got, expected, atol=1e-6)
