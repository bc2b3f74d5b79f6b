"""Bands of pixels that do not exist yet: each is evaluated on whatever grid is asked of it.

A source band reads native pixels: exactly where the grids coincide, else the pixel that contains each centre. A
resampled band interpolates the native pixels of the band it wraps. Everything else is computed on the output grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import BandAsset, NativeGrid
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid, Window
from mmearth_data.emulator.interpolation import among_all, among_valid


class Pixels(NamedTuple):
    """Values and where they are valid, both of the grid's shape; values at invalid pixels mean nothing."""

    values: NDArray[np.generic]
    valid: NDArray[np.bool_]


Evaluate = Callable[[PixelGrid, Frames], Pixels]
Native = Callable[[Window, Frames], Pixels]


@dataclass(frozen=True, eq=False)
class Band:
    """A band: name, NumPy dtype name, native grid (None for constants and composites) and how to evaluate it.

    ``extent`` (degrees) bounds where it can be valid, ``window`` which native pixels were clipped out. ``tiles`` are
    the parts of a band whose image lies on several native grids: each of them is resampled on its own.
    """

    name: str
    dtype: str
    grid: NativeGrid | None
    pixels: Evaluate
    extent: BaseGeometry | None = None
    tiles: tuple[Band, ...] = ()
    window: Window | None = None

    def called(self, name: str) -> Band:
        """The band under another name."""
        if name == self.name:
            return self
        return Band(name, self.dtype, self.grid, self.pixels, self.extent, self.tiles, self.window)

    @property
    def part(self) -> Window | None:
        """The native pixels that the band consists of; None if they have no end."""
        if self.window is not None or self.grid is None or self.grid.shape is None:
            return self.window
        return Window(0, 0, *self.grid.shape)


def nothing(grid: PixelGrid, dtype: str) -> Pixels:
    """A grid without one valid pixel."""
    return Pixels(np.zeros(grid.shape, dtype=dtype), np.zeros(grid.shape, dtype=np.bool_))


def at_native(native: Native, grid: NativeGrid, dtype: str, extent: BaseGeometry | None) -> Evaluate:
    """Evaluate native windows on any grid: copied where it coincides with the native one, else the pixel under each
    centre.
    """

    def pixels(target: PixelGrid, frames: Frames) -> Pixels:
        if extent is not None and frames.far(extent, target):
            return nothing(target, dtype)
        offset = frames.offset(target, grid)
        if offset is not None:
            return native(Window(*offset, *target.shape), frames)
        frame = frames.nearest(target, grid)
        if frame is None:
            return nothing(target, dtype)
        values, valid = native(frame.window, frames)
        picked = values.ravel().take(frame.index, mode="clip")
        known = frame.inside if valid.all() else valid.ravel().take(frame.index, mode="clip") & frame.inside
        return Pixels(picked, known)

    return pixels


def source(asset: BandAsset, footprint: BaseGeometry | None) -> Band:
    """An asset's band; native pixels beyond its edges, or whose centre is outside the footprint, are masked."""

    def read(window: Window, frames: Frames) -> Pixels:
        values, valid = asset.read(*window)
        values = np.asarray(values).astype(asset.dtype, copy=False)
        if footprint is None:
            return Pixels(values, valid)
        covered = frames.covered(footprint, window.of(asset.grid))
        return Pixels(values, valid if covered is True else valid & covered)

    def native(window: Window, frames: Frames) -> Pixels:
        part = window.within(asset.grid.shape)
        if part == window:
            return read(window, frames)
        whole = nothing(window.of(asset.grid), asset.dtype)
        if part is not None:
            rows = slice(part.row - window.row, part.row - window.row + part.height)
            columns = slice(part.column - window.column, part.column - window.column + part.width)
            whole.values[rows, columns], whole.valid[rows, columns] = read(part, frames)
        return whole

    pixels = at_native(native, asset.grid, asset.dtype, footprint)
    return Band(asset.name, asset.dtype, asset.grid, pixels, footprint)


def resampled(band: Band) -> Band:
    """The band interpolated bilinearly wherever the output grid is not its native one; its values become doubles.

    A pixel is valid where the native pixel that contains its centre is; masked neighbours (and those beyond the
    image) are left out and the remaining weights renormalised. Raises ServiceError for a band without a native grid.
    """
    if band.tiles:
        return mosaic([resampled(tile) for tile in band.tiles]).called(band.name)
    native = band.grid
    if native is None:
        raise ServiceError(
            "Image.resample: the image has no meaningful default projection (a constant or a composite); "
            "resample the images it is made of instead."
        )

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        if band.extent is not None and frames.far(band.extent, grid):
            return nothing(grid, "float64")
        if frames.offset(grid, native) is not None:
            values, valid = band.pixels(grid, frames)
            return Pixels(values.astype(np.float64), valid)
        frame = frames.bilinear(grid, native)
        if frame is None:
            return nothing(grid, "float64")
        values, valid = band.pixels(frame.window.of(native), frames)
        doubles = np.ascontiguousarray(values, dtype=np.float64)
        place = frame.left, frame.top, frame.right_part, frame.lower_part
        if frame.whole and valid.all() and np.isfinite(doubles).all():
            return Pixels(among_all(doubles, *place), np.ones(grid.shape, dtype=np.bool_))
        index, exists = frame.nearest
        known = exists & valid.ravel().take(index, mode="clip")
        return Pixels(among_valid(doubles, np.ascontiguousarray(valid), *place), known)

    return replace(band, dtype="float64", pixels=pixels)


def mosaic(tiles: Sequence[Band]) -> Band:
    """Tiles of one band on several native grids as one band; where tiles overlap the first valid one shows."""
    dtype = str(np.result_type(*(np.dtype(tile.dtype) for tile in tiles)))

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = nothing(grid, dtype)
        for tile in tiles:
            if tile.extent is not None and frames.far(tile.extent, grid):
                continue
            part = tile.pixels(grid, frames)
            fresh = part.valid & ~valid
            values[fresh], valid = part.values[fresh], valid | fresh
        return Pixels(values, valid)

    return Band(tiles[0].name, dtype, tiles[0].grid, pixels, tiles=tuple(tiles))


def constant(name: str, value: float) -> Band:
    """A band of one value everywhere, in the smallest integer type that holds it, or double."""
    small = isinstance(value, int) and -(2**63) <= value < 2**63
    dtype = str(np.min_scalar_type(int(value))) if small else "float64"

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        return Pixels(np.broadcast_to(np.asarray(value, dtype=dtype), grid.shape), np.ones(grid.shape, dtype=np.bool_))

    return Band(name, dtype, None, pixels)


def compact(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The values with axes along which they are known not to vary (those of constants) cut to one place."""
    return values[tuple(slice(None) if stride else slice(1) for stride in values.strides)]


def masked(name: str, dtype: str) -> Band:
    """A band without one valid pixel."""
    return Band(name, dtype, None, lambda grid, frames: nothing(grid, dtype))


def cast(values: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    """Values in another type: to integers towards zero and clamped to the type's range, not a number becoming 0.

    Source: the examples of ee.Number.toInt16 in the API reference.
    """
    target = np.dtype(dtype)
    if values.dtype == target or target.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(target, copy=False)
    low, high = integer_range(target)
    if values.dtype.kind == "f":
        # As Python compares: NumPy rounds the bound to the values' type, which makes 2³¹ of 2³¹ - 1.
        if values.size and target.itemsize < 8 and low <= float(values.min()) and float(values.max()) <= high:
            return values.astype(target)
        top = float(high) if target.itemsize < 8 else np.nextafter(float(high), 0.0)  # 2⁶³ - 1 has no double
        whole = np.asarray(np.trunc(values.astype(np.float64, copy=False)))
        unknown = np.isnan(whole)
        if unknown.any():
            whole[unknown] = 0.0
        np.minimum(np.maximum(whole, low, out=whole), top, out=whole)
        return whole.astype(target)
    own_low, own_high = integer_range(values.dtype)
    if low <= own_low and own_high <= high:
        return values.astype(target)
    return np.asarray(np.clip(values, max(low, own_low), min(high, own_high))).astype(target)


def integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The smallest and largest value of an integer type (bool: 0 and 1)."""
    if dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)
