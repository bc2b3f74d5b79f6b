"""Numbers, and choices between values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from mmearth_data.emulator.bands import integer_range
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm

Number = int | float
MAX_BITS = 1024
"""Integers are exact up to this size."""


def _computed(where: str, operation: Callable[..., Any], *numbers: Number) -> Number:
    """An operation's result; a 400 where it has none."""
    try:
        result = operation(*numbers)
    except (ValueError, OverflowError, ZeroDivisionError, TypeError) as error:
        raise ServiceError(f"{where}: no result for {', '.join(str(n)[:40] for n in numbers)} ({error}).") from None
    if isinstance(result, complex) or (isinstance(result, int) and result.bit_length() > MAX_BITS):
        raise ServiceError(f"{where}: no result for {', '.join(str(n)[:40] for n in numbers)} (out of range).")
    number: Number = int(result) if isinstance(result, bool) else result
    return number


_Named = tuple[tuple[str, ...], Callable[..., Any]]


def _register_pair(name: str, operation: Callable[[Any, Any], Any]) -> None:
    @algorithm(f"Number.{name}")
    def handler(left: Number, right: Number) -> Number:
        """An operation of two numbers; a quotient by 0 is 0, integers stay exact."""
        return _computed(f"Number.{name}", operation, left, right)


def _divided(left: Number, right: Number) -> Number:
    return left / right if right else 0


def _power(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int) and 0 <= right <= MAX_BITS:
        return 1 if right == 0 else left**right if left.bit_length() * right <= MAX_BITS else float(left) ** right
    power: Number = float(left) ** float(right)
    return power


def _modulo(left: Number, right: Number) -> Number:
    if not right:
        return 0
    whole = isinstance(left, int) and isinstance(right, int)
    return int(math.copysign(abs(left) % abs(right), left)) if whole else math.fmod(left, right)


def _shifted(operation: Callable[[int, int], int]) -> Callable[[Number, Number], int]:
    return lambda left, right: operation(int(left), min(max(int(right), 0), 63))


def _bits(operation: Callable[[int, int], int]) -> Callable[[Number, Number], int]:
    return lambda left, right: operation(int(left), int(right))


_PAIRS: tuple[_Named, ...] = (
    (("add",), operator.add), (("subtract",), operator.sub), (("multiply",), operator.mul),
    (("divide",), _divided), (("mod",), _modulo), (("pow",), _power), (("hypot",), math.hypot),
    (("atan2",), lambda x, y: math.atan2(y, x)), (("min",), min), (("max",), max),
    (("eq",), operator.eq), (("neq",), operator.ne), (("lt",), operator.lt), (("lte",), operator.le),
    (("gt",), operator.gt), (("gte",), operator.ge),
    (("and",), lambda left, right: bool(left) and bool(right)),
    (("or",), lambda left, right: bool(left) or bool(right)),
    (("first",), lambda left, right: left),
    (("firstNonZero", "first_nonzero"), lambda left, right: left or right),
    (("bitwiseAnd", "bitwise_and"), _bits(operator.and_)), (("bitwiseOr", "bitwise_or"), _bits(operator.or_)),
    (("bitwiseXor", "bitwise_xor"), _bits(operator.xor)),
    (("leftShift", "left_shift"), _shifted(operator.lshift)),
    (("rightShift", "right_shift"), _shifted(operator.rshift)),
)  # fmt: skip
for _names, _operation in _PAIRS:
    for _name in _names:
        _register_pair(_name, _operation)


def _register_one(name: str, operation: Callable[[Any], Any]) -> None:
    @algorithm(f"Number.{name}")
    def handler(input: Number) -> Number:
        """A function of one number, refused where it has no value."""
        return _computed(f"Number.{name}", operation, input)


def _to(dtype: str) -> Callable[[Number], int]:
    low, high = integer_range(np.dtype(dtype))
    return lambda number: 0 if math.isnan(number) else int(min(max(number, low), high))


def _to_float(number: Number) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


_SINGLES: tuple[_Named, ...] = (
    (("abs",), abs), (("ceil",), math.ceil), (("floor",), math.floor),
    (("round",), lambda number: math.floor(number + 0.5)),
    (("sqrt",), math.sqrt), (("cbrt",), math.cbrt), (("exp",), math.exp), (("log",), math.log),
    (("log10",), math.log10), (("sin",), math.sin), (("cos",), math.cos), (("tan",), math.tan),
    (("asin",), math.asin), (("acos",), math.acos), (("atan",), math.atan), (("sinh",), math.sinh),
    (("cosh",), math.cosh), (("tanh",), math.tanh),
    (("signum",), lambda number: (number > 0) - (number < 0)),
    (("not",), lambda number: not number),
    (("bitwiseNot", "bitwise_not"), lambda number: ~int(number)),
    (("bitCount",), lambda number: int(number).bit_count()),
    (("toUint8", "toByte", "uint8", "byte"), _to("uint8")), (("toInt8", "int8"), _to("int8")),
    (("toUint16", "uint16"), _to("uint16")), (("toInt16", "int16", "toShort", "short"), _to("int16")),
    (("toUint32", "uint32"), _to("uint32")), (("toInt32", "int32", "toInt", "int"), _to("int32")),
    (("toInt64", "int64", "toLong", "long"), _to("int64")),
    (("toFloat", "float"), _to_float), (("toDouble", "double"), float),
)  # fmt: skip
for _names, _function in _SINGLES:
    for _name in _names:
        _register_one(_name, _function)


@algorithm("Number.clamp")
def clamp(number: Number, min: float, max: float) -> Number:
    """The number, or the bound that it lies beyond."""
    return min if number < min else max if number > max else number


@algorithm("Number.unitScale")
def unit_scale(number: Number, min: float, max: float) -> Number:
    """A number from ``min`` to ``max`` as 0 to 1."""
    return _computed("Number.unitScale", lambda: (number - min) / (max - min))


@algorithm("Number.parse")
def parse(input: str, radix: int) -> Number:
    """The number that a text writes."""
    try:
        if radix == 10:
            value = float(input)
            return int(value) if value.is_integer() and "." not in input and "e" not in input.lower() else value
        return int(input[:MAX_BITS], radix)
    except (ValueError, OverflowError):
        raise ServiceError(f"Number.parse: '{input[:40]}' is no number in base {radix}.") from None


@algorithm("Number.format")
def formatted(number: Number, pattern: str) -> str:
    """The number as text, by a pattern such as %.2f, %d or %05d."""
    sign, rest = pattern[:1], pattern[1:]
    width, _, precision = rest[:-1].lstrip("+-0 ,#").partition(".")
    small = all(not part or (part.isdigit() and len(part) <= 3) for part in (width, precision))
    if pattern == "%s":
        return str(number)
    if sign != "%" or rest[-1:] not in ("d", "f", "e", "g", "x", "o") or not small or "%" in rest:
        raise ServiceError(f"Number.format: the emulator does not know the pattern '{pattern[:40]}'.")
    if rest[-1] in "dxo":
        number = int(_computed("Number.format", math.trunc, number))
    grouped = "," in rest
    try:
        text = f"%{rest.replace(',', '')}" % number
        return f"{float(text):,.{precision or 0}f}" if grouped else text
    except (ValueError, OverflowError, TypeError):
        raise ServiceError(f"Number.format: the pattern '{pattern[:40]}' cannot write {number}.") from None


@algorithm("If")
def choose(condition: Any, trueCase: Any, falseCase: Any) -> Any:
    """One of two values; both are computed. Null, false, 0 and the empty string are false."""
    return trueCase if condition not in (None, False, 0, "") else falseCase
