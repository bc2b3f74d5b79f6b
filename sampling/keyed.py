"""Pseudo-random numbers and orders that follow from a key alone, not from how many are drawn or when.

NumPy promises no stable streams across its versions (NEP 19), and a stream has to be drawn in order; here any element
can be had by its index, so a longer plan begins with the shorter one. The mixer is SplitMix64's finaliser (Steele,
Lea and Flood 2014); the permutation a Feistel network over a rectangle (Black and Rogaway 2002, section 4).
"""

from __future__ import annotations

import hashlib
from math import isqrt

import numpy as np
import numpy.typing as npt

KeyedArray = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]

_ROUNDS = 6


def key_of(seed: int, *words: str) -> int:
    """A 64-bit key for a purpose named by words under a seed."""
    text = "\x1f".join((str(seed), *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(key: int, values: IntArray) -> KeyedArray:
    """One uniform 64-bit number per value, same shape as ``values``; equal values under equal keys are equal."""
    z = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def below(key: int, values: IntArray, bound: int) -> IntArray:
    """One number in [0, bound) per value; the bias of the remainder is under bound / 2^64."""
    return (mix(key, values) % np.uint64(bound)).astype(np.int64)


def permuted(key: int, index: IntArray, size: int) -> IntArray:
    """Where a keyed permutation of range(size) sends each index in [0, size).

    The network permutes a rectangle that holds at least ``size`` points; what lands beyond ``size`` is sent on until
    it lands within (cycle walking), which keeps the map one to one.
    """
    wide = isqrt(size - 1) + 1
    high = -(-size // wide)
    keys = [key_of(key, "round", str(number)) for number in range(_ROUNDS)]
    result = index.astype(np.int64)
    outside = np.arange(len(result))
    while len(outside):
        left, right = np.divmod(result[outside], wide)
        for number, round_key in enumerate(keys):
            if number % 2:
                left = (left + below(round_key, right, high)) % high
            else:
                right = (right + below(round_key, left, wide)) % wide
        result[outside] = left * wide + right
        outside = outside[result[outside] >= size]
    return result
