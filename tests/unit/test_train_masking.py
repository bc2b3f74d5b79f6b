"""Masks and draws: the right counts, uniform, and a function of their key alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmearth_train.masking import below, draw, split_patches, visible_count


@pytest.mark.parametrize(("patches", "visible"), [(49, 19), (25, 10), (64, 25)])
def test_visible_patches_are_four_tenths_rounded_down(patches: int, visible: int) -> None:
    assert visible_count(patches) == visible


@given(
    st.integers(0, 2**31), st.integers(-1, 10**6), st.lists(st.integers(0, 2**62), min_size=1, max_size=9, unique=True)
)
def test_visible_and_masked_patches_partition_the_grid(seed: int, epoch: int, ids: list[int]) -> None:
    visible, masked = split_patches(seed, epoch, np.array(ids), 49)
    assert visible.shape == (len(ids), 19)
    both = np.concatenate([visible, masked], axis=1)
    assert (np.sort(both, axis=1) == np.arange(49)).all()
    assert (np.diff(visible, axis=1) > 0).all()
    assert (np.diff(masked, axis=1) > 0).all()


def test_a_mask_does_not_depend_on_the_batch_it_is_drawn_in() -> None:
    ids = np.arange(1000, 1064)
    whole, _ = split_patches(3, 5, ids, 49)
    order = np.random.default_rng(0).permutation(64)
    shuffled, _ = split_patches(3, 5, ids[order], 49)
    assert (shuffled == whole[order]).all()
    assert (split_patches(3, 5, ids[7:8], 49)[0] == whole[7:8]).all()


@pytest.mark.parametrize("change", ["seed", "epoch", "location"])
def test_any_part_of_the_key_changes_the_mask(change: str) -> None:
    ids = np.arange(256)
    first, _ = split_patches(0, 0, ids, 49)
    second, _ = split_patches(int(change == "seed"), int(change == "epoch"), ids + 256 * (change == "location"), 49)
    shared = np.array([len(np.intersect1d(a, b)) for a, b in zip(first, second, strict=True)])
    expected = stats.hypergeom(49, 19, 19)
    assert abs(shared.mean() - expected.mean()) < 5 * expected.std() / 16


def test_every_patch_is_visible_equally_often() -> None:
    visible, _ = split_patches(0, 0, np.arange(20_000), 49)
    counts = np.bincount(visible.ravel(), minlength=49)
    share = 19 / 49
    assert (abs(counts - 20_000 * share) < 5 * np.sqrt(20_000 * share * (1 - share))).all()


def test_crops_are_uniform_and_independent_of_flips() -> None:
    keys = np.arange(40_000)
    corner = below(draw(0, 1, keys, "crop", 2), 9)
    flip = below(draw(0, 1, keys, "flip", 2), 2)
    for table in (
        np.histogram2d(corner[:, 0], corner[:, 1], bins=9)[0],
        np.histogram2d(corner[:, 0], flip[:, 0], bins=(9, 2))[0],
    ):
        assert stats.chisquare(table.ravel()).pvalue > 1e-4
