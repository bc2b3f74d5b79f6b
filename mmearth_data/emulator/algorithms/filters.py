"""Filters: tests of an element's properties, time and geometry, and what they let a collection leave out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.collections import EVERYTHING, Filter, Query, compared
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Date, DateRange, Feature, Geometry, Image, moment, shape_of

_GEOMETRY_FIELDS = (".geo", ".all")
_START = "system:time_start"


@dataclass(frozen=True)
class Test:
    """A filter made of a predicate and the query that every passing element satisfies."""

    predicate: Callable[[Feature | Image], bool]
    query: Query = EVERYTHING

    def accepts(self, element: Feature | Image) -> bool:
        """Whether the element passes."""
        return self.predicate(element)


def _operands(
    where: str, leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any
) -> tuple[str, Any, bool]:
    """(field, value, whether the field is on the left): filters of one element compare a field with a value."""
    if leftField is not None and rightField is None and leftValue is None:
        return leftField, rightValue, True
    if rightField is not None and leftField is None and rightValue is None:
        return rightField, leftValue, False
    raise ServiceError(f"{where}: a filter needs a field on one side and a value on the other; joins are not emulated.")


def _comparable(value: Any) -> Any:
    return value.ms if isinstance(value, Date) else value


def _register_comparison(name: str, passes: Callable[[int], bool]) -> None:
    @algorithm(name)
    def handler(leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any) -> Filter:
        field, value, on_left = _operands(name, leftField, rightValue, rightField, leftValue)
        value = _comparable(value)

        def predicate(element: Feature | Image) -> bool:
            order = compared(_comparable(element.properties.get(field)), value)
            return order is not None and passes(order if on_left else -order)

        return Test(predicate)


for _name, _passes in (
    ("Filter.equals", lambda order: order == 0),
    ("Filter.lessThan", lambda order: order < 0),
    ("Filter.lessThanOrEquals", lambda order: order <= 0),
    ("Filter.greaterThan", lambda order: order > 0),
    ("Filter.greaterThanOrEquals", lambda order: order >= 0),
    ("Filter.notEquals", lambda order: order != 0),
):
    _register_comparison(_name, _passes)


@algorithm("Filter.listContains")
def list_contains(leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any) -> Filter:
    """Passes if the list on the left contains the value on the right."""
    field, value, on_left = _operands("Filter.listContains", leftField, rightValue, rightField, leftValue)

    def predicate(element: Feature | Image) -> bool:
        own = element.properties.get(field)
        members, member = (own, value) if on_left else (value, own)
        return isinstance(members, list | tuple) and any(compared(item, member) == 0 for item in members)

    return Test(predicate)


@algorithm("Filter.notNull")
def not_null(properties: list[str]) -> Filter:
    """Passes if none of the properties is null or missing."""
    return Test(lambda element: all(element.properties.get(name) is not None for name in properties))


@algorithm("Filter.dateRangeContains")
def date_range_contains(leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any) -> Filter:
    """Passes if the range on the left contains the time on the right."""
    field, value, on_left = _operands("Filter.dateRangeContains", leftField, rightValue, rightField, leftValue)
    if on_left or not isinstance(value, DateRange):
        raise ServiceError("Filter.dateRangeContains: leftValue must be a DateRange, rightField a property of times.")

    def predicate(element: Feature | Image) -> bool:
        time = element.properties.get(field)
        return time is not None and value.start <= moment(time) < value.end

    return Test(predicate, Query(start=value.start, end=value.end) if field == _START else EVERYTHING)


def _region(where: str, value: Any) -> BaseGeometry:
    geometry = value.geometry if isinstance(value, Feature) else value
    if isinstance(value, Image):
        return shape_of(value)
    if not isinstance(geometry, Geometry):
        raise ServiceError(f"{where}: the value must be a geometry or a feature with one.")
    return geometry.degrees


def _register_spatial(name: str, relation: Callable[[BaseGeometry, BaseGeometry], Any]) -> None:
    """``relation`` is of (left, right)."""

    @algorithm(name)
    def handler(
        leftField: str | None, rightValue: Any, rightField: str | None, leftValue: Any, maxError: Any
    ) -> Filter:
        field, value, on_left = _operands(name, leftField, rightValue, rightField, leftValue)
        if field not in _GEOMETRY_FIELDS:
            raise ServiceError(f"{name}: the emulator compares geometries of '.geo' or '.all', not of '{field}'.")
        region = _region(name, value)
        shapely.prepare(region)

        def predicate(element: Feature | Image) -> bool:
            shape = shape_of(element)
            if shape is None:
                return False
            return bool(relation(shape, region) if on_left else relation(region, shape))

        west, south, east, north = region.bounds
        return Test(predicate, EVERYTHING if region.is_empty else Query(bounds=(west, south, east, north)))


for _name, _relation in (
    ("Filter.intersects", shapely.intersects),
    ("Filter.contains", shapely.covers),
    ("Filter.isContained", shapely.covered_by),
):
    _register_spatial(_name, _relation)


@algorithm("Filter.and")
def conjunction(filters: list[Filter]) -> Filter:
    """Passes if all filters do."""
    query = EVERYTHING
    for part in filters:
        query = query.both(part.query)
    return Test(lambda element: all(part.accepts(element) for part in filters), query)


@algorithm("Filter.or")
def disjunction(filters: list[Filter]) -> Filter:
    """Passes if one of the filters does."""
    return Test(lambda element: any(part.accepts(element) for part in filters))


@algorithm("Filter.not")
def negation(filter: Filter) -> Filter:
    """Passes if the filter does not."""
    return Test(lambda element: not filter.accepts(element))
