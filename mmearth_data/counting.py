"""How often each integer occurs in every band of every part of a store, counted as its tiles are decoded.

A table has a place for each bit pattern of a dtype, so counts are exact and may be added up in any order: every thread
has tables of its own for the whole pass, and their sum is the same whatever the threads did. Bands that are absent,
masks and maps of classes are runs of one value: a block of such is counted at once, which also spares the processor the
wait for the count before at the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import Modality

_BLOCK = 64
"""Values that are compared with each other before they are counted one by one: two vectors of 16-bit numbers."""

_Count = Callable[[NDArray[Any], NDArray[np.int64], NDArray[np.int64]], None]


def count_one_by_one(patterns: NDArray[Any], part: NDArray[np.int64], tables: NDArray[np.int64]) -> None:
    """Add unsigned ``patterns`` (rows, bands, pixels) to ``tables[part[row], band]``; rows of part −1 do not count."""
    pixels = patterns.shape[2]
    whole = pixels // _BLOCK * _BLOCK
    for row in range(len(patterns)):
        if part[row] < 0:
            continue
        for band in range(patterns.shape[1]):
            values, table = patterns[row, band], tables[part[row], band]
            for start in range(0, whole, _BLOCK):
                first = values[start]
                different = first ^ first
                for at in range(_BLOCK):
                    different |= values[start + at] ^ first
                if different == 0:
                    table[first] += _BLOCK
                else:
                    for at in range(_BLOCK):
                        table[values[start + at]] += 1
            for at in range(whole, pixels):
                table[values[at]] += 1


def count_by_numpy(patterns: NDArray[Any], part: NDArray[np.int64], tables: NDArray[np.int64]) -> None:
    """What ``count_one_by_one`` does, band by band in NumPy, which makes 64-bit numbers of all values first."""
    for row in np.flatnonzero(part >= 0):
        for table, values in zip(tables[part[row]], patterns[row], strict=True):
            if (values == values[0]).all():
                table[values[0]] += values.size
            else:
                found = np.bincount(values)
                table[: found.size] += found


@cache
def _counting() -> _Count:
    """The faster of the two: numba compiles one, once per dtype, and keeps it on disk where it can.

    Not every machine has numba, or one for the numpy that it has.
    """
    try:
        from mmearth_data.compiled import compiled
    except ImportError:
        return count_by_numpy
    return compiled(count_one_by_one)


class Counter:
    """Counts of integer modalities over a pass; safe to use from several threads.

    ``parts`` says how many parts the rows of each modality are divided into. A thread's tables take 512 KiB per part
    and band of 16 bits, of which memory is used where values occur.
    """

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._parts = dict(parts)
        self._tables: dict[str, list[NDArray[np.int64]]] = {name: [] for name in parts}
        self._free: dict[str, list[NDArray[np.int64]]] = {name: [] for name in parts}

    def _make(self, modality: Modality) -> NDArray[np.int64]:
        values = 1 << 8 * modality.numpy_dtype.itemsize
        tables = np.zeros((self._parts[modality.name], len(modality.bands), values), dtype=np.int64)
        self._tables[modality.name].append(tables)
        return tables

    def add(self, modality: Modality, tiles: NDArray[Any], part: NDArray[np.int64]) -> None:
        """Count ``tiles``, (rows, bands, …) as stored and C-contiguous, each in its ``part``; −1 for in none."""
        if part.max(initial=-1) >= self._parts[modality.name]:
            raise IndexError(f"parts of {modality.name} end at {self._parts[modality.name] - 1}, not {part.max()}")
        free = self._free[modality.name]
        try:
            tables = free.pop()
        except IndexError:
            tables = self._make(modality)
        shape = (*tiles.shape[:2], math.prod(tiles.shape[2:]))
        _counting()(tiles.view(f"u{tiles.itemsize}").reshape(shape), part, tables)
        free.append(tables)

    def counts(self, modality: Modality, part: int) -> NDArray[np.int64]:
        """How often each value was seen in a part, (bands, values) from the dtype's least value on."""
        bits = 8 * modality.numpy_dtype.itemsize
        total = np.zeros((len(modality.bands), 1 << bits), dtype=np.int64)
        for tables in self._tables[modality.name]:
            total += tables[part]
        # Two's complement puts negative numbers after positive ones.
        return np.roll(total, 1 << (bits - 1), axis=1) if modality.numpy_dtype.kind == "i" else total
