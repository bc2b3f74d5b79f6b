"""Functions of pixels beyond sums and comparisons: powers, angles, logic, bits, choices between values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mmearth_data.emulator.algorithms.arithmetic import Array, boolean, each_band, paired, register_binary, union
from mmearth_data.emulator.bands import Band, Pixels, cast
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image


def _double(left: str, right: str) -> str:
    return "float32" if np.promote_types(left, right) == np.float32 else "float64"


def _modulo(left: Array, right: Array) -> Array:
    zero = right == 0
    return np.where(zero, 0, np.fmod(left, np.where(zero, 1, right)))


def _power(left: Array, right: Array) -> Array:
    with np.errstate(all="ignore"):
        result = np.power(left.astype(np.float64), right.astype(np.float64))
    return np.nan_to_num(result, nan=0.0, posinf=np.finfo(float).max, neginf=np.finfo(float).min)


def _shift(operation: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    return lambda left, right: operation(_bits(left), np.clip(_bits(right), 0, 63))


def _bits(values: Array) -> Array:
    return values if values.dtype.kind in "iu" else cast(values, "int64")


def _bitwise(operation: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    return lambda left, right: operation(_bits(left), _bits(right))


def _whole(left: str, right: str) -> str:
    joint = np.promote_types(left, right)
    return str(joint) if joint.kind in "iu" else "int64"


for _names, _operation, _result in (
    (("Image.pow",), _power, _double),
    (("Image.mod",), _modulo, union),
    (("Image.atan2",), lambda x, y: np.arctan2(y, x), _double),
    (("Image.hypot",), np.hypot, _double),
    (("Image.and",), lambda x, y: (x != 0) & (y != 0), boolean),
    (("Image.or",), lambda x, y: (x != 0) | (y != 0), boolean),
    (("Image.first",), lambda x, y: x, union),
    (("Image.firstNonZero", "Image.first_nonzero"), lambda x, y: np.where(x != 0, x, y), union),
    (("Image.bitwiseAnd", "Image.bitwise_and"), _bitwise(np.bitwise_and), _whole),
    (("Image.bitwiseOr", "Image.bitwise_or"), _bitwise(np.bitwise_or), _whole),
    (("Image.bitwiseXor", "Image.bitwise_xor"), _bitwise(np.bitwise_xor), _whole),
    (("Image.leftShift", "Image.left_shift"), _shift(np.left_shift), lambda left, right: "int64"),
    (("Image.rightShift", "Image.right_shift"), _shift(np.right_shift), _whole),
):
    register_binary(_names, _operation, _result)


def _register_function(name: str, function: Callable[[Array], Array]) -> None:
    @algorithm(f"Image.{name}")
    def handler(value: Image) -> Image:
        """A function of reals, in doubles unless the band is a float; masked where it has no value."""
        return value.with_bands(tuple(_applied(band, function) for band in value.bands))


def _applied(band: Band, function: Callable[[Array], Array]) -> Band:
    """The band with a function of reals applied; where it has no value the pixel is masked."""
    dtype = "float32" if band.dtype == "float32" else "float64"

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = band.pixels(grid, frames)
        with np.errstate(all="ignore"):
            result = function(values.astype(np.float64)).astype(dtype)
        known = np.isfinite(result)
        return Pixels(np.where(known, result, 0), valid & known)

    return replace(band, dtype=dtype, pixels=pixels, tiles=())


for _name, _function in (
    ("sqrt", np.sqrt), ("exp", np.exp), ("log", np.log), ("log10", np.log10), ("cbrt", np.cbrt),
    ("sin", np.sin), ("cos", np.cos), ("tan", np.tan), ("asin", np.arcsin), ("acos", np.arccos),
    ("atan", np.arctan), ("sinh", np.sinh), ("cosh", np.cosh), ("tanh", np.tanh),
):  # fmt: skip
    _register_function(_name, _function)


@algorithm("Image.signum")
def signum(value: Image) -> Image:
    """-1, 0 or 1 by the sign."""
    return each_band(value, np.sign)


@algorithm("Image.not")
def negation(value: Image) -> Image:
    """1 where the value is 0, else 0."""
    return each_band(value, lambda values: values == 0, "uint8")


@algorithm("Image.bitwiseNot", "Image.bitwise_not")
def bitwise_not(value: Image) -> Image:
    """The inverted bits: -x - 1, in 64 bits."""
    return each_band(value, lambda values: np.invert(cast(values, "int64")), "int64")


@algorithm("Image.bitCount")
def bit_count(value: Image) -> Image:
    """How many bits of the magnitude are set."""
    return each_band(value, lambda values: np.bitwise_count(cast(values, "int64")), "uint8")


@algorithm("Image.clamp")
def clamp(input: Image, low: float, high: float) -> Image:
    """Values below one bound or above the other are set to it."""
    return _limited(input, low, high, "Image.clamp", lambda values: np.clip(values, low, high))


@algorithm("Image.unitScale")
def unit_scale(input: Image, low: float, high: float) -> Image:
    """Values from ``low`` to ``high`` as 0 to 1; others lie beyond."""
    if low == high:
        raise ServiceError("Image.unitScale: 'low' and 'high' must differ.")
    return _limited(input, low, high, "Image.unitScale", lambda values: (values - low) / (high - low), "float64")


def _limited(
    image: Image,
    low: float,
    high: float,
    where: str,
    operation: Callable[[Array], Array],
    dtype: str | None = None,
) -> Image:
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise ServiceError(f"{where}: needs bounds low to high; got {low} to {high}.")
    bands: list[Band] = []
    for band in image.bands:
        whole = np.dtype(band.dtype).kind in "iu" and float(low).is_integer() and float(high).is_integer()
        own = dtype or (band.dtype if whole or np.dtype(band.dtype).kind == "f" else "float64")
        bands += each_band(image.with_bands((band,)), lambda values: operation(values.astype(np.float64)), own).bands
    return image.with_bands(tuple(bands))


@algorithm("Image.normalizedDifference")
def normalized_difference(input: Image, bandNames: list[str] | None) -> Image:
    """(first - second) / (first + second) of two bands, masked where either is negative."""
    names = bandNames or [band.name for band in input.bands[:2]]
    pair = [input.band(name) for name in names]
    if len(pair) != 2 or pair[0] is None or pair[1] is None:
        raise ServiceError(f"Image.normalizedDifference: needs two bands of the image; got {names}.")
    left, right = pair[0], pair[1]

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        first, second = left.pixels(grid, frames), right.pixels(grid, frames)
        x, y = first.values.astype(np.float64), second.values.astype(np.float64)
        both = np.where(x + y == 0, 1, x + y)
        values = np.where(x + y == 0, 0, (x - y) / both).astype(np.float32)
        return Pixels(values, first.valid & second.valid & (x >= 0) & (y >= 0))

    return input.with_bands((Band("nd", "float32", left.grid, pixels, left.extent, window=left.window),))


@algorithm("Image.where", transparent="input")
def where(input: Image, test: Image, value: Image) -> Image:
    """The value where the test is valid and not 0 and the value is valid, else the input; its mask stays."""
    if len(test.bands) not in (1, len(input.bands)) or len(value.bands) not in (1, len(input.bands)):
        raise ServiceError(
            f"Image.where: 'test' and 'value' must have 1 band or {len(input.bands)}, as 'input'; they have "
            f"{len(test.bands)} and {len(value.bands)}."
        )
    tests = [pair[1] for pair in paired(input, test, "Image.where")]
    values = [pair[1] for pair in paired(input, value, "Image.where")]

    def chosen(band: Band, condition: Band, other: Band) -> Band:
        dtype = union(band.dtype, other.dtype)

        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            own, asked, new = (b.pixels(grid, frames) for b in (band, condition, other))
            replaced = asked.valid & (asked.values != 0) & new.valid
            return Pixels(np.where(replaced, cast(new.values, dtype), cast(own.values, dtype)), own.valid)

        return replace(band, dtype=dtype, pixels=pixels, tiles=())

    return input.with_bands(tuple(map(chosen, input.bands, tests, values)))


@algorithm("Image.remap")
def remap(image: Image, from_: list[Any], to_: list[Any], defaultValue: Any, bandName: str | None) -> Image:
    """One band with values of one list as those of another; others as the default, or masked."""
    band = image.bands[0] if bandName is None and image.bands else image.band(bandName or "")
    numbers = [*from_, *to_, 0 if defaultValue is None else defaultValue]
    if band is None or len(from_) != len(to_) or not all(isinstance(n, int | float) for n in numbers):
        raise ServiceError(
            f"Image.remap: needs a band of the image and lists of as many numbers; got {len(from_)} and {len(to_)}."
        )
    table = np.array([*to_, 0 if defaultValue is None else defaultValue])
    dtype = "int32" if table.dtype.kind in "iu" and np.abs(table).max() < 2**31 else "float64"

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = band.pixels(grid, frames)
        place = np.full(values.shape, len(to_))
        for k in range(len(from_) - 1, -1, -1):
            place[values == from_[k]] = k
        kept = valid if defaultValue is not None else valid & (place < len(to_))
        return Pixels(table[place].astype(dtype), kept)

    return image.with_bands((replace(band, name="remapped", dtype=dtype, pixels=pixels, tiles=()),))
