"""Splits: geographic blocks of about 100 km, each of which belongs to one split whole.

Blocks cut the sphere into bands of 0.9° of latitude and each band into equal columns, independent of UTM zones and
tile size. Dealing blocks in the order in which a plan reaches them keeps splits fixed when a plan is extended.
"""

from __future__ import annotations

import numpy as np

from mmearth_data.grid import FloatArray
from mmearth_data.splits import SPLITS
from sampling.keyed import IntArray, below, key_of

BLOCK_DEGREES = 0.9
"""100.1 km of latitude, and of longitude at the equator."""
_AROUND = round(360 / BLOCK_DEGREES)
_HAND = 10
"""Blocks of a biome are dealt by tens: eight to train, one to val, one to test."""
TRAIN, VAL, TEST = (SPLITS.index(name) for name in ("train", "val", "test"))


def blocks_at(lon: FloatArray, lat: FloatArray) -> IntArray:
    """The number of the block that holds each point in degrees, shape (n,)."""
    band = np.floor((lat + 90) / BLOCK_DEGREES).astype(np.int64)
    middle = (band + 0.5) * BLOCK_DEGREES - 90
    columns = np.maximum(1, np.round(_AROUND * np.cos(np.radians(middle)))).astype(np.int64)
    column = np.floor((lon + 180) / 360 * columns).astype(np.int64) % columns
    number: IntArray = band * _AROUND + column
    return number


def deal_splits(block: IntArray, biome: IntArray, seed: int) -> IntArray:
    """The split (index into ``SPLITS``) of each location, given the blocks and biomes in the order of the plan.

    A block counts for the biome that reaches it first. Of each ten such blocks a biome gives one to val and one to
    test at seeded places; of its first three it gives one to each split, so that small plans have every biome in
    every split. The splits of a plan's beginning are those of the plan.
    """
    _, first, which = np.unique(block, return_index=True, return_inverse=True)
    owner = biome[first]
    order = np.lexsort((first, owner))
    start = np.searchsorted(owner[order], owner[order])
    turn = np.empty(len(first), dtype=np.int64)
    turn[order] = np.arange(len(first)) - start

    hand, place = np.divmod(turn, _HAND)
    spread = np.where(hand == 0, 3, _HAND)
    deal = owner * (1 << 40) + hand
    # Numbers below a multiple of both spreads stay even after the remainder; test never falls on val.
    val = below(key_of(seed, "val"), deal, 3 * _HAND) % spread
    test = (val + 1 + below(key_of(seed, "test"), deal, 2 * (_HAND - 1)) % (spread - 1)) % spread
    split = np.select([place == val, place == test], [VAL, TEST], default=TRAIN)
    return split[which]
