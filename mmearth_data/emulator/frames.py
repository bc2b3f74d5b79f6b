"""Pixel grids and how one maps onto another, computed once per request.

Grids that share a CRS and are offset by whole pixels are copied; same-CRS grids are related by their affines alone;
everything else goes through pyproj, at pixel centres. All results are cached by (grid, native grid), because
repeated projection is what such a server spends its time on.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.errors import ServiceError

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
Transform = tuple[float, float, float, float, float, float]
Coordinate = TypeVar("Coordinate", float, FloatArray)

MAX_WINDOW_PIXELS = 4096 * 4096
"""Native pixels read for one band of one request; there are no pyramids here, so coarse grids are refused."""
_ALIGNED = 1e-6
"""Grids count as aligned when their origins differ from whole pixels by less than this, in pixels."""
_EDGE = 1e-9
"""A centre this close below a pixel edge, in pixels, belongs to the next pixel: rounding noise of affines."""
_FAR_DEGREES = 0.25
"""Footprints farther than this from a grid cannot contribute to it, whatever the interpolation."""


@dataclass(frozen=True)
class PixelGrid:
    """A finite grid: CRS, affine (a, b, c, d, e, f), height and width."""

    crs: str
    transform: Transform
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return (self.height, self.width)


class Window(NamedTuple):
    """A block of native pixels."""

    row: int
    column: int
    height: int
    width: int

    def of(self, native: NativeGrid) -> PixelGrid:
        """The window as a grid of its own."""
        a, b, c, d, e, f = native.transform
        x, y = a * self.column + b * self.row + c, d * self.column + e * self.row + f
        return PixelGrid(native.crs, (a, b, x, d, e, y), self.height, self.width)

    def within(self, shape: tuple[int, int] | None) -> Window | None:
        """The part of it that an image of ``shape`` (None: without edges) has; None if there is none."""
        if shape is None:
            return self
        top, left = max(self.row, 0), max(self.column, 0)
        bottom, right = min(self.row + self.height, shape[0]), min(self.column + self.width, shape[1])
        return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None

    def padded(self, pixels: int) -> Window:
        """It with a margin on every side."""
        return Window(self.row - pixels, self.column - pixels, self.height + 2 * pixels, self.width + 2 * pixels)


@dataclass(frozen=True)
class Nearest:
    """For each pixel the native pixel that contains its centre: flat index into ``window``, and whether it exists."""

    window: Window
    index: IndexArray
    inside: BoolArray


@dataclass(frozen=True)
class Bilinear:
    """Where each pixel's centre lies among native pixel centres.

    ``left`` and ``top`` are column and row in ``window`` of the upper left of its four neighbours, ``right_part`` and
    ``lower_part`` how far it is from that one towards the next; of shapes that broadcast to the grid's. ``columns`` and
    ``rows`` are the centres themselves, in native pixels.
    """

    window: Window
    left: IndexArray
    top: IndexArray
    right_part: FloatArray
    lower_part: FloatArray
    columns: FloatArray
    rows: FloatArray
    whole: bool
    """Whether the image has every neighbour."""

    @cached_property
    def nearest(self) -> tuple[IndexArray, BoolArray]:
        """Flat index into ``window`` of the native pixel that contains each centre, and whether it exists."""
        row, column = (np.floor(place + _EDGE).astype(np.intp) for place in (self.rows, self.columns))
        return _indexed(row, column, self.window)


_local = threading.local()


def transformer(source: str, target: str) -> Transformer:
    """A transformer between two CRS, x before y; one per thread, because they are not shared safely."""
    cache: dict[tuple[str, str], Transformer] = _local.__dict__.setdefault("transformers", {})
    if (source, target) not in cache:
        cache[source, target] = Transformer.from_crs(known_crs(source), known_crs(target), always_xy=True)
    return cache[source, target]


def known_crs(code: str) -> CRS:
    """The CRS called ``code``; a 400 if there is none."""
    cache: dict[str, CRS] = _local.__dict__.setdefault("crs", {})
    if code not in cache:
        try:
            cache[code] = CRS.from_user_input(code)
        except CRSError:
            raise ServiceError(f"The CRS of a map projection could not be parsed: {code!r}.") from None
    return cache[code]


class Frames:
    """The cache of one request: where each grid's pixels lie in other CRS, native grids and footprints."""

    def __init__(self) -> None:
        self._projected: dict[tuple[PixelGrid, str], tuple[FloatArray, FloatArray]] = {}
        self._offsets: dict[tuple[PixelGrid, NativeGrid], tuple[int, int] | None] = {}
        self._nearest: dict[tuple[PixelGrid, NativeGrid], Nearest | None] = {}
        self._bilinear: dict[tuple[PixelGrid, NativeGrid], Bilinear | None] = {}
        self._rings: dict[PixelGrid, tuple[FloatArray, FloatArray]] = {}
        self._bounds: dict[PixelGrid, tuple[float, float, float, float]] = {}
        self._covered: dict[tuple[int, PixelGrid], tuple[BaseGeometry, bool | BoolArray]] = {}
        self._copies: dict[int, tuple[BaseGeometry, BaseGeometry]] = {}
        self._boxes: dict[int, tuple[BaseGeometry, tuple[float, float, float, float]]] = {}

    def projected(self, grid: PixelGrid, crs: str) -> tuple[FloatArray, FloatArray]:
        """Coordinates (x, y) of every pixel centre in ``crs``, each of the grid's shape."""
        key = (grid, crs)
        if key not in self._projected:
            x, y = _place(grid, crs, *_centres(grid))
            self._projected[key] = np.broadcast_to(x, grid.shape), np.broadcast_to(y, grid.shape)
        return self._projected[key]

    def offset(self, grid: PixelGrid, native: NativeGrid) -> tuple[int, int] | None:
        """(row, column) in ``native`` of the grid's first pixel, if the two coincide pixel by pixel; else None."""
        key = (grid, native)
        if key not in self._offsets:
            self._offsets[key] = _offset(grid, native)
        return self._offsets[key]

    def nearest(self, grid: PixelGrid, native: NativeGrid) -> Nearest | None:
        """Which native pixels the grid's centres fall in; None if it has none of them."""
        key = (grid, native)
        if key not in self._nearest:
            columns, rows = self._coordinates(grid, native)
            self._nearest[key] = _nearest(columns, rows, native)
        return self._nearest[key]

    def bilinear(self, grid: PixelGrid, native: NativeGrid) -> Bilinear | None:
        """Neighbours and weights of the grid's centres among native pixel centres; None if it has none of them."""
        key = (grid, native)
        if key not in self._bilinear:
            columns, rows = self._coordinates(grid, native)
            self._bilinear[key] = _bilinear(columns, rows, native)
        return self._bilinear[key]

    def covered(self, footprint: BaseGeometry, grid: PixelGrid) -> bool | BoolArray:
        """Whether pixel centres lie in a footprint in degrees: True (all), False (none) or one answer per pixel."""
        key = (id(footprint), grid)
        if key not in self._covered:
            self._covered[key] = (footprint, self._cover(footprint, grid))
        return self._covered[key][1]

    def far(self, footprint: BaseGeometry, grid: PixelGrid) -> bool:
        """Whether a footprint is too far from the grid to matter to it."""
        if grid not in self._bounds:
            x, y = self._ring(grid)
            self._bounds[grid] = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
        left, bottom, right, top = self._bounds[grid]
        if id(footprint) not in self._boxes:
            self._boxes[id(footprint)] = (footprint, footprint.bounds)
        west, south, east, north = self._boxes[id(footprint)][1]
        return bool(
            left > east + _FAR_DEGREES
            or right < west - _FAR_DEGREES
            or bottom > north + _FAR_DEGREES
            or top < south - _FAR_DEGREES
        )

    def _ring(self, grid: PixelGrid) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude of the centres of the border pixels, in order around the grid."""
        if grid not in self._rings:
            across, down = np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5
            columns = np.concatenate(
                [across, np.full(grid.height, across[-1]), across[::-1], np.full(grid.height, 0.5)]
            )
            rows = np.concatenate([np.full(grid.width, 0.5), down, np.full(grid.width, down[-1]), down[::-1]])
            self._rings[grid] = _place(grid, "EPSG:4326", columns, rows)
        return self._rings[grid]

    def _cover(self, footprint: BaseGeometry, grid: PixelGrid) -> bool | BoolArray:
        if id(footprint) not in self._copies:
            # Every request sees the scene's own footprint, and a prepared geometry is not safe to share by threads.
            copy = shapely.from_wkb(shapely.to_wkb(footprint))
            shapely.prepare(copy)
            self._copies[id(footprint)] = (footprint, copy)
        footprint = self._copies[id(footprint)][1]
        if min(grid.shape) > 1:
            ring = shapely.polygons(np.column_stack(self._ring(grid)))
            if shapely.contains_properly(footprint, ring):
                return True
            if shapely.disjoint(footprint, ring):
                return False
        inside: BoolArray = shapely.contains_xy(footprint, *self.projected(grid, "EPSG:4326"))
        return inside

    def _coordinates(self, grid: PixelGrid, native: NativeGrid) -> tuple[FloatArray, FloatArray]:
        """Fractional native column and row of every pixel centre, each of a shape that broadcasts to the grid's."""
        if grid.crs == native.crs:
            return _apply(_after(inverse(native.transform), grid.transform), *_centres(grid))
        return _apply(inverse(native.transform), *self.projected(grid, native.crs))


def affine(numbers: list[Any], where: str) -> Transform:
    """Six numbers as an affine whose pixels have an area."""
    if len(numbers) != 6 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise ServiceError(f"{where}: a transform must have 6 numbers; got {str(numbers)[:80]}.")
    a, b, c, d, e, f = map(float, numbers)
    if a * e == b * d:
        raise ServiceError(f"{where}: the transform {numbers} has pixels without area.")
    return (a, b, c, d, e, f)


def inverse(transform: Transform) -> Transform:
    """The affine that undoes another; a 400 if it has no area."""
    a, b, c, d, e, f = transform
    determinant = a * e - b * d
    if determinant == 0:
        raise ServiceError(f"The affine transform {list(transform)} has pixels without area.")
    a, b, d, e = e / determinant, -b / determinant, -d / determinant, a / determinant
    return (a, b, -(a * c + b * f), d, e, -(d * c + e * f))


def _after(outer: Transform, inner: Transform) -> Transform:
    """The affine that applies ``inner`` first."""
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return (a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f)


def _centres(grid: PixelGrid) -> tuple[FloatArray, FloatArray]:
    """Column and row of every pixel's centre, of shapes (1, w) and (h, 1)."""
    columns, rows = (np.arange(count, dtype=np.float64) + 0.5 for count in (grid.width, grid.height))
    return columns[None], rows[:, None]


def _apply(transform: Transform, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
    a, b, c, d, e, f = transform
    if b == d == 0:  # most grids: their columns and rows need not be spread over all pixels
        return a * x + c, e * y + f
    return a * x + b * y + c, d * x + e * y + f


def _place(grid: PixelGrid, crs: str, columns: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    x, y = _apply(grid.transform, columns, rows)
    if grid.crs != crs:
        x, y = np.broadcast_arrays(x, y)
        x, y = transformer(grid.crs, crs).transform(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ServiceError(f"The pixel grid in {grid.crs} reaches outside the domain of {crs}.")
    return x, y


def _offset(grid: PixelGrid, native: NativeGrid) -> tuple[int, int] | None:
    if grid.crs != native.crs:
        return None
    for i in (0, 1, 3, 4):
        if not math.isclose(grid.transform[i], native.transform[i], rel_tol=1e-9):
            return None
    column, row = _apply(inverse(native.transform), grid.transform[2], grid.transform[5])
    if abs(column - round(column)) > _ALIGNED or abs(row - round(row)) > _ALIGNED:
        return None
    return round(row), round(column)


def _window(low_row: int, low_column: int, high_row: int, high_column: int, native: NativeGrid) -> Window | None:
    """The window of inclusive bounds, clipped to the image; None if nothing is left."""
    whole = Window(low_row, low_column, high_row - low_row + 1, high_column - low_column + 1)
    window = whole.within(native.shape)
    if window is not None and window.height * window.width > MAX_WINDOW_PIXELS:
        raise ServiceError(
            f"The grid needs {window.height}x{window.width} native pixels of {native.crs} at once; "
            f"the emulator keeps no pyramids and reads at most {MAX_WINDOW_PIXELS}. Ask for a smaller or finer grid."
        )
    return window


def _nearest(columns: FloatArray, rows: FloatArray, native: NativeGrid) -> Nearest | None:
    column = np.floor(columns + _EDGE).astype(np.intp)
    row = np.floor(rows + _EDGE).astype(np.intp)
    window = _window(int(row.min()), int(column.min()), int(row.max()), int(column.max()), native)
    if window is None:
        return None
    return Nearest(window, *_indexed(row, column, window))


def _indexed(row: IndexArray, column: IndexArray, window: Window) -> tuple[IndexArray, BoolArray]:
    """Flat indices into a window of native pixels, 0 for those that it does not have, and which it has."""
    row, column = row - window.row, column - window.column
    inside = ((row >= 0) & (row < window.height)) & ((column >= 0) & (column < window.width))
    index = row * window.width + column
    return index if inside.all() else np.where(inside, index, 0), inside


def _bilinear(columns: FloatArray, rows: FloatArray, native: NativeGrid) -> Bilinear | None:
    low_row, low_column = math.floor(rows.min() - 0.5), math.floor(columns.min() - 0.5)
    high_row, high_column = math.floor(rows.max() - 0.5) + 1, math.floor(columns.max() - 0.5) + 1
    window = _window(low_row, low_column, high_row, high_column, native)
    if window is None:
        return None
    u, v = columns - 0.5, rows - 0.5
    left, top = np.floor(u), np.floor(v)
    return Bilinear(
        window,
        left.astype(np.intp) - window.column,
        top.astype(np.intp) - window.row,
        u - left,
        v - top,
        columns,
        rows,
        window == Window(low_row, low_column, high_row - low_row + 1, high_column - low_column + 1),
    )
