"""Filters: tests of an element's properties, time and geometry, or of two elements that are to be joined.

A filter compares a field with a value, which also tells what a collection may leave out; or a field of one element
with a field of another, which joins use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.algorithms.shapes import distance as metres_between
from mmearth_data.emulator.collections import EVERYTHING, Filter, Query, compared
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Date, DateRange, Feature, Geometry, Image, moment, shape_of

Item = Feature | Image
Compare = Callable[[Any, Any], float | bool | None]
"""Of a left and a right value: None or false if they do not satisfy the filter, else true or how far apart they are."""
_GEOMETRY_FIELDS = (".geo", ".all")
_START = "system:time_start"


@dataclass(frozen=True)
class Test:
    """A filter made of predicates of one element and of two, and the query that every passing element satisfies."""

    predicate: Callable[[Item], bool]
    query: Query = EVERYTHING
    pair: Callable[[Item, Item], float | bool | None] | None = None

    def accepts(self, element: Item) -> bool:
        """Whether the element passes."""
        return self.predicate(element)

    def between(self, left: Item, right: Item) -> float | None:
        """How far apart two elements are that are to be joined; None if they are not."""
        if self.pair is None:
            return 0.0 if self.predicate(left) else None
        result = self.pair(left, right)
        return None if result is None or result is False else float(result) if result is not True else 0.0


def _refuse(where: str) -> Callable[[Item], bool]:
    def predicate(element: Item) -> bool:
        raise ServiceError(f"{where}: a filter of two fields compares elements of two collections; use it in a join.")

    return predicate


def _test(
    where: str,
    fields: tuple[str | None, Any, str | None, Any],
    compare: Compare,
    read: Callable[[Item, str], Any] = lambda element, field: element.properties.get(field),
    query: Callable[[Any], Query] = lambda value: EVERYTHING,
) -> Test:
    """The filter of a comparison; ``fields`` are leftField, rightValue, rightField, leftValue."""
    left_field, right_value, right_field, left_value = fields
    if left_field is not None and right_field is not None and left_value is None and right_value is None:
        return Test(_refuse(where), pair=lambda left, right: compare(read(left, left_field), read(right, right_field)))
    if left_field is not None and right_field is None and left_value is None:
        return Test(lambda element: _passes(compare(read(element, left_field), right_value)), query(right_value))
    if right_field is not None and left_field is None and right_value is None:
        return Test(lambda element: _passes(compare(left_value, read(element, right_field))), query(left_value))
    raise ServiceError(f"{where}: a filter needs a field on one side, and a value or a field on the other.")


def _passes(result: float | bool | None) -> bool:
    return result is not None and result is not False


def _comparable(value: Any) -> Any:
    return value.ms if isinstance(value, Date) else value


def _ordering(passes: Callable[[int], bool]) -> Compare:
    def compare(left: Any, right: Any) -> bool:
        order = compared(_comparable(left), _comparable(right))
        return order is not None and passes(order)

    return compare


def _contains(members: Any, member: Any) -> bool:
    if not isinstance(members, list | tuple):
        return False
    return any(compared(_comparable(item), _comparable(member)) == 0 for item in members)


def _texts(relation: Callable[[str, str], bool]) -> Compare:
    return lambda left, right: isinstance(left, str) and isinstance(right, str) and relation(left, right)


def _type_name(value: Any, name: Any) -> bool:
    known = {"number": (int, float), "string": (str,), "list": (list, tuple), "dictionary": (dict,)}
    return isinstance(name, str) and isinstance(value, known.get(name.lower(), ())) and not isinstance(value, bool)


def _register(names: tuple[str, ...], compare: Compare) -> None:
    @algorithm(*names)
    def handler(leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any) -> Filter:
        """A field compared with a value, or two fields in a join; what cannot be compared does not pass."""
        return _test(names[0], (leftField, rightValue, rightField, leftValue), compare)


for _names, _compare in (
    (("Filter.equals", "Filter.eq"), _ordering(lambda order: order == 0)),
    (("Filter.lessThan", "Filter.lt"), _ordering(lambda order: order < 0)),
    (("Filter.lessThanOrEquals", "Filter.lte"), _ordering(lambda order: order <= 0)),
    (("Filter.greaterThan", "Filter.gt"), _ordering(lambda order: order > 0)),
    (("Filter.greaterThanOrEquals", "Filter.gte"), _ordering(lambda order: order >= 0)),
    (("Filter.notEquals", "Filter.neq"), _ordering(lambda order: order != 0)),
    (("Filter.listContains",), _contains),
    (("Filter.inList",), lambda left, right: _contains(right, left)),
    (("Filter.stringContains",), _texts(lambda left, right: right in left)),
    (("Filter.stringStartsWith",), _texts(str.startswith)),
    (("Filter.stringEndsWith",), _texts(str.endswith)),
    (("Filter.hasType",), _type_name),
):
    _register(_names, _compare)


@algorithm("Filter.notNull")
def not_null(properties: list[str]) -> Filter:
    """Passes if none of the properties is null or missing."""
    return Test(lambda element: all(element.properties.get(name) is not None for name in properties))


@algorithm("Filter.rangeContains")
def range_contains(field: str, minValue: Any, maxValue: Any) -> Filter:
    """Passes if a property is between two values, both included."""
    low, high = _comparable(minValue), _comparable(maxValue)

    def predicate(element: Item) -> bool:
        value = _comparable(element.properties.get(field))
        return compared(value, low) in (0, 1) and compared(value, high) in (0, -1)

    return Test(predicate)


@algorithm("Filter.maxDifference")
def max_difference(
    difference: float, leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any
) -> Filter:
    """Passes if two numbers or times differ by no more than that; joins measure the difference."""

    def compare(left: Any, right: Any) -> float | None:
        left, right = _comparable(left), _comparable(right)
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            return None
        return float(abs(left - right)) if abs(left - right) <= difference else None

    return _test("Filter.maxDifference", (leftField, rightValue, rightField, leftValue), compare)


@algorithm("Filter.dateRangeContains")
def date_range_contains(leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any) -> Filter:
    """Passes if the range on the left contains the time on the right."""
    if leftField is not None or not isinstance(leftValue, DateRange):
        raise ServiceError("Filter.dateRangeContains: leftValue must be a DateRange, rightField a property of times.")

    def compare(span: DateRange, time: Any) -> bool:
        return time is not None and span.start <= moment(time) < span.end

    def query(span: DateRange) -> Query:
        return Query(start=span.start, end=span.end) if rightField == _START else EVERYTHING

    return _test("Filter.dateRangeContains", (None, rightValue, rightField, leftValue), compare, query=query)


_PARTS: dict[str, Callable[[datetime], int]] = {
    "day_of_year": lambda date: date.timetuple().tm_yday,
    "day_of_month": lambda date: date.day,
    "day_of_week": lambda date: date.isoweekday(),
    "hour": lambda date: date.hour,
    "minute": lambda date: date.minute,
    "month": lambda date: date.month,
    "year": lambda date: date.year,
}


@algorithm("Filter.calendarRange")
def calendar_range(start: int, end: int | None, field: str) -> Filter:
    """Passes if a part of the element's time is from one value to another, both included; it may wrap around."""
    if field not in _PARTS:
        raise ServiceError(f"Filter.calendarRange: unknown field '{field}'; use {', '.join(_PARTS)}.")
    part = _PARTS[field]
    last = start if end is None else end

    def predicate(element: Item) -> bool:
        time = element.properties.get(_START)
        if time is None:
            return False
        value = part(Date(moment(time)).utc)
        return start <= value <= last if start <= last else value >= start or value <= last

    return Test(predicate)


@algorithm("Filter.dayOfYear")
def day_of_year(start: int, end: int) -> Filter:
    """Passes from one day of the year to another, both included; it may wrap around."""
    return calendar_range(start, end, "day_of_year")


@algorithm("Filter.hasGeometry")
def has_geometry() -> Filter:
    """Passes if the element has a geometry."""
    return Test(lambda element: shape_of(element) is not None)


@algorithm("Filter.always")
def always() -> Filter:
    """Passes."""
    return Test(lambda element: True)


@algorithm("Filter.never")
def never() -> Filter:
    """Never passes."""
    return Test(lambda element: False)


def _region(where: str, value: Any) -> BaseGeometry:
    geometry = value.geometry if isinstance(value, Feature) else value
    if isinstance(value, Image):
        return shape_of(value)
    if not isinstance(geometry, Geometry):
        raise ServiceError(f"{where}: the value must be a geometry or a feature with one.")
    return geometry.degrees


def _spatial(where: str, fields: tuple[str | None, Any, str | None, Any], relation: Compare, touching: bool) -> Filter:
    """A filter of geometries; ``touching`` if only those whose bounds meet can pass."""
    left_field, right_value, right_field, left_value = fields
    for field in (left_field, right_field):
        if field is not None and field not in _GEOMETRY_FIELDS:
            raise ServiceError(f"{where}: the emulator compares geometries of '.geo' or '.all', not of '{field}'.")
    if right_value is None and left_value is None and (left_field is None or right_field is None):
        raise ServiceError(f"{where}: the filter has no geometry to compare with; give it a value or a second field.")
    right, left = (None if value is None else _region(where, value) for value in (right_value, left_value))
    shapely.prepare([shape for shape in (right, left) if shape is not None])

    def compare(first: BaseGeometry | None, second: BaseGeometry | None) -> float | bool | None:
        return None if first is None or second is None else relation(first, second)

    def query(region: BaseGeometry) -> Query:
        if region.is_empty or not touching:
            return EVERYTHING
        west, south, east, north = region.bounds
        return Query(bounds=(west, south, east, north))

    return _test(
        where, (left_field, right, right_field, left), compare, lambda element, field: shape_of(element), query
    )


def _register_spatial(name: str, relation: Callable[[BaseGeometry, BaseGeometry], Any], touching: bool) -> None:
    @algorithm(name)
    def handler(
        leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any, maxError: Any
    ) -> Filter:
        """Geometries compared in longitude and latitude, planar once their edges are bent."""
        fields = (leftField, rightValue, rightField, leftValue)
        return _spatial(name, fields, lambda left, right: bool(relation(left, right)), touching)


for _name, _relation, _touching in (
    ("Filter.intersects", shapely.intersects, True),
    ("Filter.contains", shapely.covers, True),
    ("Filter.isContained", shapely.covered_by, True),
    ("Filter.disjoint", shapely.disjoint, False),
):
    _register_spatial(_name, _relation, _touching)


@algorithm("Filter.withinDistance")
def within_distance(
    distance: float, leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any, maxError: Any
) -> Filter:
    """Passes if two geometries come as near as so many metres; joins measure the distance."""

    def relation(left: BaseGeometry, right: BaseGeometry) -> float | None:
        apart = metres_between(Geometry(left), Geometry(right), None, "Filter.withinDistance")
        return apart if apart <= distance and apart < math.inf else None

    return _spatial("Filter.withinDistance", (leftField, rightValue, rightField, leftValue), relation, False)


@algorithm("Filter.and")
def conjunction(filters: list[Filter]) -> Filter:
    """Passes if all filters do; of two elements it measures the farthest."""
    query = EVERYTHING
    for part in filters:
        query = query.both(part.query)

    def between(left: Item, right: Item) -> float | None:
        measures = [part.between(left, right) for part in filters]
        known = [measure for measure in measures if measure is not None]
        return max(known, default=0.0) if len(known) == len(measures) else None

    return Test(lambda element: all(part.accepts(element) for part in filters), query, between)


@algorithm("Filter.or")
def disjunction(filters: list[Filter]) -> Filter:
    """Passes if one of the filters does; of two elements it measures the nearest."""

    def between(left: Item, right: Item) -> float | None:
        measures = [part.between(left, right) for part in filters]
        return min((measure for measure in measures if measure is not None), default=None)

    return Test(lambda element: any(part.accepts(element) for part in filters), EVERYTHING, between)


@algorithm("Filter.not")
def negation(filter: Filter) -> Filter:
    """Passes if the filter does not."""

    def between(left: Item, right: Item) -> float | None:
        return 0.0 if filter.between(left, right) is None else None

    return Test(lambda element: not filter.accepts(element), EVERYTHING, between)
