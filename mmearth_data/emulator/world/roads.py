"""Roads: from town to town and from village to village, as far as enough people live along them.

A settlement is linked to its neighbours by lines that bend with the land, so wherever two blocks show a road it goes on
from one to the other, and it ends in a settlement or where the land is empty.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise, settlements
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.setting import World
from mmearth_data.emulator.world.settlements import Kind, Places

F32 = NDArray[np.float32]
Bits = NDArray[np.bool_]

_WIDTHS = {"town": 1.15, "village": 0.6}
"""Half the width in pixels of roads between settlements of a kind."""
_LEAST = {"town": (0.05, 0.3), "village": (0.12, 0.7)}
"""How many people a road needs along it: the first at least, and up to the second more."""
_BEND, _BEND_WAVE = 8.0, 150.0
"""By how many pixels roads swing, and how long their bends are."""
_REACH = 3.0 * _BEND + 2.0
_LINKS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Neighbours in the lattice of settlements, each pair once; diagonals only pass places where nobody lives."""


def _lines(found: Places, key: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Iterator[tuple[float, ...]]:
    """Row and column of both ends of every link, and a chance in [0, 1) of its own."""
    settled = found.settled
    height, width = settled.shape
    for number, (down, across) in enumerate(_LINKS):
        chance = noise.uniform(noise.hash_grid(key ^ number, rows, columns))
        for i in range(height - down):
            for j in range(max(0, -across), width - max(0, across)):
                k, m = i + down, j + across
                if settled[i, j] and settled[k, m] and not (down and across and settled[i, m] and settled[k, j]):
                    ends = found.row[i, j], found.column[i, j], found.row[k, m], found.column[k, m]
                    yield (*map(float, ends), float(chance[i, j]))


def _lattice(first: int, last: int, kind: Kind) -> NDArray[np.int64]:
    """Lattice cells whose links can reach pixels first … last."""
    return np.arange(int(first - _REACH) // kind.spacing - 1, int(last + _REACH) // kind.spacing + 2, dtype=np.int64)


def over(world: World, block: Block, inhabited: F32) -> Bits:
    """Which pixels of a block are road; ``inhabited`` is how densely people live there."""
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "roads")
    result = np.zeros(inhabited.shape, dtype=np.bool_)
    reach = float(inhabited.max())
    middle = (rows[0] + rows[-1]) / 2.0, (columns[0] + columns[-1]) / 2.0
    half = np.hypot(len(rows), len(columns)) / 2.0 + _REACH
    bends: tuple[F32, F32] | None = None
    for kind in settlements.KINDS:
        least, more = _LEAST[kind.name]
        if reach <= least:
            continue
        grid_rows, grid_columns = (_lattice(int(span[0]), int(span[-1]), kind) for span in (rows, columns))
        found = settlements.places(world, kind, grid_rows, grid_columns)
        for row, column, to_row, to_column, chance in _lines(found, key ^ kind.spacing, grid_rows, grid_columns):
            needs = least + more * chance
            down, across = to_row - row, to_column - column
            length = float(np.hypot(down, across))
            down, across = down / length, across / length
            along = (middle[0] - row) * down + (middle[1] - column) * across
            beside = (middle[0] - row) * across - (middle[1] - column) * down
            if reach <= needs or abs(beside) > half or not -half < along < length + half:
                continue
            if bends is None:
                bends = _bends(key, block)
            # Relative to the line's own end, so that a pixel's value is the same whatever block asks.
            y = (rows - row).astype(np.float32)[:, None] + bends[0]
            x = (columns - column).astype(np.float32)[None, :] + bends[1]
            here = np.abs(y * np.float32(across) - x * np.float32(down)) < np.float32(_WIDTHS[kind.name])
            if here.any():
                ahead = y * np.float32(down) + x * np.float32(across)
                here &= (ahead > -1.0) & (ahead < np.float32(length + 1.0)) & (inhabited > np.float32(needs))
                result |= here
    return result


def _bends(key: int, block: Block) -> tuple[F32, F32]:
    """By how many pixels the lines are moved at each pixel, in rows and in columns."""
    rows, columns = block.rows(), block.columns()
    down, across = (np.float32(_BEND) * noise.smooth(key ^ axis, rows, columns, _BEND_WAVE) for axis in (101, 102))
    return down, across
