"""Arithmetic of images, pixel by pixel: pairs of bands, single bands, and casts.

Integers are computed exactly, in the smallest type that holds every result: the reference calls the output type the
union of the inputs' and is silent on what lies outside of it. ``round`` takes halves up.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from mmearth_data.emulator.bands import Band, Pixels, cast, compact, integer_range
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image

Array = NDArray[Any]
Operation = Callable[[Any, Any], Any]


@cache
def union(left: str, right: str) -> str:
    """The type that holds the values of two."""
    return str(np.promote_types(left, right))


def _widened(operation: Operation) -> Callable[[str, str], str]:
    """The type of sums, differences and products: wide enough for those of the inputs' largest and smallest values."""

    @cache
    def result(left: str, right: str) -> str:
        union = np.promote_types(left, right)
        if union.kind == "f":
            return str(union)
        corners = [
            int(operation(first, second))
            for first in integer_range(np.dtype(left))
            for second in integer_range(np.dtype(right))
        ]
        if min(corners) < -(2**63) or max(corners) >= 2**63:
            return "float64"
        return str(np.result_type(np.min_scalar_type(min(corners)), np.min_scalar_type(max(corners))))

    return result


def _quotient_type(left: str, right: str) -> str:
    union = np.promote_types(left, right)
    return str(union) if union.kind == "f" else "float64"


def boolean(left: str, right: str) -> str:
    """The type of yes and no."""
    return "uint8"


def _quotient(left: Array, right: Array) -> Array:
    zero = right == 0
    return np.where(zero, 0, left / np.where(zero, 1, right))


def paired(image1: Image, image2: Image, where: str) -> list[tuple[Band, Band]]:
    """Bands matched by name if the names are the same, else in order; a single band goes with every other."""
    first, second = image1.bands, image2.bands
    if len(first) == len(second):
        by_name = {band.name: band for band in second}
        if by_name.keys() == {band.name for band in first}:
            second = tuple(by_name[band.name] for band in first)
        return list(zip(first, second, strict=True))
    if len(first) == 1:
        return [(first[0], band) for band in second]
    if len(second) == 1:
        return [(band, second[0]) for band in first]
    raise ServiceError(f"{where}: the images have {len(first)} and {len(second)} bands; one of them must have 1.")


def _binary(where: str, image1: Image, image2: Image, operation: Operation, result: Callable[[str, str], str]) -> Image:
    names = [band.name for band in (image1 if len(image1.bands) >= len(image2.bands) else image2).bands]
    bands = [
        _combined(left, right, operation, result(left.dtype, right.dtype)).called(name)
        for name, (left, right) in zip(names, paired(image1, image2, where), strict=False)
    ]
    return Image(tuple(bands), {}, common_footprint(image1, image2))


def common_footprint(image1: Image, image2: Image) -> Any:
    """Where both images are: None is everywhere."""
    if image1.footprint is None or image2.footprint is None:
        return image2.footprint if image1.footprint is None else image1.footprint
    return shapely.intersection(image1.footprint, image2.footprint)


def _combined(left: Band, right: Band, operation: Operation, dtype: str) -> Band:
    working = np.int64 if np.promote_types(left.dtype, right.dtype).kind in "iu" else np.float64

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        first, second = left.pixels(grid, frames), right.pixels(grid, frames)
        with np.errstate(over="ignore", invalid="ignore"):
            values = operation(*(compact(part.values).astype(working, copy=False) for part in (first, second)))
        return Pixels(np.broadcast_to(cast(values, dtype), grid.shape), first.valid & second.valid)

    leading = right if left.grid is None else left
    extent = left.extent if right.extent is None else None
    return Band(left.name, dtype, leading.grid, pixels, extent, window=leading.window)


def register_binary(names: tuple[str, ...], operation: Operation, result: Callable[[str, str], str]) -> None:
    """Register an operation of two images, valid where both are; ``result`` gives its type of theirs."""

    @algorithm(*names)
    def handler(image1: Image, image2: Image) -> Image:
        """Pixel by pixel, bands paired by name or in order, valid where both are; wide enough for every result."""
        return _binary(names[0], image1, image2, operation, result)


for _name, _operation, _result in (
    ("Image.add", operator.add, _widened(operator.add)),
    ("Image.subtract", operator.sub, _widened(operator.sub)),
    ("Image.multiply", operator.mul, _widened(operator.mul)),
    ("Image.divide", _quotient, _quotient_type),
    ("Image.max", np.maximum, union),
    ("Image.min", np.minimum, union),
    ("Image.eq", np.equal, boolean),
    ("Image.neq", np.not_equal, boolean),
    ("Image.lt", np.less, boolean),
    ("Image.lte", np.less_equal, boolean),
    ("Image.gt", np.greater, boolean),
    ("Image.gte", np.greater_equal, boolean),
):
    register_binary((_name,), _operation, _result)


def each_band(image: Image, operation: Callable[[Array], Array], dtype: str | None = None) -> Image:
    """The image with every band's values changed, and cast to ``dtype`` if one is given."""

    def changed(band: Band) -> Band:
        result = band.dtype if dtype is None else dtype

        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            values, valid = band.pixels(grid, frames)
            return Pixels(cast(operation(values), result), valid)

        grid = None if band.tiles else band.grid
        return Band(band.name, result, grid, pixels, band.extent, window=band.window)

    return image.with_bands(tuple(changed(band) for band in image.bands))


def _half_up(values: Array) -> Array:
    if values.dtype.kind != "f":
        return values
    higher = values + 0.5
    return np.floor(higher, out=higher)


def _whole(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda values: function(values) if values.dtype.kind == "f" else values


def _register_unary(name: str, operation: Callable[[Array], Array]) -> None:
    @algorithm(name)
    def handler(value: Image) -> Image:
        """Pixel by pixel; halves are rounded up."""
        return each_band(value, operation)


for _name, _function in (
    ("Image.round", _half_up),
    ("Image.floor", _whole(np.floor)),
    ("Image.ceil", _whole(np.ceil)),
    ("Image.abs", np.abs),
):
    _register_unary(_name, _function)


def _register_cast(names: tuple[str, ...], dtype: str) -> None:
    @algorithm(*names)
    def handler(value: Image) -> Image:
        """The image in another type: truncated towards zero and clamped to the type."""
        return each_band(value, lambda values: values, dtype)


for _names, _dtype in (
    (("Image.toUint8", "Image.toByte", "Image.uint8", "Image.byte"), "uint8"),
    (("Image.toInt8", "Image.int8"), "int8"),
    (("Image.toUint16", "Image.uint16"), "uint16"),
    (("Image.toInt16", "Image.int16", "Image.toShort", "Image.short"), "int16"),
    (("Image.toUint32", "Image.uint32"), "uint32"),
    (("Image.toInt32", "Image.int32", "Image.toInt", "Image.int"), "int32"),
    (("Image.toInt64", "Image.int64", "Image.toLong", "Image.long"), "int64"),
    (("Image.toFloat", "Image.float"), "float32"),
    (("Image.toDouble", "Image.double"), "float64"),
):
    _register_cast(_names, _dtype)
