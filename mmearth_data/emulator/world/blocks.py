"""Blocks: the squares of 128 × 128 frame pixels in which the world is computed, and windows put together from them.

A block is rendered with a margin on every side, so that a tile and the neighbours that interpolation needs come from
one block. What a renderer yields at a pixel must not depend on the block that asks; then any window agrees with any
other that overlaps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world import frames, noise
from mmearth_data.emulator.world.compiled import compiled

CORE = 128
MARGIN = 16
SIZE = CORE + 2 * MARGIN
_NODES = 4

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """A square of a frame; ``row`` and ``column`` count blocks.

    Slow fields are evaluated exactly at 4 × 4 nodes, one core apart, and interpolated smoothly between them.
    """

    epsg: int
    row: int
    column: int
    lon: F64 = field(compare=False)
    lat: F64 = field(compare=False)
    sphere: F64 = field(compare=False)

    @property
    def south(self) -> bool:
        """Whether the frame is of the southern hemisphere."""
        return self.epsg >= 32700

    def rows(self, level: int = 1) -> I64:
        """Absolute rows of the block's pixels of ``level`` × 10 m that lie wholly inside its margin."""
        return _span(self.row, level, _phase(self.epsg, level))

    def columns(self, level: int = 1) -> I64:
        """Absolute columns, as ``rows``."""
        return _span(self.column, level, 0)

    def offset(self, level: int, to: int) -> tuple[int, int]:
        """Row and column, among the block's pixels of ``level``, at which its pixels of the coarser ``to`` begin."""
        starts = (self.rows(level)[0], self.columns(level)[0]), (self.rows(to)[0], self.columns(to)[0])
        phases = _phase(self.epsg, to) - _phase(self.epsg, level), 0
        top, left = (
            (int(last) * to - phase) // level - int(first) for first, last, phase in zip(*starts, phases, strict=True)
        )
        return top, left

    def spread(self, nodes: F64, level: int = 1) -> NDArray[np.float32]:
        """A field given at the nodes (…, 16), at the pixels of a level: (…, rows, columns)."""
        lattice = np.asarray(nodes, dtype=np.float32).reshape(*nodes.shape[:-1], _NODES, _NODES)
        origin = (self.row - 1, self.column - 1)
        return noise.upsample(lattice, self.rows(level), self.columns(level), CORE / level, origin)


def _phase(epsg: int, level: int) -> int:
    """Frame rows by which coarser pixels begin early: they count from the equator, southern frames from northing 0."""
    return frames.EQUATOR_ROWS % level if epsg >= 32700 else 0


def _span(index: int, level: int, phase: int) -> I64:
    low, high = index * CORE - MARGIN + phase, index * CORE + CORE + MARGIN + phase
    return np.arange(-(-low // level), high // level, dtype=np.int64)


@lru_cache(maxsize=4096)
def block(epsg: int, row: int, column: int) -> Block:
    """The block at a place in a frame, with its nodes located."""
    ticks = np.arange(-1, _NODES - 1)
    x, y = np.meshgrid((column + ticks) * CORE * frames.PIXEL, -(row + ticks) * CORE * frames.PIXEL)
    lon, lat = frames.to_lonlat(epsg, x.ravel(), y.ravel())
    return Block(epsg, row, column, lon, lat, noise.sphere(lon, lat))


@dataclass(frozen=True)
class _Lookup:
    """Where a window of another grid finds its pixels in one frame.

    The frame's part of ``height`` × ``width`` from ``row`` and ``column`` on, each pixel's flat index into it, and
    which of the window's pixels these are (None: all of them).
    """

    epsg: int
    row: int
    column: int
    height: int
    width: int
    index: NDArray[np.intp]
    inside: NDArray[np.bool_] | None


@compiled
def _nearest(rows: F64, columns: F64, phase: int, level: int) -> tuple[int, int, int, int, I64]:
    """The part of a frame that holds the pixels at these places, and each one's flat index into it."""
    index, along = np.empty(rows.shape[0], dtype=np.int64), np.empty(rows.shape[0], dtype=np.int64)
    for n in range(rows.shape[0]):
        index[n], along[n] = np.floor((rows[n] + phase) / level), np.floor(columns[n] / level)
    top, left, width = index.min(), along.min(), along.max() - along.min() + 1
    height = index.max() - top + 1
    for n in range(rows.shape[0]):
        index[n] = (index[n] - top) * width + along[n] - left
    return top, left, height, width, index


@lru_cache(maxsize=256)
def _lookups(
    epsg: int, transform: frames.Affine, row0: int, column0: int, height: int, width: int, level: int
) -> tuple[_Lookup, ...]:
    """Where a window's pixels lie in each frame that it touches, at a level."""
    found = []
    for patch in frames.locate(epsg, transform, row0, column0, height, width):
        rows, columns = patch.rows, patch.columns
        if patch.inside is not None:
            rows, columns = rows[patch.inside], columns[patch.inside]
        phase = _phase(patch.epsg, level)
        top, left, high, wide, index = _nearest(rows.ravel(), columns.ravel(), phase, level)
        found.append(_Lookup(patch.epsg, top, left, high, wide, index.reshape(rows.shape), patch.inside))
    return tuple(found)


Render = Callable[[Block], NDArray[np.generic]]
"""A field at the pixels of one level of a block, last two axes (rows, columns) as ``Block.rows`` names them."""


def _home(first: int, last: int, level: int, phase: int) -> int | None:
    """The block that holds pixels first…last of a level in its core and margin, if one does; nearest to the middle."""
    index = ((first + last) * level // 2 - phase) // CORE
    span = _span(index, level, phase)
    return index if span[0] <= first and last <= span[-1] else None


@lru_cache(maxsize=1024)
def _holding(epsg: int, level: int, row0: int, column0: int, height: int, width: int) -> tuple[Block, int, int] | None:
    """The one block that holds a window, and where in it the window begins; None if it takes several."""
    phase = _phase(epsg, level)
    row, column = _home(row0, row0 + height - 1, level, phase), _home(column0, column0 + width - 1, level, 0)
    if row is None or column is None:
        return None
    return block(epsg, row, column), row0 - int(_span(row, level, phase)[0]), column0 - int(_span(column, level, 0)[0])


def assemble(
    epsg: int, level: int, row0: int, column0: int, height: int, width: int, render: Render
) -> NDArray[np.generic]:
    """A window of a frame at ``level`` × 10 m, from as few blocks as hold it; the last two axes are (height, width)."""
    alone = _holding(epsg, level, row0, column0, height, width)
    if alone is not None:
        home, top, left = alone
        return render(home)[..., top : top + height, left : left + width]
    phase = _phase(epsg, level)
    rows = (np.arange(row0, row0 + height) * level - phase) // CORE
    columns = (np.arange(column0, column0 + width) * level) // CORE
    out: NDArray[np.generic] | None = None
    for i in range(int(rows[0]), int(rows[-1]) + 1):
        for j in range(int(columns[0]), int(columns[-1]) + 1):
            part = render(block(epsg, i, j))
            if out is None:
                out = np.empty((*part.shape[:-2], height, width), dtype=part.dtype)
            own_rows, own_columns = np.nonzero(rows == i)[0], np.nonzero(columns == j)[0]
            top = row0 + int(own_rows[0]) - int(_span(i, level, phase)[0])
            left = column0 + int(own_columns[0]) - int(_span(j, level, 0)[0])
            here = slice(own_rows[0], own_rows[-1] + 1), slice(own_columns[0], own_columns[-1] + 1)
            out[..., here[0], here[1]] = part[..., top : top + len(own_rows), left : left + len(own_columns)]
    if out is None:
        raise ValueError(f"a window must have pixels, not {height} × {width}")
    return out


def window(
    grid: NativeGrid, level: int, row0: int, column0: int, height: int, width: int, render: Render
) -> NDArray[np.generic]:
    """A field at the pixel centres of a window of any north-up grid.

    On a frame's own pixels (its UTM zone, a pixel size of ``level`` × 10 m) values are those of the frame. Elsewhere
    each pixel takes the nearest value of the frame that its centre lies in.
    """
    epsg = int(grid.crs.removeprefix("EPSG:"))
    a, _, c, _, e, f = grid.transform
    if (
        frames.is_utm(epsg)
        and a == level * frames.PIXEL
        and frames.lies_inside(epsg, a * column0 + c, e * (row0 + height) + f, a * (column0 + width) + c, e * row0 + f)
    ):
        top_row, left_column = round(-f / frames.PIXEL) + _phase(epsg, level), round(c / frames.PIXEL)
        if top_row % level == 0 and left_column % level == 0:
            first_row, first_column = row0 + top_row // level, column0 + left_column // level
            return assemble(epsg, level, first_row, first_column, height, width, render)
    out: NDArray[np.generic] | None = None
    for part in _lookups(epsg, grid.transform, row0, column0, height, width, level):
        held = assemble(part.epsg, level, part.row, part.column, part.height, part.width, render)
        values = held.reshape(*held.shape[:-2], part.height * part.width).take(part.index, axis=-1, mode="clip")
        if part.inside is None:
            return values
        if out is None:
            out = np.empty((*held.shape[:-2], height, width), dtype=held.dtype)
        out[..., part.inside] = values
    if out is None:
        raise ValueError(f"a window must have pixels, not {height} × {width}")
    return out
