"""Where pixels lie: clipping, reprojecting, default projections, and the pixel grids of exports."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator import geojson, limits
from mmearth_data.emulator.algorithms.projections import metres_per_unit
from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.bands import Band, Pixels, at_native, cast, nothing
from mmearth_data.emulator.collections import EVERYTHING, is_collection, single
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid, Window, affine, inverse
from mmearth_data.emulator.geojson import geometry_of
from mmearth_data.emulator.reducers import Reducer, Sample
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Feature, Geometry, Image, Projection, shape_of

_WORLD = shapely.box(-180, -90, 180, 90)


def _region(value: Any, where: str) -> Geometry:
    """The geometry that something to clip to has: a geometry, a feature, or everything of a collection."""
    if isinstance(value, Geometry):
        return value
    if isinstance(value, Feature) and value.geometry is not None:
        return value.geometry
    if isinstance(value, Image):
        return Geometry(shape_of(value))
    if isinstance(value, dict) and "type" in value:
        return geometry_of(value)
    if is_collection(value):
        shapes = [shape_of(single(element, where)) for element in limits.bounded(value.elements(EVERYTHING))]
        return Geometry(shapely.union_all([shape for shape in shapes if shape is not None]))
    raise ServiceError(f"{where}: 'geometry' must be a geometry or something with one; got {type(value).__name__}.")


def native_window(shape: BaseGeometry, grid: NativeGrid) -> Window | None:
    """The native pixels that a shape in the grid's CRS touches; None if it is empty."""
    if shape.is_empty:
        return None
    a, b, c, d, e, f = inverse(grid.transform)
    xy = shapely.get_coordinates(shape)
    columns, rows = xy @ (a, b) + c, xy @ (d, e) + f
    left, top = math.floor(columns.min() + 1e-6), math.floor(rows.min() + 1e-6)
    right, bottom = math.ceil(columns.max() - 1e-6), math.ceil(rows.max() - 1e-6)
    return Window(top, left, max(1, bottom - top), max(1, right - left))


def _overlap(first: Window | None, second: Window | None) -> Window | None:
    if first is None or second is None:
        return second if first is None else first
    shifted = Window(second.row - first.row, second.column - first.column, second.height, second.width)
    common = shifted.within((first.height, first.width))
    if common is None:
        return Window(first.row, first.column, 1, 1)
    return Window(common.row + first.row, common.column + first.column, common.height, common.width)


def _clipped(image: Image, geometry: Geometry) -> Image:
    """The image masked outside a shape, by pixel centres of whatever grid is asked for."""
    shape = geometry.degrees
    footprint = shape if image.footprint is None else shapely.intersection(image.footprint, shape)

    def clip_band(band: Band) -> Band:
        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            if shape.is_empty or frames.far(shape, grid):
                return nothing(grid, band.dtype)
            values, valid = band.pixels(grid, frames)
            inside = frames.covered(shape, grid)
            return Pixels(values, valid if inside is True else valid & inside)

        window = None
        if band.grid is not None:
            window = _overlap(band.part, native_window(geometry.within(band.grid.crs), band.grid))
        extent = shape if band.extent is None else band.extent
        return replace(band, pixels=pixels, extent=extent, tiles=(), window=window)

    return replace(image, bands=tuple(map(clip_band, image.bands)), footprint=footprint)


@algorithm("Image.clip")
def clip(input: Image, geometry: Any) -> Image:
    """The image masked where pixel centres are outside a geometry."""
    return input if geometry is None else _clipped(input, _region(geometry, "Image.clip"))


@algorithm("Image.clipToCollection")
def clip_to_collection(input: Image, collection: Any) -> Image:
    """The image masked where pixel centres are outside every feature."""
    return _clipped(input, _region(collection, "Image.clipToCollection"))


def lattice(crs: Projection, crs_transform: list[float] | None, scale: float | None, where: str) -> Projection:
    """A projection's pixel grid with another affine, or with square pixels of so many metres."""
    if crs_transform is not None and scale is not None:
        raise ServiceError(f"{where}: 'scale' and 'crsTransform' exclude each other.")
    code = geojson.crs_named(crs.crs)
    if crs_transform is not None:
        return Projection(code, affine(crs_transform, where))
    if scale is not None:
        if not 1e-6 < scale < 1e9:
            raise ServiceError(f"{where}: 'scale' must be a positive number of metres; got {scale}.")
        step = scale / metres_per_unit(code)
        return Projection(code, (step, 0.0, 0.0, 0.0, -step, 0.0))
    return Projection(code, crs.transform)


def on_grid(image: Image, grid: NativeGrid, window: Window | None, cut: bool = False) -> Image:
    """The image computed on a grid, and read from there wherever it is asked for; masked beyond the window if cut."""

    def place(band: Band) -> Band:
        def native(part: Window, frames: Frames) -> Pixels:
            values, valid = band.pixels(part.of(grid), frames)
            if not cut or window is None:
                return Pixels(values, valid)
            rows, columns = np.arange(part.height) + part.row, np.arange(part.width) + part.column
            down = (rows >= window.row) & (rows < window.row + window.height)
            across = (columns >= window.column) & (columns < window.column + window.width)
            return Pixels(values, valid & down[:, None] & across)

        return Band(
            band.name, band.dtype, grid, at_native(native, grid, band.dtype, band.extent), band.extent, (), window
        )

    return image.with_bands(tuple(map(place, image.bands)))


@algorithm("Image.reproject")
def reproject(image: Image, crs: Projection, crsTransform: list[float] | None, scale: float | None) -> Image:
    """The image computed on the pixels of a projection: by the nearest ones unless it was resampled before."""
    asked = lattice(crs, crsTransform, scale, "Image.reproject")
    grid = NativeGrid(asked.crs, asked.transform)
    window = None
    if image.footprint is not None and not image.footprint.is_empty:
        window = native_window(Geometry(image.footprint).within(grid.crs), grid)
    return on_grid(image, grid, window)


@algorithm("Image.setDefaultProjection")
def set_default_projection(
    image: Image, crs: Projection, crsTransform: list[float] | None, scale: float | None
) -> Image:
    """The image with another native projection for whatever asks for one; its pixels stay as they are."""
    asked = lattice(crs, crsTransform, scale, "Image.setDefaultProjection")
    grid = NativeGrid(asked.crs, asked.transform)
    return image.with_bands(tuple(replace(band, grid=grid, tiles=(), window=None) for band in image.bands))


@algorithm("Image.changeProj")
def change_projection(input: Image, srcProj: Projection, dstProj: Projection) -> Image:
    """The image with native pixels of one projection laid out as those of another."""
    source = NativeGrid(geojson.crs_named(srcProj.crs), srcProj.transform)
    target = NativeGrid(geojson.crs_named(dstProj.crs), dstProj.transform)

    def moved(band: Band) -> Band:
        def native(part: Window, frames: Frames) -> Pixels:
            return band.pixels(part.of(source), frames)

        return Band(band.name, band.dtype, target, at_native(native, target, band.dtype, None))

    return replace(input, bands=tuple(map(moved, input.bands)), footprint=None)


@algorithm("Image.clipToBoundsAndScale")
def clip_to_bounds_and_scale(
    input: Image,
    geometry: Geometry | None,
    width: int | None,
    height: int | None,
    maxDimension: int | None,
    scale: float | None,
) -> Image:
    """The image cut to the bounds of a geometry, on pixels of a size or of a number that is asked for.

    Pixels of a size in metres lie on multiples of it; a number of pixels fills the bounds exactly.
    """
    where = "Image.clipToBoundsAndScale"
    if not input.bands:
        raise ServiceError(f"{where}: the image has no bands.")
    native = input.bands[0].grid or NativeGrid("EPSG:4326", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    if geometry is None and input.bands[0].part is not None:
        bounds = _outline(native, input.bands[0].part)
    elif geometry is not None or input.footprint is not None:
        bounds = (geometry or Geometry(input.footprint)).within(native.crs)
    else:
        bounds = Geometry(_WORLD).within(native.crs)
    if bounds.is_empty:
        raise ServiceError(f"{where}: the geometry is empty.")
    if scale is not None and not 1e-6 < scale < 1e9:
        raise ServiceError(f"{where}: 'scale' must be a positive number of metres; got {scale}.")
    if any(number is not None and not 1 <= number <= limits.MAX_GRID_SIDE for number in (width, height, maxDimension)):
        raise ServiceError(f"{where}: dimensions must be between 1 and {limits.MAX_GRID_SIDE}.")
    grid, window = _export_grid(native, bounds, width, height, maxDimension, scale)
    clipped = on_grid(input, grid, window, cut=True)
    return replace(clipped, footprint=Geometry(_outline(grid, window), grid.crs).degrees)


def _outline(grid: NativeGrid, window: Window) -> BaseGeometry:
    a, b, c, d, e, f = grid.transform
    top, left, bottom, right = window.row, window.column, window.row + window.height, window.column + window.width
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return shapely.Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])


def _export_grid(
    native: NativeGrid,
    bounds: BaseGeometry,
    width: int | None,
    height: int | None,
    most: int | None,
    scale: float | None,
) -> tuple[NativeGrid, Window]:
    """The grid of an export and the pixels of it that the bounds take."""
    west, south, east, north = bounds.bounds
    if scale is not None:
        step = scale / metres_per_unit(native.crs)
        grid = NativeGrid(native.crs, (step, 0.0, 0.0, 0.0, -step, 0.0))
        return grid, _whole(native_window(shapely.box(west, south, east, north), grid))
    if width is None and height is None and most is None:
        return native, _whole(native_window(bounds, native))
    across, down = max(east - west, 1e-9), max(north - south, 1e-9)
    if most is not None:
        step = max(across, down) / most
        width, height = max(1, round(across / step)), max(1, round(down / step))
    elif width is None or height is None:
        known = width if height is None else height
        step = (across if height is None else down) / (known or 1)
        width, height = max(1, round(across / step)), max(1, round(down / step))
    grid = NativeGrid(native.crs, (across / width, 0.0, west, 0.0, -down / height, north))
    return grid, Window(0, 0, height, width)


def _whole(window: Window | None) -> Window:
    if window is None:
        raise ServiceError("Image.clipToBoundsAndScale: the geometry is empty.")
    return window


@algorithm("Image.reduceResolution")
def reduce_resolution(image: Image, reducer: Reducer, bestEffort: bool, maxPixels: int) -> Image:
    """The image whose pixels, on a coarser grid, are the reducer's of the native pixels whose centres they hold."""
    where = "Image.reduceResolution"
    if reducer.inputs != 1 or len(reducer.outputs) != 1:
        raise ServiceError(f"{where}: the emulator takes reducers of one input and one output only.")
    if maxPixels < 1:
        raise ServiceError(f"{where}: 'maxPixels' must be positive; got {maxPixels}.")
    statistic = reducer.statistic(where)
    most = min(maxPixels, 65536)

    def coarse(band: Band) -> Band:
        native = band.grid
        if native is None:
            raise ServiceError(f"{where}: the image has no default projection; set one with setDefaultProjection.")
        dtype = reducer.types[0] or band.dtype

        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            factor = _factor(grid, native, frames)
            if factor**2 > most and not bestEffort:
                raise ServiceError(f"{where}: Too many input pixels per output pixel: {factor**2} > {most}.")
            fine = min(factor, math.isqrt(most))
            limits.check_memory(grid.height * grid.width * fine**2 * 9)
            a, b, c, d, e, f = grid.transform
            steps = PixelGrid(
                grid.crs, (a / fine, b / fine, c, d / fine, e / fine, f), grid.height * fine, grid.width * fine
            )
            stacks = [_blocks(array, fine) for array in band.pixels(steps, frames)]
            with np.errstate(all="ignore"):
                ((value, known),) = statistic([Sample(*stacks)])
            return Pixels(cast(np.where(known, value, 0), dtype), np.asarray(known))

        return replace(band, dtype=dtype, pixels=pixels, tiles=())

    return image.with_bands(tuple(map(coarse, image.bands)))


def _factor(grid: PixelGrid, native: NativeGrid, frames: Frames) -> int:
    """How many native pixels lie side by side in one of the grid's."""
    middle = PixelGrid(grid.crs, grid.transform, min(2, grid.height + 1), 2)
    x, y = frames.projected(middle, native.crs)
    a, b, c, d, e, f = inverse(native.transform)
    columns, rows = a * x + b * y + c, d * x + e * y + f
    return max(1, round(float(np.hypot(columns[0, 1] - columns[0, 0], rows[0, 1] - rows[0, 0]))))


def _blocks(values: Any, factor: int) -> Any:
    height, width = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(height, factor, width, factor).transpose(1, 3, 0, 2)
    return blocks.reshape(factor * factor, height, width)
