"""Splits: geographic blocks of about 100 km, each of which belongs to one split whole.

Blocks cut the sphere into bands of 0.9° of latitude and each band into equal columns, independent of UTM zones and
tile size. Dealing blocks in the order in which a plan reaches them keeps splits fixed when a plan is extended; which
blocks are held out, and which cells a buffer leaves out, follows from the blocks alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt
import shapely

from mmearth_data.grid import BoolArray, FloatArray
from mmearth_data.splits import SPLITS
from sampling.errors import SamplingError
from sampling.keyed import IntArray, below, key_of

BLOCK_DEGREES = 0.9
"""100.1 km of latitude, and of longitude at the equator."""
_AROUND = round(360 / BLOCK_DEGREES)
_OPENING = 3
"""Of a biome's first blocks one each goes to train, val and test."""
_LEAST_HAND = 4
_LARGEST_SHARE = 0.8
HELD_OUT_REACH_DEGREES = 0.5
"""Blocks this near a place that is held out belong to it: as far as cells off a coast count for its country."""
_LEAST_RADIUS_KM = 6335.4
"""Least radius of curvature of WGS 84: distances measured with it are never too long."""
TRAIN, VAL, TEST, HELD_OUT = (SPLITS.index(name) for name in ("train", "val", "test", "held_out"))


@dataclass(frozen=True)
class Hand:
    """How many of each so many blocks of a biome go to val and to test; the others go to train."""

    blocks: int
    val: int
    test: int


def hand_of(val_share: float, test_share: float) -> Hand:
    """The smallest hand with these shares of blocks; raises SamplingError unless they are whole per cents that fit."""
    percents = []
    for name, share in (("val", val_share), ("test", test_share)):
        percents.append(round(100 * share) if 0 <= share <= 1 else -1)
        if percents[-1] < 0 or abs(100 * share - percents[-1]) > 1e-6:
            raise SamplingError(f"the share of {name} must be whole per cents such as 0.1 or 0.15, not {share}")
    if sum(percents) > 100 * _LARGEST_SHARE:
        raise SamplingError(
            f"val and test may take {_LARGEST_SHARE} of the blocks together, not {sum(percents) / 100}; lower a share"
        )
    common = gcd(*percents, 100)
    step = max(step for step in range(1, common + 1) if not common % step and 100 // step >= _LEAST_HAND)
    return Hand(100 // step, percents[0] // step, percents[1] // step)


def blocks_at(lon: FloatArray, lat: FloatArray) -> IntArray:
    """The number of the block that holds each point in degrees, shape (n,)."""
    band = np.floor((lat + 90) / BLOCK_DEGREES).astype(np.int64)
    columns = _columns(band)
    column = np.floor((lon + 180) / 360 * columns).astype(np.int64) % columns
    number: IntArray = band * _AROUND + column
    return number


def _columns(band: IntArray) -> IntArray:
    """Blocks around the globe in each band, shape (n,)."""
    middle = (band + 0.5) * BLOCK_DEGREES - 90
    columns: IntArray = np.maximum(1, np.round(_AROUND * np.cos(np.radians(middle)))).astype(np.int64)
    return columns


def _bounds(block: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """West, south, east and north of blocks in degrees, each of shape (n,)."""
    band, column = np.divmod(block, _AROUND)
    width = 360 / _columns(band)
    west, south = column * width - 180, band * BLOCK_DEGREES - 90
    return west, south, west + width, south + BLOCK_DEGREES


def clear_of_borders(lon: FloatArray, lat: FloatArray, kilometres: float) -> BoolArray:
    """Whether each point lies at least this far inside its block, shape (n,).

    Two points of different blocks that do are twice as far apart.
    """
    west, south, east, north = _bounds(blocks_at(lon, lat))
    along = np.radians(np.minimum(lat - south, north - lat)) * _LEAST_RADIUS_KM
    turn = np.radians(np.clip(np.minimum(lon - west, east - lon), 0, 90))
    across = np.arcsin(np.cos(np.radians(lat)) * np.sin(turn)) * _LEAST_RADIUS_KM
    clear: BoolArray = np.minimum(along, across) >= kilometres
    return clear


def held_out_blocks(block: IntArray, place: npt.NDArray[np.object_]) -> BoolArray:
    """Whether each block lies within ``HELD_OUT_REACH_DEGREES`` of a place's polygons (degrees), shape (n,)."""
    numbers, which = np.unique(block, return_inverse=True)
    boxes = shapely.STRtree(shapely.box(*_bounds(numbers)))
    reached = np.zeros(len(numbers), dtype=np.bool_)
    near = boxes.query(shapely.get_parts(place), predicate="dwithin", distance=HELD_OUT_REACH_DEGREES)
    reached[near[1]] = True
    return reached[which]


def deal_splits(block: IntArray, biome: IntArray, seed: int, hand: Hand) -> IntArray:
    """The split (index into ``SPLITS``) of each location, given the blocks and biomes in the order of the plan.

    A block counts for the biome that reaches it first. Of each hand of such blocks a biome gives as many to val and
    test as ``hand`` says, from seeded places on; of its first three it gives one to each split that has a share, so
    that small plans have every biome in every split. The splits of a plan's beginning are those of the plan.
    """
    _, first, which = np.unique(block, return_index=True, return_inverse=True)
    owner = biome[first]
    order = np.lexsort((first, owner))
    start = np.searchsorted(owner[order], owner[order])
    turn = np.empty(len(first), dtype=np.int64)
    turn[order] = np.arange(len(first)) - start

    number, place = np.divmod(turn, hand.blocks)
    opening = (number == 0) & (place < _OPENING)
    rest = (number == 0) & ~opening
    spread = np.where(opening, _OPENING, hand.blocks)
    deal = owner * (1 << 40) + number
    # Numbers below a multiple of both spreads stay even after the remainder. Places count from a seeded one, which is
    # val's, and from another on, which is the first of test's; more of test and then of val follow it.
    after_val = (place - below(key_of(seed, "val"), deal, _OPENING * hand.blocks) % spread) % spread
    turned = below(key_of(seed, "test"), deal, (_OPENING - 1) * (hand.blocks - 1)) % (spread - 1)
    after_test = np.where(rest, place - _OPENING + 1, (after_val - 1 - turned) % (spread - 1))
    at_val = (after_val == 0) & ~rest
    tests = np.where(opening, min(hand.test, 1), hand.test)
    vals = np.where(opening, 0, max(hand.val - 1, 0))
    split = np.select(
        [at_val & (hand.val > 0), ~at_val & (after_test < tests), ~at_val & (after_test < tests + vals)],
        [VAL, TEST, VAL],
        default=TRAIN,
    )
    return split[which]
