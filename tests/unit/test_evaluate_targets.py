"""Targets and band means are what loops over pixels give, and use only pixels with data."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from mmearth_data.modalities import BIOME_NAMES, MODALITIES, MODEL_INPUT_BANDS, STORED, WORLDCOVER_CLASSES
from mmearth_train.evaluate.gather import BandMeans, centre_crop
from mmearth_train.evaluate.targets import TARGETS, MissingModalityError, UnknownTargetError, choose, scored_outputs

CODES = [value for value, _ in WORLDCOVER_CLASSES]


def test_land_cover_is_counted_over_valid_pixels() -> None:
    rng = np.random.default_rng(0)
    stored = rng.choice([0, *CODES], size=(40, 1, 8, 8), p=[0.45, *[0.05] * 11]).astype(np.uint8)
    majority, valid = TARGETS["worldcover_class"].compute(stored)
    fractions, also_valid = TARGETS["worldcover_fractions"].compute(stored)
    assert 0 < valid.sum() < 40
    np.testing.assert_array_equal(valid, also_valid)
    for tile, commonest, row, ok in zip(stored, majority, fractions, valid, strict=True):
        counts = Counter(int(pixel) for pixel in tile.ravel() if pixel)
        total = sum(counts.values())
        assert ok == (total >= 32)
        assert row.tolist() == pytest.approx([counts[code] / total for code in CODES])
        assert CODES[commonest] == min(code for code in CODES if counts[code] == max(counts.values()))


def test_canopy_height_is_the_mean_in_metres_over_pixels_with_an_estimate() -> None:
    stored = np.full((3, 2, 4, 4), 255, dtype=np.uint8)
    stored[0, 0] = 30
    stored[1, 0, :2] = 10
    stored[1, 0, 0, 0] = 26
    stored[2, 0, 0, :3] = 12
    height, valid = TARGETS["canopy_height"].compute(stored)
    assert valid.tolist() == [True, True, False]
    assert height[:2, 0].tolist() == [30.0, (7 * 10 + 26) / 8]


def test_water_and_roofs_are_shares_over_valid_pixels() -> None:
    rng = np.random.default_rng(3)
    occurrence = rng.integers(0, 101, size=(30, 2, 6, 6)).astype(np.uint8)
    occurrence[:5] = 0
    occurrence[0, 0, 0, 0] = 35
    occurrence[1, 0, 0, 0] = 37
    share, _ = TARGETS["water_share"].compute(occurrence)
    present, _ = TARGETS["water_present"].compute(occurrence)
    for tile, value, there in zip(occurrence, share, present, strict=True):
        expected = sum(int(v) for v in tile[0].ravel()) / 3600
        assert value[0] == pytest.approx(expected)
        assert there == (expected >= 0.01)
    assert present[:2].tolist() == [0, 1]

    surface = rng.integers(0, 10_001, size=(30, 2, 6, 6)).astype(np.uint16)
    surface[rng.random(surface.shape) < 0.5] = 65535
    share, valid = TARGETS["built_share"].compute(surface)
    present, also_valid = TARGETS["built_present"].compute(surface)
    assert 0 < valid.sum() < 30
    assert (valid == also_valid).all()
    for tile, value, ok in zip(surface, share, valid, strict=True):
        known = [int(v) for v in tile[0].ravel() if v != 65535]
        assert ok == (len(known) >= 18)
        assert value[0] == pytest.approx(sum(known) / len(known) / 10_000)
    assert present.tolist() == [1] * 30
    surface[:] = 0
    surface[:3, 0, 0, 0] = 179, 180, 181  # 36 cells: 5 m² in 10,000 are 180 m² in one of them
    assert TARGETS["built_present"].compute(surface)[0].tolist() == [0, 1, 1] + [0] * 27


def test_biome_is_the_stored_class_and_an_unknown_one_takes_no_part() -> None:
    values, valid = TARGETS["biome"].compute(np.array([[3], [255], [13]], dtype=np.uint8))
    assert valid.tolist() == [True, False, True]
    assert [BIOME_NAMES[value] for value in values[valid]] == [BIOME_NAMES[3], BIOME_NAMES[13]]


@pytest.mark.parametrize(
    ("target", "pretext", "seen"),
    [
        ("worldcover_class", ("sentinel2", "esa_worldcover"), True),
        ("worldcover_fractions", ("dynamic_world",), True),
        ("biome", ("eco_region",), True),
        ("biome", ("sentinel2", "esa_worldcover", "canopy_height_eth"), False),
        ("canopy_height", ("canopy_height_eth",), True),
        ("canopy_height", (), False),
        ("water_share", ("sentinel2", "biome", "era5"), False),
        ("built_present", ("sentinel2", "esa_worldcover"), True),
    ],
)
def test_a_target_is_seen_when_a_pretext_task_held_it(target: str, pretext: tuple[str, ...], seen: bool) -> None:
    assert TARGETS[target].seen(pretext) is seen


def test_pretext_tasks_that_give_targets_away_exist() -> None:
    for target in TARGETS.values():
        # What is only asked downstream is nobody's pretext task; everything else gives itself away.
        assert (target.modality in target.given_away_by) == MODALITIES[target.modality].pretext
        assert all(MODALITIES[name].pretext for name in target.given_away_by)


def test_no_task_means_all_and_an_unknown_one_lists_them() -> None:
    assert [target.name for target in choose((), MODALITIES)] == list(TARGETS)
    assert [target.name for target in choose(("biome", "canopy_height", "biome"), MODALITIES)] == [
        "biome", "canopy_height",
    ]  # fmt: skip
    with pytest.raises(UnknownTargetError, match=r"unknown task 'soil'; choose from: .*canopy_height") as error:
        choose(("biome", "soil"), MODALITIES)
    assert "\n" not in str(error.value)


def test_a_store_is_asked_for_what_it_holds() -> None:
    usual = [modality.name for modality in STORED]
    assert [target.name for target in choose((), usual)] == [
        "worldcover_class", "worldcover_fractions", "biome", "canopy_height",
    ]  # fmt: skip
    with pytest.raises(MissingModalityError, match=r"needs ghsl_built_surface.*--downstream ghsl_built_surface"):
        choose(("biome", "built_share"), usual)


def test_a_fraction_is_scored_when_its_class_occurs_in_ten_blocks() -> None:
    block = np.repeat(np.arange(12), 3)
    fractions = np.zeros((36, 4))
    fractions[:, 0] = 0.5
    fractions[:27, 1] = 0.5
    fractions[::3, 2] = 0.009
    fractions[:30:3, 3] = 0.01
    assert scored_outputs(fractions, block).tolist() == [True, False, False, True]


def test_band_means_are_numpys_over_valid_pixels_in_units_of_the_level() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(1, 9000, size=(6, 12, 10, 10)).astype(np.uint16)
    images[rng.random(images.shape) < 0.2] = 0
    images[4, 5] = 0
    level = np.array([0, 1, 1, 0, 1, 0], dtype=np.uint8)
    mean, std = rng.uniform(500, 3000, (2, 12)), rng.uniform(200, 900, (2, 12))
    encoder = BandMeans(MODEL_INPUT_BANDS, torch.from_numpy(mean), torch.from_numpy(std))
    found = encoder.features(torch.from_numpy(images), torch.from_numpy(level)).numpy()
    assert found.shape == (6, 24)
    for image, of_level, row in zip(images, level, found, strict=True):
        for band, pixels in enumerate(image):
            valid = pixels[pixels > 0].astype(np.float64)
            expected = (0.0, 0.0)
            if len(valid):
                expected = ((valid.mean() - mean[of_level, band]) / std[of_level, band],
                            valid.std() / std[of_level, band])  # fmt: skip
            assert (row[band], row[12 + band]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("pixels", "size", "first"), [(64, 56, 4), (128, 112, 8), (9, 4, 2)])
def test_the_crop_is_central(pixels: int, size: int, first: int) -> None:
    tile = np.arange(pixels**2).reshape(1, 1, pixels, pixels)
    cropped = centre_crop(tile, size)
    assert cropped.shape == (1, 1, size, size)
    assert cropped[0, 0, 0, 0] == first * pixels + first
