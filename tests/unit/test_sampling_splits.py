from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from sampling.splits import TEST, TRAIN, VAL, blocks_at, deal_splits

WGS84 = Geod(ellps="WGS84")

places = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), min_size=1, max_size=300)


def arrays(place: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    block, biome = np.array(place).T
    return block, biome


@given(places, st.integers(0, 5))
def test_a_block_is_never_mixed(place: list[tuple[int, int]], seed: int) -> None:
    block, biome = arrays(place)
    split = deal_splits(block, biome, seed)
    for number in set(block):
        assert len(set(split[block == number])) == 1


@given(places, st.integers(0, 5), st.data())
def test_the_splits_of_a_beginning_are_those_of_the_whole(
    place: list[tuple[int, int]], seed: int, data: st.DataObject
) -> None:
    block, biome = arrays(place)
    end = data.draw(st.integers(1, len(block)))
    assert (deal_splits(block[:end], biome[:end], seed) == deal_splits(block, biome, seed)[:end]).all()


@given(places, st.integers(0, 5))
def test_a_biome_that_reaches_three_blocks_first_is_in_every_split(place: list[tuple[int, int]], seed: int) -> None:
    block, biome = arrays(place)
    split = deal_splits(block, biome, seed)
    reached: dict[int, int] = {}
    for number, who in place:
        reached.setdefault(number, who)
    for who in set(biome):
        if sum(first == who for first in reached.values()) >= 3:
            assert set(split[biome == who]) == {TRAIN, VAL, TEST}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eight_of_ten_blocks_train(seed: int) -> None:
    block = np.arange(1000)
    split = deal_splits(block, np.zeros(1000, dtype=np.int64), seed)
    for hand in split.reshape(100, 10):
        assert np.bincount(hand, minlength=3).tolist() == [8, 1, 1]
    places = np.argmax(split.reshape(100, 10)[1:] == VAL, axis=1)
    assert set(places) == set(range(10))


def test_another_seed_deals_otherwise() -> None:
    block = np.arange(1000)
    one, other = (deal_splits(block, block % 14, seed) for seed in (0, 1))
    assert 0.6 < (one == other).mean() < 0.75  # 0.66 of two independent deals agree


def test_blocks_measure_about_a_hundred_kilometres() -> None:
    """A band's area over how many blocks a million even points meet there, near the equator and near the pole alike."""
    draw = np.random.default_rng(0)
    for low, high in ((-2, 2), (40, 45), (70, 80)):
        z = np.sin(np.radians([low, high]))
        lon, lat = draw.uniform(-180, 180, 10**6), np.degrees(np.arcsin(draw.uniform(*z, 10**6)))
        area = 2 * np.pi * 6371.0072**2 * (z[1] - z[0])
        assert 85 < np.sqrt(area / len(np.unique(blocks_at(lon, lat)))) < 105


def test_places_of_one_block_are_near_each_other() -> None:
    draw = np.random.default_rng(0)
    lon, lat = draw.uniform(-180, 180, 20000), draw.uniform(-56, 82.8, 20000)
    near_lon = (lon + draw.uniform(-20, 20, 20000) + 180) % 360 - 180
    near_lat = np.clip(lat + draw.uniform(-2, 2, 20000), -56, 82.8)
    same = blocks_at(lon, lat) == blocks_at(near_lon, near_lat)
    _, _, metres = WGS84.inv(lon[same], lat[same], near_lon[same], near_lat[same])
    assert same.sum() > 50
    assert metres.max() < 150_000


def test_the_antimeridian_is_no_place_of_its_own() -> None:
    assert blocks_at(np.array([180.0]), np.array([10.0])) == blocks_at(np.array([-180.0]), np.array([10.0]))
