"""Numbers, and the same operations on the pixels of images."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ee
import numpy as np

from tests.online.answers.case import Case, do, value_of

UNARY: dict[str, tuple[Callable[[Any], Any], tuple[float, ...]]] = {
    "abs": (abs, (-2.5, 3)), "acos": (math.acos, (0.3,)), "asin": (math.asin, (0.3,)), "atan": (math.atan, (-4.0,)),
    "cbrt": (np.cbrt, (27.5,)), "ceil": (math.ceil, (-2.5, 2.1)), "cos": (math.cos, (2.0,)),
    "cosh": (math.cosh, (2.0,)), "exp": (math.exp, (1.5,)), "floor": (math.floor, (-2.5, 2.1)),
    "log": (math.log, (7.0,)), "log10": (math.log10, (7.0,)), "round": (round, (2.4, -2.6, 2.6)),
    "signum": (np.sign, (-2.5, 0, 8)), "sin": (math.sin, (2.0,)), "sinh": (math.sinh, (2.0,)),
    "sqrt": (math.sqrt, (7.0,)), "tan": (math.tan, (2.0,)), "tanh": (math.tanh, (2.0,)), "not": (operator.not_, (0, 7)),
    "bitCount": (int.bit_count, (13, 255)), "bitwiseNot": (operator.invert, (12,)),
    "bitwise_not": (operator.invert, (12,)),
}  # fmt: skip


def _either(choose: Callable[[bool, bool], bool]) -> Callable[[float, float], int]:
    return lambda left, right: int(choose(left != 0, right != 0))


def _nonzero(left: float, right: float) -> float:
    return left if left != 0 else right


PAIRS = ((7, -2.5), (-3, 4), (0, 5), (6, 6))
BITS = ((12, 10), (255, 3))
BINARY: dict[str, tuple[Callable[[Any, Any], Any], tuple[tuple[float, float], ...]]] = {
    "add": (operator.add, PAIRS), "subtract": (operator.sub, PAIRS), "multiply": (operator.mul, PAIRS),
    "divide": (operator.truediv, PAIRS), "mod": (math.fmod, ((7, 4), (9.5, 4))), "pow": (math.pow, ((3, 4), (2, 0.5))),
    "hypot": (math.hypot, ((3, 4), (1, 2.5))), "atan2": (lambda x, y: math.atan2(y, x), ((1, 2), (-3, 0.5))),
    "min": (min, PAIRS), "max": (max, PAIRS), "eq": (operator.eq, PAIRS), "neq": (operator.ne, PAIRS),
    "lt": (operator.lt, PAIRS), "lte": (operator.le, PAIRS), "gt": (operator.gt, PAIRS), "gte": (operator.ge, PAIRS),
    "and": (_either(operator.and_), PAIRS), "or": (_either(operator.or_), ((0, 0), (0, 2), (3, 0))),
    "first": (lambda left, right: left, PAIRS), "firstNonZero": (_nonzero, PAIRS), "first_nonzero": (_nonzero, PAIRS),
    "bitwiseAnd": (operator.and_, BITS), "bitwise_and": (operator.and_, BITS), "bitwiseOr": (operator.or_, BITS),
    "bitwise_or": (operator.or_, BITS), "bitwiseXor": (operator.xor, BITS), "bitwise_xor": (operator.xor, BITS),
    "leftShift": (operator.lshift, ((5, 3),)), "left_shift": (operator.lshift, ((5, 3),)),
    "rightShift": (operator.rshift, ((45, 3),)), "right_shift": (operator.rshift, ((45, 3),)),
}  # fmt: skip

CASTS: dict[str, tuple[str, ...]] = {
    "uint8": ("uint8", "byte", "toUint8", "toByte"), "int8": ("int8", "toInt8"), "uint16": ("uint16", "toUint16"),
    "int16": ("int16", "short", "toInt16", "toShort"), "uint32": ("uint32", "toUint32"),
    "int32": ("int32", "int", "toInt32", "toInt"), "int64": ("int64", "long", "toInt64", "toLong"),
    "float32": ("float", "toFloat"), "float64": ("double", "toDouble"),
}  # fmt: skip
CAST = (-70000.9, -3.7, 200.9, 40000.2, 5e9)


def _cast(dtype: str, value: float) -> float:
    if dtype.startswith("float"):
        return float(np.dtype(dtype).type(value))
    limits = np.iinfo(dtype)
    return min(max(math.trunc(value), int(limits.min)), int(limits.max))


def _number(name: str, *values: float) -> Any:
    return do(f"Number.{name}", *values)


def _pixel(name: str, *values: float) -> Any:
    return value_of(do(f"Image.{name}", *(ee.Image(value) for value in values)))


def _both() -> Iterator[Case]:
    asked: list[tuple[str, tuple[float, ...], Any]] = []
    for name, (single, inputs) in UNARY.items():
        asked += [(name, (value,), float(single(value))) for value in inputs]
    for name, (double, pairs) in BINARY.items():
        asked += [(name, pair, float(double(*pair))) for pair in pairs]
    for dtype, names in CASTS.items():
        asked += [(name, (value,), _cast(dtype, value)) for name in names for value in CAST]
    for name, values, expected in asked:
        yield Case(f"Number.{name}", partial(_number, name, *values), expected)
        yield Case(f"Image.{name}", partial(_pixel, name, *values), expected)


CASES = [
    *_both(),
    Case("Number.clamp", lambda: ee.Number(7).clamp(-1, 4.5), 4.5),
    Case("Number.unitScale", lambda: ee.Number(7).unitScale(-3, 17), 0.5),
    Case("Number.format", lambda: ee.Number(3.14159).format("%08.3f"), f"{3.14159:08.3f}"),
    Case("Number.parse", lambda: ee.Number.parse("-2.5e3"), -2.5e3),
    Case("Number.parse", lambda: ee.Number.parse("7f", 16), int("7f", 16)),
    Case("Image.clamp", lambda: value_of(ee.Image(7).clamp(-1, 4.5)), 4.5),
    Case("Image.unitScale", lambda: value_of(ee.Image(7).unitScale(-3, 17)), 0.5),
]
