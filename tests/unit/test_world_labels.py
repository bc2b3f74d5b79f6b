"""Dynamic World's labels: a scene is labelled the same alone and among the scenes that a composite reads with it."""

from __future__ import annotations

import numpy as np
import pytest

from mmearth_data.emulator.world import clouds, labels, setting
from mmearth_data.emulator.world.blocks import block
from mmearth_data.emulator.world.landcover import SNOW, WATER, ground
from mmearth_data.emulator.world.scenes import OpticalScene, Series
from mmearth_data.emulator.world.setting import World

SCENES = tuple((1_000_003 * (number + 1), round(0.47 * number, 2)) for number in range(24))
"""Two a month, all year round."""


def fresh() -> World:
    """The same Earth, of which nothing has been asked yet."""
    known = setting.world(0)
    return World(known.planet, known.biomes, known.regions)


def scene(datatake: int, month: float) -> OpticalScene:
    return OpticalScene("L1C", 1, datatake, month, 2019, 40.0, 150.0, ())


@pytest.mark.parametrize(("epsg", "row", "column"), [(32633, -4600, 350), (32633, -5600, 380), (32720, 6300, 420)])
def test_a_scene_is_labelled_the_same_alone_and_in_its_series(epsg: int, row: int, column: int) -> None:
    place, together = block(epsg, row, column), fresh()
    series = Series(SCENES)
    read = [labels.labels(together, place, scene(*own), series) for own in SCENES]
    for own, found in list(zip(SCENES, read, strict=True))[::7]:
        np.testing.assert_array_equal(found, labels.labels(fresh(), place, scene(*own), Series((own,))))


def test_labels_are_hidden_where_the_clouds_of_the_pass_are() -> None:
    world, place = fresh(), block(32633, -4600, 350)
    hidden_share = []
    for own in SCENES:
        found = labels.labels(world, place, scene(*own), Series(SCENES)) == labels.CLOUDED
        over = clouds.over(world.planet, place, *own, (0, 0)).opacity > np.float32(0.30)
        np.testing.assert_array_equal(found, np.kron(over, np.ones((2, 2), dtype=bool)))
        hidden_share.append(found.mean())
    assert min(hidden_share) < 0.1
    assert max(hidden_share) > 0.9


def test_snow_covers_the_cold_season_alone() -> None:
    world = fresh()
    rng, cold, warm = np.random.default_rng(0), 0.0, 0.0
    for _ in range(12):
        place = block(32600 + int(rng.integers(1, 61)), -int(rng.integers(4800, 5800)), int(rng.integers(250, 500)))
        land = ground(world, place)
        if (land.cover == WATER).mean() > 0.5 or (land.cover == SNOW).any():
            continue
        for month in (0.5, 7.0):
            found = labels.labels(world, place, scene(77, month), Series(((77, month),)))
            share = float((found[found != labels.CLOUDED] == 8).mean()) if (found != labels.CLOUDED).any() else 0.0
            cold, warm = (cold + share, warm) if month < 1 else (cold, warm + share)
    assert cold > 0.3
    assert warm < 0.01
