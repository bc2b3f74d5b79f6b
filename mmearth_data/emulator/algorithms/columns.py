"""Statistics of the properties of a collection's elements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmearth_data.emulator import reducers
from mmearth_data.emulator.collections import EVERYTHING, Collection, single
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.limits import bounded
from mmearth_data.emulator.reducers import Reducer, numeric
from mmearth_data.emulator.registry import ALGORITHMS, algorithm
from mmearth_data.emulator.values import Date

MAX_ROWS = 1_000_000


def _values(collection: Collection, name: str, where: str) -> Iterable[Any]:
    """A property's values, elements without it left out."""
    for element in collection.elements(EVERYTHING):
        value = single(element, where).properties.get(name)
        if value is not None:
            yield value.ms if isinstance(value, Date) else value


@algorithm("AggregateFeatureCollection.array", aggregates=True)
def aggregate_array(collection: Collection, property: str) -> list[Any]:
    """A property's values, elements without it left out."""
    return bounded(_values(collection, property, "AggregateFeatureCollection.array"))


@algorithm("AggregateFeatureCollection.first", aggregates=True)
def aggregate_first(collection: Collection, property: str) -> Any:
    """The first value of a property, null if there is none."""
    return next(iter(_values(collection, property, "AggregateFeatureCollection.first")), None)


def _numbers(collection: Collection, name: str, where: str) -> list[Any]:
    values = list(_values(collection, name, where))
    strange = next((value for value in values if not isinstance(value, int | float)), None)
    if strange is not None:
        raise ServiceError(f"{where}: the property '{name}' has the value {str(strange)[:60]!r}, which is no number.")
    return values


def _reduced(reducer: Reducer, values: list[Any]) -> Any:
    (result,) = reducer.rows([values], [[1.0] * len(values)])
    return result


_STATISTICS: dict[str, Reducer] = {
    "min": numeric("min", reducers.smallest),
    "max": numeric("max", reducers.largest),
    "mean": numeric("mean", reducers.mean),
    "sum": numeric("sum", reducers.summed, empty=0),
    "product": numeric("product", reducers.product),
    "total_var": numeric("total_var", reducers.variance),
    "total_sd": numeric("total_sd", reducers.root_of(reducers.variance)),
    "sample_var": numeric("sample_var", reducers.sample_variance),
    "sample_sd": numeric("sample_sd", reducers.root_of(reducers.sample_variance)),
}


def _register(name: str, reducer: Reducer) -> None:
    where = f"AggregateFeatureCollection.{name}"

    @algorithm(where, aggregates=True)
    def handler(collection: Collection, property: str) -> Any:
        """Statistic of the numbers among a property."""
        return _reduced(reducer, _numbers(collection, property, where))


for _name, _reducer in _STATISTICS.items():
    _register(_name, _reducer)


@algorithm("AggregateFeatureCollection.count", aggregates=True)
def aggregate_count(collection: Collection, property: str) -> int:
    """How many elements have the property."""
    return sum(1 for _ in _values(collection, property, "AggregateFeatureCollection.count"))


def _registered(name: str) -> Reducer:
    result: Reducer = ALGORITHMS[name].handler()
    return result


@algorithm("AggregateFeatureCollection.count_distinct", aggregates=True)
def aggregate_count_distinct(collection: Collection, property: str) -> Any:
    """How many different values the property has."""
    values = list(_values(collection, property, "AggregateFeatureCollection.count_distinct"))
    return _reduced(_registered("Reducer.countDistinct"), values)


@algorithm("AggregateFeatureCollection.histogram", aggregates=True)
def aggregate_histogram(collection: Collection, property: str) -> Any:
    """How often each value occurs."""
    values = list(_values(collection, property, "AggregateFeatureCollection.histogram"))
    return _reduced(_registered("Reducer.frequencyHistogram"), values)


@algorithm("AggregateFeatureCollection.stats", aggregates=True)
def aggregate_stats(collection: Collection, property: str) -> dict[str, Any]:
    """The usual statistics of a property at once."""
    values = _numbers(collection, property, "AggregateFeatureCollection.stats")
    names = ("min", "max", "mean", "sum", "sample_sd", "sample_var", "total_sd", "total_var")
    squares = sum(value * value for value in values)
    result = {name: _reduced(_STATISTICS[name], values) for name in names}
    return {"total_count": len(values), "valid_count": len(values), "sum_sq": squares, **result}


@algorithm("Collection.reduceColumns", aggregates=True)
def reduce_columns(
    collection: Collection, reducer: Reducer, selectors: list[str], weightSelectors: list[str] | None
) -> dict[str, Any]:
    """The reducer's outputs over properties, one per input, by the outputs' names."""
    where = "Collection.reduceColumns"
    weighted = weightSelectors or []
    if len(selectors) != reducer.inputs or len(weighted) not in (0, reducer.inputs):
        raise ServiceError(
            f"{where}: Need {reducer.inputs} selectors for Reducer.{reducer.name}; got {len(selectors)}"
            + (f" and {len(weighted)} for weights." if weighted else ".")
        )
    columns: list[list[Any]] = [[] for _ in selectors]
    weights: list[list[float]] = [[] for _ in selectors]
    for count, element in enumerate(collection.elements(EVERYTHING)):
        if count >= MAX_ROWS:
            raise ServiceError(f"{where}: the emulator reduces at most {MAX_ROWS} elements.")
        properties = single(element, where).properties
        for k, name in enumerate(selectors):
            value = properties.get(name)
            columns[k].append(value.ms if isinstance(value, Date) else value)
            own = properties.get(weighted[k]) if weighted else 1.0
            weights[k].append(float(own) if isinstance(own, int | float) else 0.0)
    return dict(zip(reducer.outputs, reducer.rows(columns, weights), strict=True))
