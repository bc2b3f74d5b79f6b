"""Reducers by name, and how they are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmearth_data.emulator import reducers
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.reducers import Half, Reducer, numeric
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image, hashable

MAX_COPIES = 1000


def _register(names: tuple[str, ...], reducer: Reducer) -> None:
    @algorithm(*names)
    def handler() -> Reducer:
        """Statistic of the inputs that are neither null nor masked, weighted where that means anything."""
        return reducer


for _names, _reducer in (
    (("Reducer.mean",), numeric("mean", reducers.mean)),
    (("Reducer.sum",), numeric("sum", reducers.summed, empty=0)),
    (("Reducer.count",), numeric("count", reducers.count, types=("int32",), weighted=False, empty=0)),
    (("Reducer.product",), numeric("product", reducers.product, weighted=False)),
    (("Reducer.variance",), numeric("variance", reducers.variance)),
    (("Reducer.stdDev",), numeric("stdDev", reducers.root_of(reducers.variance))),
    (("Reducer.sampleVariance",), numeric("sampleVariance", reducers.sample_variance)),
    (("Reducer.sampleStdDev",), numeric("sampleStdDev", reducers.root_of(reducers.sample_variance))),
    (("Reducer.skew",), numeric("skew", reducers.standardised(3, 0.0))),
    (("Reducer.kurtosis",), numeric("kurtosis", reducers.standardised(4, 3.0))),
    (("Reducer.anyNonZero", "Reducer.or"), numeric("any", reducers.any_nonzero, types=("uint8",), weighted=False)),
    (("Reducer.allNonZero", "Reducer.and"), numeric("all", reducers.all_nonzero, types=("uint8",), weighted=False)),
    (
        ("Reducer.linearFit",),
        numeric("linearFit", reducers.line, outputs=("scale", "offset"), types=("float64",) * 2, inputs=2),
    ),
):
    _register(_names, _reducer)


def _register_ends(name: str, statistic: reducers.Statistic) -> None:
    reducer = numeric(name, statistic, types=(None,), weighted=False)

    @algorithm(f"Reducer.{name}", f"Reducer.{name}NonNull")
    def handler() -> Reducer:
        """The first or last input that is not null."""
        return reducer


_register_ends("first", reducers.at_end(last=False))
_register_ends("last", reducers.at_end(last=True))


def _register_extreme(name: str, statistic: reducers.Statistic) -> None:
    alone = numeric(name, statistic, types=(None,), weighted=False)

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        """The extreme of the first input with the other inputs of that row."""
        known = [k for k, value in enumerate(columns[0]) if value is not None and weights[0][k] > 0]
        (best,) = alone.rows(columns[:1], weights[:1])
        place = next((k for k in known if columns[0][k] == best), None)
        return [None if place is None else column[place] for column in columns]

    @algorithm(f"Reducer.{name}")
    def handler(numInputs: int) -> Reducer:
        """The smallest or largest input, with the other inputs beside it if there are several."""
        if not 1 <= numInputs <= MAX_COPIES:
            raise ServiceError(f"Reducer.{name}: 'numInputs' must be between 1 and {MAX_COPIES}; got {numInputs}.")
        if numInputs == 1:
            return alone
        outputs = (name, *(f"{name}{k}" for k in range(1, numInputs)))
        return Reducer(name, numInputs, outputs, rows, weighted=False)


_register_extreme("min", reducers.smallest)
_register_extreme("max", reducers.largest)


@algorithm("Reducer.minMax")
def min_max() -> Reducer:
    """The smallest and the largest value."""
    low, high = (numeric(name, f, types=(None,), weighted=False) for name, f in _EXTREMES)
    return replace(reducers.in_one(low, high, "", shared=True), name="minMax")


_EXTREMES = (("min", reducers.smallest), ("max", reducers.largest))


def _exact(where: str, maxBuckets: int | None, minBucketWidth: float | None, maxRaw: int | None) -> None:
    """Histograms are exact here, whatever their buckets are to be."""
    if maxBuckets is not None and maxBuckets < 1:
        raise ServiceError(f"{where}: 'maxBuckets' must be positive; got {maxBuckets}.")


@algorithm("Reducer.mode")
def mode(maxBuckets: int | None, minBucketWidth: float | None, maxRaw: int | None) -> Reducer:
    """The most frequent value; of several the smallest."""
    _exact("Reducer.mode", maxBuckets, minBucketWidth, maxRaw)
    return numeric("mode", reducers.mode, types=(None,))


@algorithm("Reducer.median")
def median(maxBuckets: int | None, minBucketWidth: float | None, maxRaw: int | None) -> Reducer:
    """The value in the middle, exactly."""
    _exact("Reducer.median", maxBuckets, minBucketWidth, maxRaw)
    return numeric("median", reducers.percentiles([50]))


@algorithm("Reducer.percentile")
def percentile(
    percentiles: list[float],
    outputNames: list[str] | None,
    maxBuckets: int | None,
    minBucketWidth: float | None,
    maxRaw: int | None,
) -> Reducer:
    """Values below which percentages of the inputs lie, called p10 and so on unless they are named."""
    _exact("Reducer.percentile", maxBuckets, minBucketWidth, maxRaw)
    names = outputNames or [f"p{number:g}" for number in percentiles]
    if not percentiles or len(names) != len(percentiles) or not all(0 <= number <= 100 for number in percentiles):
        raise ServiceError(
            f"Reducer.percentile: needs numbers from 0 to 100, each with one name; got {percentiles} and {names}."
        )
    types = ("float64",) * len(names)
    return numeric("percentile", reducers.percentiles(percentiles), outputs=tuple(names), types=types)


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers before texts, each in order."""
    return isinstance(value, str), value


def _counted(column: Sequence[Any], weights: Sequence[float]) -> dict[Any, float]:
    counts: dict[Any, float] = {}
    for value, own in zip(column, weights, strict=True):
        if value is not None and own > 0:
            key = hashable(value)
            counts[key] = counts.get(key, 0) + own
    return counts


@algorithm("Reducer.frequencyHistogram")
def frequencies() -> Reducer:
    """How often each value occurs, by the value as text."""

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        counts = _counted(columns[0], weights[0])
        ordered = sorted(counts, key=_rank)
        return [{str(value): counts[value] for value in ordered}]

    return Reducer("frequencyHistogram", 1, ("histogram",), rows)


@algorithm("Reducer.countDistinct", "Reducer.countDistinctNonNull")
def count_distinct() -> Reducer:
    """How many different values there are."""

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        return [len(_counted(columns[0], weights[0]))]

    def pixels(samples: Sequence[reducers.Sample]) -> list[tuple[Any, Any]]:
        values = np.where(reducers.used(samples[0]), samples[0].values.astype(np.float64), np.inf)
        ordered = np.sort(values, axis=0)
        fresh = np.diff(ordered, axis=0, prepend=-np.inf) != 0
        return [((fresh & (ordered < np.inf)).sum(axis=0), reducers.some(samples[0]))]

    return Reducer("countDistinct", 1, ("count",), rows, pixels, ("int32",), weighted=False)


@algorithm("Reducer.toList")
def to_list(tupleSize: int | None, numOptional: int) -> Reducer:
    """The inputs as a list, of tuples if they have a size; rows with a null are left out unless it is optional."""
    size = 1 if tupleSize is None else tupleSize
    if not 1 <= size <= MAX_COPIES or not 0 <= numOptional <= size:
        raise ServiceError(f"Reducer.toList: tuples of {size} with {numOptional} optional inputs cannot be made.")
    required = size - numOptional

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        kept = [
            list(row)
            for row, own in zip(zip(*columns, strict=True), zip(*weights, strict=True), strict=True)
            if all(value is not None and weight > 0 for value, weight in list(zip(row, own, strict=True))[:required])
        ]
        return [[row[0] for row in kept] if tupleSize is None else kept]

    return Reducer("toList", size, ("list",), rows, weighted=False)


@algorithm("Reducer.repeat")
def repeat(reducer: Reducer, count: int) -> Reducer:
    """Copies of a reducer, each with inputs of its own; every output is a list of what the copies give."""
    if not 1 <= count <= MAX_COPIES:
        raise ServiceError(f"Reducer.repeat: 'count' must be between 1 and {MAX_COPIES}; got {count}.")

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        size = reducer.inputs
        copies = [
            reducer.rows(columns[k * size : (k + 1) * size], weights[k * size : (k + 1) * size]) for k in range(count)
        ]
        return [list(column) for column in zip(*copies, strict=True)]

    def joined(parts: Sequence[list[Any]]) -> list[Any]:
        copies = [reducer.put([[column[k] for column in part] for part in parts]) for k in range(count)]
        return [list(column) for column in zip(*copies, strict=True)]

    halves = tuple(
        Half(repeat(half.reducer, count), tuple(k * reducer.inputs + i for k in range(count) for i in half.inputs))
        for half in reducer.halves
    )
    inputs = reducer.inputs * count
    return Reducer("repeat", inputs, reducer.outputs, rows, weighted=reducer.weighted, halves=halves, joined=joined)


@algorithm("Reducer.combine")
def combine(reducer1: Reducer, reducer2: Reducer, outputPrefix: str, sharedInputs: bool) -> Reducer:
    """Two reducers side by side, or on the same inputs."""
    return reducers.in_one(reducer1, reducer2, outputPrefix or "", shared=sharedInputs)


@algorithm("Reducer.forEach")
def for_each(reducer: Reducer, outputNames: list[str]) -> Reducer:
    """A copy of the reducer for each name."""
    return reducers.side_by_side(reducer, outputNames[:MAX_COPIES])


@algorithm("Reducer.forEachBand")
def for_each_band(reducer: Reducer, image: Image) -> Reducer:
    """A copy of the reducer for each band, called what the band is."""
    return reducers.side_by_side(reducer, [band.name for band in image.bands])


@algorithm("Reducer.setOutputs")
def set_outputs(reducer: Reducer, outputs: list[str]) -> Reducer:
    """The reducer with its outputs called otherwise."""
    if len(outputs) != len(reducer.outputs):
        raise ServiceError(f"Reducer.setOutputs: {len(outputs)} names for {len(reducer.outputs)} outputs.")
    if "" in outputs:
        raise ServiceError("Reducer.setOutputs: the emulator drops no outputs; give each of them a name.")
    return replace(reducer, outputs=tuple(outputs))


@algorithm("Reducer.getOutputs")
def get_outputs(reducer: Reducer) -> list[str]:
    """What the reducer's outputs are called."""
    return list(reducer.outputs)


@algorithm("Reducer.unweighted")
def unweighted(reducer: Reducer) -> Reducer:
    """The reducer with every input counting in full; of a region, pixels whose centre is inside."""
    return replace(reducer, weighted=False, halves=(), joined=None)


@algorithm("Reducer.group")
def group(reducer: Reducer, groupField: int, groupName: str) -> Reducer:
    """The reducer for each value of one more input, whose place is ``groupField``."""
    inputs = reducer.inputs + 1
    if not 0 <= groupField < inputs:
        raise ServiceError(f"Reducer.group: 'groupField' must be between 0 and {inputs - 1}; got {groupField}.")
    others = [k for k in range(inputs) if k != groupField]

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        members: dict[Any, list[int]] = {}
        for row, (value, own) in enumerate(zip(columns[groupField], weights[groupField], strict=True)):
            if value is not None and own > 0:
                members.setdefault(hashable(value), []).append(row)
        groups = []
        for value in sorted(members, key=_rank):
            chosen = [[columns[k][row] for row in members[value]] for k in others]
            weighed = [[weights[k][row] for row in members[value]] for k in others]
            outputs = dict(zip(reducer.outputs, reducer.rows(chosen, weighed), strict=True))
            groups.append({groupName: value, **outputs})
        return [groups]

    def joined(parts: Sequence[list[Any]]) -> list[Any]:
        found = [{row[groupName]: row for row in groups} for (groups,) in parts]
        none = [half.reducer.rows([[]] * len(half.inputs), [[]] * len(half.inputs)) for half in reducer.halves]
        merged = []
        for value in sorted({value for rows in found for value in rows}, key=_rank):
            outputs = [
                [rows[value][name] for name in half.reducer.outputs] if value in rows else empty
                for half, rows, empty in zip(reducer.halves, found, none, strict=True)
            ]
            merged.append({groupName: value, **dict(zip(reducer.outputs, reducer.put(outputs), strict=True))})
        return [merged]

    halves = tuple(
        Half(group(half.reducer, len(half.inputs), groupName), (*(others[i] for i in half.inputs), groupField))
        for half in reducer.halves
    )
    return Reducer("group", inputs, ("groups",), rows, weighted=reducer.weighted, halves=halves, joined=joined)
