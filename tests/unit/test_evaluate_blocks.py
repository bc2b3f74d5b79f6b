"""Blocks are of one area, folds never split one, bootstrap intervals match closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmearth_train.evaluate.blocks import assign_folds, block_ids, interval, resample, sum_by_block


@pytest.fixture(scope="module")
def sphere() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = 2_000_000
    return rng.uniform(-180, 180, points), np.degrees(np.arcsin(rng.uniform(-1, 1, points)))


def test_points_spread_evenly_on_the_sphere_fill_blocks_evenly(sphere: tuple[np.ndarray, np.ndarray]) -> None:
    lon, lat = sphere
    block = block_ids(lon, lat)
    count = np.unique(block, return_counts=True)[1]
    expected = len(lon) * 100.0**2 / (4 * np.pi * 6371.007**2)
    assert len(count) == pytest.approx(4 * np.pi * 6371.007**2 / 100.0**2, rel=0.01)
    # Poisson scatter of about 39 points a block, and next to nothing from unequal areas.
    assert count.mean() == pytest.approx(expected, rel=0.01)
    assert count.var() == pytest.approx(expected, rel=0.05)


def test_tiles_of_one_block_lie_within_its_diagonal(sphere: tuple[np.ndarray, np.ndarray]) -> None:
    lon, lat = (axis[:200_000] for axis in sphere)
    kept = np.abs(lat) < 82.8
    lon, lat = lon[kept], lat[kept]
    block = block_ids(lon, lat)
    lon_r, lat_r = np.radians(lon), np.radians(lat)
    unit = np.stack([np.cos(lat_r) * np.cos(lon_r), np.cos(lat_r) * np.sin(lon_r), np.sin(lat_r)], axis=1)
    order = np.argsort(block, kind="stable")
    same = block[order][1:] == block[order][:-1]
    chord = np.linalg.norm(unit[order][1:] - unit[order][:-1], axis=1)[same]
    # A block near 82.8° is wider at its southern edge than on average: 125 km with the rounding of its columns.
    assert 2 * np.arcsin(chord.max() / 2) * 6371 < np.hypot(101, 125)


@pytest.mark.parametrize(("lon", "lat"), [(180.0, 10.0), (-180.0, 10.0), (0.0, 90.0), (0.0, -90.0), (359.9, 44.5)])
def test_the_edges_of_the_map_have_a_block(lon: float, lat: float) -> None:
    inside = block_ids([(lon + 180) % 360 - 180 + 1e-9], [lat - np.sign(lat) * 1e-9])
    assert block_ids([lon], [lat]) == inside


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300), st.integers(0, 5), st.integers(2, 6))
def test_a_block_is_never_split_between_folds(blocks: list[int], seed: int, folds: int) -> None:
    block = np.array(blocks)
    fold = assign_folds(block, seed, folds)
    for one in np.unique(block):
        assert len(np.unique(fold[block == one])) == 1
    assert set(np.unique(fold)) <= set(range(folds))
    if len(np.unique(block)) >= folds:
        assert len(np.unique(fold)) == folds


def test_folds_are_even_and_change_with_the_seed() -> None:
    block = np.random.default_rng(1).integers(0, 200, 1000)
    first, again, other = assign_folds(block, 0), assign_folds(block, 0), assign_folds(block, 1)
    assert (first == again).all()
    assert (first != other).any()
    sizes = np.bincount(first)
    assert sizes.max() - sizes.min() <= np.bincount(block).max()


def test_the_interval_of_a_mean_matches_the_normal_one() -> None:
    rng = np.random.default_rng(2)
    value = rng.exponential(3.0, 4000)
    sums = np.stack([value, np.ones_like(value)], axis=1)
    drawn = resample(sums, replicates=4000)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    half = 1.96 * value.std() / np.sqrt(len(value))
    assert low == pytest.approx(value.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(value.mean() + half, abs=0.08 * half)


def test_tiles_that_agree_within_a_block_count_as_one_observation() -> None:
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(400), 25)
    right = (rng.random(400) < 0.3).astype(float)[block]
    sums = sum_by_block(np.stack([right, np.ones_like(right)], axis=1), block)
    drawn = resample(sums, replicates=4000)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    p = right.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 400), rel=0.08)


def test_sums_by_block_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(4)
    values, block = rng.normal(size=(50, 3)), rng.integers(-5, 5, 50)
    expected = [sum(values[i] for i in np.flatnonzero(block == one)) for one in sorted(set(block.tolist()))]
    np.testing.assert_allclose(sum_by_block(values, block), np.array(expected), atol=1e-12)
