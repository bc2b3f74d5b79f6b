"""Lists: parts of them, order, sets, and functions over their items."""

from __future__ import annotations

import random
from functools import cmp_to_key
from typing import Any

from mmearth_data.emulator.binding import promoted
from mmearth_data.emulator.collections import compared
from mmearth_data.emulator.encode import value as encoded
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.reducers import Reducer
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Feature, Function, Image

MAX_ITEMS = 100_000
Items = list[Any]


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal: numbers by value, lists and dictionaries item by item, all else as it is sent."""
    if isinstance(left, int | float | str) or left is None or isinstance(right, int | float | str) or right is None:
        return type(left) is type(right) and left == right if isinstance(left, str | bool) else left == right
    return left is right or bool(encoded(left) == encoded(right))


def ordered(items: Items, where: str) -> list[int]:
    """The places of items from the smallest to the largest."""

    def compare(left: int, right: int) -> int:
        order = compared(items[left], items[right])
        if order is None:
            raise ServiceError(f"{where}: Can't compare the items with each other.")
        return order

    return sorted(range(len(items)), key=cmp_to_key(compare))


def _short(count: int, where: str) -> int:
    if not 0 <= count <= MAX_ITEMS:
        raise ServiceError(f"{where}: a list has 0 to {MAX_ITEMS} items; got {count}.")
    return count


def _place(list: Items, index: int, where: str, end: int = 0) -> int:
    place = index + len(list) if index < 0 else index
    if not 0 <= place < len(list) + end:
        raise ServiceError(f"{where}: List index must be between 0 and {len(list) - 1 + end}, inclusive; got {index}.")
    return place


@algorithm("List.get")
def get(list: Items, index: int) -> Any:
    """The item at a position; negative positions count from the end."""
    return list[_place(list, index, "List.get")]


def _typed(name: str, wanted: str) -> None:
    @algorithm(name)
    def handler(list: Items, index: int) -> Any:
        """The item at a position as that type."""
        return promoted(list[_place(list, index, name)], wanted, f"{name}: the item")


_typed("List.getNumber", "Number")
_typed("List.getString", "String")
_typed("List.getGeometry", "Geometry")


@algorithm("List.set")
def set_item(list: Items, index: int, element: Any) -> Items:
    """The list with one item replaced."""
    place = _place(list, index, "List.set")
    return [*list[:place], element, *list[place + 1 :]]


@algorithm("List.insert")
def insert(list: Items, index: int, element: Any) -> Items:
    """The list with an item put before a position."""
    place = _place(list, index, "List.insert", 1)
    return [*list[:place], element, *list[place:]]


@algorithm("List.splice")
def splice(list: Items, start: int, count: int, other: Items | None) -> Items:
    """The list with some items replaced by another list's."""
    place = _place(list, start, "List.splice", 1)
    return [*list[:place], *(other or []), *list[place + max(count, 0) :]]


@algorithm("List.swap")
def swap(list: Items, pos1: int, pos2: int) -> Items:
    """The list with two items exchanged."""
    first, second = (_place(list, place, "List.swap") for place in (pos1, pos2))
    result = [*list]
    result[first], result[second] = result[second], result[first]
    return result


@algorithm("List.add")
def add(list: Items, element: Any) -> Items:
    """The list with one more item."""
    return [*list, element]


@algorithm("List.cat")
def cat(list: Items, other: Items) -> Items:
    """Two lists, one after the other."""
    _short(len(list) + len(other), "List.cat")
    return [*list, *other]


@algorithm("List.slice")
def sliced(list: Items, start: int, end: int | None, step: int | None) -> Items:
    """Items from one position up to another, every so many; negative positions count from the end."""
    if step is not None and step < 1:
        raise ServiceError(f"List.slice: 'step' must be positive; got {step}.")
    return list[start:end:step]


@algorithm("List.size", "List.length")
def size(list: Items) -> int:
    """The number of items."""
    return len(list)


@algorithm("List.reverse")
def reverse(list: Items) -> Items:
    """The items from last to first."""
    return list[::-1]


@algorithm("List.rotate")
def rotate(list: Items, distance: int) -> Items:
    """The items moved towards the front, those that fall off put at the end."""
    shift = distance % len(list) if list else 0
    return [*list[shift:], *list[:shift]]


@algorithm("List.sort")
def sort(list: Items, keys: Items | None) -> Items:
    """The items in order, or in the order of keys, one per item."""
    own = list if keys is None else keys
    if len(own) != len(list):
        raise ServiceError(f"List.sort: {len(own)} keys for {len(list)} items.")
    return [list[place] for place in ordered(own, "List.sort")]


@algorithm("List.shuffle")
def shuffle(list: Items, seed: Any) -> Items:
    """The items in a random order that depends on the seed alone."""
    result = [*list]
    if seed is not False:
        random.Random(f"{seed}").shuffle(result)
    return result


@algorithm("List.contains")
def contains(list: Items, element: Any) -> bool:
    """Whether an item equals a value."""
    return any(same(item, element) for item in list)


@algorithm("List.containsAll")
def contains_all(list: Items, other: Items) -> bool:
    """Whether every item of another list is in this one."""
    return all(contains(list, item) for item in other)


@algorithm("List.indexOf")
def index_of(list: Items, element: Any) -> int:
    """The first position of a value, -1 if there is none."""
    return next((place for place, item in enumerate(list) if same(item, element)), -1)


@algorithm("List.frequency")
def frequency(list: Items, element: Any) -> int:
    """How often a value occurs."""
    return sum(same(item, element) for item in list)


@algorithm("List.distinct")
def distinct(list: Items) -> Items:
    """The items without repetitions."""
    result: Items = []
    seen: set[Any] = set()
    for item in list:
        key = (type(item) is str, item) if isinstance(item, int | float | str) else None
        if key is not None and key not in seen:
            seen.add(key)
            result.append(item)
        elif key is None and not contains(result, item):
            result.append(item)
    return result


@algorithm("List.equals")
def equals(list: Items, other: Items) -> bool:
    """Whether two lists have equal items in the same order."""
    return same(list, other)


@algorithm("List.remove")
def remove(list: Items, element: Any) -> Items:
    """The list without the first item that equals a value."""
    place = index_of(list, element)
    return [*list] if place < 0 else [*list[:place], *list[place + 1 :]]


@algorithm("List.removeAll")
def remove_all(list: Items, other: Items) -> Items:
    """The items that are not in another list."""
    return [item for item in list if not contains(other, item)]


@algorithm("List.replace")
def replace(list: Items, oldval: Any, newval: Any) -> Items:
    """The list with the first of a value replaced."""
    place = index_of(list, oldval)
    return [*list] if place < 0 else [*list[:place], newval, *list[place + 1 :]]


@algorithm("List.replaceAll")
def replace_all(list: Items, oldval: Any, newval: Any) -> Items:
    """The list with all of a value replaced."""
    return [newval if same(item, oldval) else item for item in list]


@algorithm("List.repeat")
def repeat(value: Any, count: int) -> Items:
    """A list of one value."""
    return [value] * _short(count, "List.repeat")


@algorithm("List.sequence")
def sequence(start: float, end: float | None, step: float, count: int | None) -> Items:
    """Numbers from a start to an end, inclusive, by steps; or so many of them, evenly."""
    where = "List.sequence"
    if count is not None:
        _short(count, where)
        if count < 1:
            raise ServiceError(f"{where}: 'count' must be positive; got {count}.")
        width = step if end is None else (end - start) / (count - 1) if count > 1 else 0
        return [start + k * width for k in range(count)]
    if end is None or step == 0 or not abs((end - start) / step) < MAX_ITEMS:
        raise ServiceError(
            f"{where}: needs an end, or a count, and a step that reaches it; got {start}, {end}, {step}."
        )
    return [start + k * step for k in range(int((end - start) / step + 1e-9) + 1)] if (end - start) / step >= 0 else []


@algorithm("List.zip")
def zipped(list: Items, other: Items) -> Items:
    """Pairs of the items of two lists, as many as the shorter has."""
    return [[first, second] for first, second in zip(list, other, strict=False)]


@algorithm("List.unzip")
def unzip(list: Items) -> Items:
    """A list of pairs as a pair of lists."""
    if not all(isinstance(item, _LIST) and len(item) == 2 for item in list):
        raise ServiceError("List.unzip: every item must be a list of two.")
    return [[item[0] for item in list], [item[1] for item in list]]


_LIST = list


@algorithm("List.flatten")
def flatten(list: Items) -> Items:
    """The items, with lists within lists opened."""
    result: Items = []
    for item in list:
        result.extend(flatten(item) if isinstance(item, _LIST) else [item])
    return result


@algorithm("List.join")
def join(list: Items, separator: str) -> str:
    """The items as one text."""
    return separator.join("" if item is None else text_of(item) for item in list)


def text_of(value: Any) -> str:
    """A number or a text as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, int | float | str):
        return str(value)
    raise ServiceError(f"String: the emulator writes numbers as texts; got {type(value).__name__}.")


@algorithm("List.map")
def mapped(list: Items, baseAlgorithm: Function, dropNulls: bool) -> Items:
    """A function of every item."""
    results = [baseAlgorithm(item) for item in list]
    return [result for result in results if result is not None] if dropNulls else results


@algorithm("List.filter")
def filtered(list: Items, filter: Any) -> Items:
    """The items that pass a filter; those that are no elements are its property 'item'."""
    kept = []
    for item in list:
        element = item if isinstance(item, Feature | Image) else Feature(None, {"item": item})
        if filter.accepts(element):
            kept.append(item)
    return kept


@algorithm("List.iterate")
def iterate(list: Items, function: Function, first: Any) -> Any:
    """A function of each item and of its result for the item before."""
    result = first
    for item in list:
        result = function(item, result)
    return result


@algorithm("List.reduce")
def reduced(list: Items, reducer: Reducer) -> Any:
    """The reducer's output over the items, or a dictionary of its outputs; several inputs take lists as items."""
    if reducer.inputs > 1:
        rows = [item for item in list if isinstance(item, _LIST) and len(item) >= reducer.inputs]
        if len(rows) != len(list):
            raise ServiceError(f"List.reduce: every item must be a list of {reducer.inputs}.")
        columns = [[row[k] for row in rows] for k in range(reducer.inputs)]
    else:
        columns = [list]
    outputs = reducer.rows(columns, [[1.0] * len(list)] * len(columns))
    return outputs[0] if len(outputs) == 1 else dict(zip(reducer.outputs, outputs, strict=True))
