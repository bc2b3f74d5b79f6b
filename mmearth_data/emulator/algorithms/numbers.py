"""Numbers, lists and choices."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm

Number = int | float


@algorithm("Number.abs")
def absolute(input: Number) -> Number:
    """The number without its sign."""
    return abs(input)


def _register(name: str, operation: Callable[[Number, Number], Number]) -> None:
    @algorithm(name)
    def handler(left: Number, right: Number) -> Number:
        return operation(left, right)


for _name, _operation in (
    ("Number.add", operator.add),
    ("Number.subtract", operator.sub),
    ("Number.multiply", operator.mul),
):
    _register(_name, _operation)


@algorithm("List.get")
def list_get(list: list[Any], index: int) -> Any:
    """The item at a position; negative positions count from the end."""
    if not -len(list) <= index < len(list):
        raise ServiceError(f"List.get: List index must be between 0 and {len(list) - 1}, inclusive; got {index}.")
    return list[index]


@algorithm("If")
def choose(condition: Any, trueCase: Any, falseCase: Any) -> Any:
    """One of two values; both are computed. Null, false, 0 and the empty string are false."""
    return trueCase if condition not in (None, False, 0, "") else falseCase
