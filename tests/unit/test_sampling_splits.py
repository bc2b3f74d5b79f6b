from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from sampling.errors import SamplingError
from sampling.splits import TEST, TRAIN, VAL, Hand, blocks_at, clear_of_borders, deal_splits, hand_of, held_out_blocks

WGS84 = Geod(ellps="WGS84")
TENTHS = Hand(10, 1, 1)

shares = st.integers(0, 40).map(lambda percent: percent / 100)
hands = st.builds(hand_of, shares, shares)
places = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), min_size=1, max_size=300)


def arrays(place: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    block, biome = np.array(place).T
    return block, biome


@given(places, st.integers(0, 5), hands)
def test_a_block_is_never_mixed(place: list[tuple[int, int]], seed: int, hand: Hand) -> None:
    block, biome = arrays(place)
    split = deal_splits(block, biome, seed, hand)
    for number in set(block):
        assert len(set(split[block == number])) == 1


@given(places, st.integers(0, 5), hands, st.data())
def test_the_splits_of_a_beginning_are_those_of_the_whole(
    place: list[tuple[int, int]], seed: int, hand: Hand, data: st.DataObject
) -> None:
    block, biome = arrays(place)
    end = data.draw(st.integers(1, len(block)))
    assert (deal_splits(block[:end], biome[:end], seed, hand) == deal_splits(block, biome, seed, hand)[:end]).all()


@given(places, st.integers(0, 5), hands)
def test_a_biome_that_reaches_three_blocks_first_is_in_every_split(
    place: list[tuple[int, int]], seed: int, hand: Hand
) -> None:
    block, biome = arrays(place)
    split = deal_splits(block, biome, seed, hand)
    reached: dict[int, int] = {}
    for number, who in place:
        reached.setdefault(number, who)
    for who in set(biome):
        if sum(first == who for first in reached.values()) >= 3:
            wanted = {TRAIN} | ({VAL} if hand.val else set()) | ({TEST} if hand.test else set())
            assert set(split[biome == who]) == wanted


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eight_of_ten_blocks_train(seed: int) -> None:
    block = np.arange(1000)
    split = deal_splits(block, np.zeros(1000, dtype=np.int64), seed, TENTHS)
    for hand in split.reshape(100, 10):
        assert np.bincount(hand, minlength=3).tolist() == [8, 1, 1]
    places = np.argmax(split.reshape(100, 10)[1:] == VAL, axis=1)
    assert set(places) == set(range(10))


def test_another_seed_deals_otherwise() -> None:
    block = np.arange(1000)
    one, other = (deal_splits(block, block % 14, seed, TENTHS) for seed in (0, 1))
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


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3))
def test_every_hand_but_the_first_has_the_shares_that_were_asked_for(val: int, test: int, seed: int) -> None:
    hand = hand_of(val / 100, test / 100)
    split = deal_splits(np.arange(8 * hand.blocks), np.zeros(8 * hand.blocks, dtype=np.int64), seed, hand)
    for dealt in split.reshape(8, hand.blocks)[1:]:
        counts = np.bincount(dealt, minlength=3)
        assert counts[VAL] * 100 == val * hand.blocks
        assert counts[TEST] * 100 == test * hand.blocks


@pytest.mark.parametrize(
    ("val", "test", "says"),
    [
        (0.125, 0.1, "val must be whole per cents"),
        (0.1, -0.1, "test must be whole"),
        (0.5, 0.4, "together, not 0.9"),
        (float("nan"), 0.1, "val must be whole"),
        (0.1, float("inf"), "test must be whole"),
    ],
)
def test_shares_that_make_no_sense_are_refused_in_one_line(val: float, test: float, says: str) -> None:
    with pytest.raises(SamplingError, match=says) as caught:
        hand_of(val, test)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kilometres", [1.0, 5.0, 20.0])
def test_points_clear_of_borders_are_twice_as_far_from_points_of_other_blocks(kilometres: float) -> None:
    """Against geodesics on the ellipsoid, between close pairs of points that lie in different blocks."""
    draw = np.random.default_rng(0)
    lon, lat = draw.uniform(-180, 180, 400_000), np.degrees(np.arcsin(draw.uniform(-0.83, 0.99, 400_000)))
    reach = 3 * kilometres / 111
    other_lat = lat + draw.uniform(-reach, reach, len(lat))
    other_lon = (lon + draw.uniform(-reach, reach, len(lat)) / np.cos(np.radians(lat)) + 180) % 360 - 180
    clear = clear_of_borders(lon, lat, kilometres) & clear_of_borders(other_lon, other_lat, kilometres)
    apart = blocks_at(lon, lat) != blocks_at(other_lon, other_lat)
    _, _, metres = WGS84.inv(lon, lat, other_lon, other_lat)
    assert metres[clear & apart].min() >= 2000 * kilometres
    assert metres[clear & apart].min() < 2000 * kilometres * 1.15
    assert metres[apart].min() < 200 * kilometres
    assert 0 < clear[metres < 1000 * kilometres].mean() < 1


def test_blocks_near_a_place_are_held_out_whole() -> None:
    """Against distances from the points of each block to the place, looked for in all the blocks around."""
    place = shapely.Polygon([(10.2, 40.1), (14.9, 41.3), (12.0, 44.8)])
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.arange(5, 20, 0.05), np.arange(35, 50, 0.05)))
    block = blocks_at(lon, lat)
    held = held_out_blocks(block, np.array([place], dtype=object))
    near = shapely.distance(shapely.points(lon, lat), place)
    nearest = {number: near[block == number].min() for number in np.unique(block)}
    for number, distance in nearest.items():
        assert len(set(held[block == number])) == 1
        if distance < 0.5:
            assert held[block == number].all()
        elif distance > 0.58:  # half a degree and the diagonal between the points
            assert not held[block == number].any()
    assert held[near < 0.5].all()
