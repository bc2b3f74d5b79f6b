"""Reducers: statistics of weighted values along the first axis, of stacked images, a region's pixels or columns.

Inputs that are masked or null weigh nothing. Pixels of a region weigh what of them lies inside; everything else weighs
1. A reducer without any input gives null, except for counts, sums and lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.errors import ServiceError

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]
MAX_DISTINCT_VALUES = 256
"""Of a stack of images: more are no classification."""
_FEW_CLASSES = 16
"""Counting each class is faster than first finding which there are, up to so many."""


class Sample(NamedTuple):
    """One input: values and their weights (or a mask), each of shape (n, …)."""

    values: Array
    weights: Array


Statistic = Callable[[Sequence[Sample]], Sequence[tuple[Array, Array]]]
"""Samples, one per input, to values and where they exist, one pair of shape (…) per output."""
Rows = Callable[[Sequence[Sequence[Any]], Sequence[Sequence[float]]], list[Any]]
"""Columns of any values with their weights, one per input, to one value per output."""


@dataclass(frozen=True, eq=False)
class Reducer:
    """A statistic: how many inputs it takes, what its outputs are called, and how it is computed.

    ``pixels`` works on arrays; None where outputs are no numbers. ``types`` gives each output's NumPy type for inputs
    of one type, None keeping it. ``weighted`` tells whether partly covered pixels count by their cover; where that is
    true of only one part of a reducer, its parts are the ``halves``, each with a region's pixels of its own, and
    ``joined`` makes its outputs of theirs unless they simply follow each other.
    """

    name: str
    inputs: int
    outputs: tuple[str, ...]
    rows: Rows
    pixels: Statistic | None = None
    types: tuple[str | None, ...] = ()
    weighted: bool = True
    halves: tuple[Half, ...] = ()
    joined: Callable[[Sequence[list[Any]]], list[Any]] | None = None

    def put(self, parts: Sequence[list[Any]]) -> list[Any]:
        """The outputs made of those of the halves."""
        return self.joined(parts) if self.joined else [value for part in parts for value in part]

    @property
    def leaves(self) -> list[Reducer]:
        """The reducers that it is put together of, each weighted or not as a whole."""
        return [leaf for half in self.halves for leaf in half.reducer.leaves] if self.halves else [self]

    def statistic(self, where: str) -> Statistic:
        """How it reduces arrays; a 400 if it makes no numbers."""
        if self.pixels is None:
            raise ServiceError(f"{where}: the outputs of Reducer.{self.name} are not numbers, so they make no bands.")
        return self.pixels


class Half(NamedTuple):
    """A part of a reducer, and which of the reducer's inputs it takes."""

    reducer: Reducer
    inputs: tuple[int, ...]


def numeric(
    name: str,
    statistic: Statistic,
    *,
    outputs: tuple[str, ...] = (),
    types: tuple[str | None, ...] = ("float64",),
    inputs: int = 1,
    weighted: bool = True,
    empty: float | None = None,
) -> Reducer:
    """A reducer of numbers; ``empty`` is its result where there is no input at all."""

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        samples = []
        for column, own in zip(columns, weights, strict=True):
            strange = next((v for v in column if v is not None and not _is_number(v)), None)
            if strange is not None:
                raise ServiceError(f"Reducer.{name}: cannot reduce {str(strange)[:60]!r}, which is no number.")
            values = np.array([0 if v is None else v for v in column])
            known = np.array([v is not None for v in column], dtype=np.bool_)
            samples.append(Sample(_measured(values), np.where(known, np.asarray(own, dtype=np.float64), 0.0)))
        if not len(samples[0].values):
            return [empty] * len(outputs or (name,))
        with np.errstate(all="ignore"):
            results = statistic(samples)
        return [_plain(value, known, empty) for value, known in results]

    return Reducer(name, inputs, outputs or (name,), rows, statistic, types, weighted)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _measured(values: Array) -> Array:
    """Numbers that NumPy can reduce: integers beyond 64 bits become doubles."""
    return values.astype(np.float64) if values.dtype.kind in "Ob" or not values.size else values


def _plain(value: Array, known: Array, empty: float | None) -> Any:
    if not np.all(known):
        return empty
    result = np.asarray(value).item()
    return result if isinstance(result, bool | int | float) else empty


def used(sample: Sample) -> BoolArray:
    """Which values weigh anything."""
    return sample.weights if sample.weights.dtype == np.bool_ else sample.weights > 0


def total(sample: Sample, values: Array | None = None) -> Array:
    """The weighted sum of the sample's values, or of others in their place."""
    values, valid = sample.values if values is None else values, used(sample)
    kept = np.where(valid, values, 0)
    if sample.weights.dtype != np.bool_:
        kept = kept * sample.weights
    return np.asarray(kept.sum(axis=0, dtype=np.float64))


def weight(sample: Sample) -> Array:
    """The sum of weights."""
    return np.asarray(sample.weights.sum(axis=0, dtype=np.float64))


def some(sample: Sample) -> BoolArray:
    """Where anything weighs."""
    return np.asarray(used(sample).any(axis=0))


def _moment(sample: Sample, order: int) -> Array:
    """The weighted mean of powers of the distance from the mean."""
    sums = np.maximum(weight(sample), np.finfo(float).tiny)
    centre = total(sample) / sums
    return np.asarray(total(sample, (sample.values - centre) ** order) / sums)


def mean(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """The weighted mean."""
    (sample,) = samples
    return [(total(sample) / np.maximum(weight(sample), np.finfo(float).tiny), some(sample))]


def summed(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """The weighted sum."""
    return [(total(samples[0]), some(samples[0]))]


def count(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """How many values weigh anything."""
    return [(used(samples[0]).sum(axis=0, dtype=np.int64), some(samples[0]))]


def variance(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """The weighted variance of a population."""
    return [(_moment(samples[0], 2), some(samples[0]))]


def sample_variance(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """The weighted variance of a sample: over its weight less one."""
    sums = weight(samples[0])
    rest = np.where(sums > 1, sums - 1, 1)
    return [(_moment(samples[0], 2) * sums / rest, some(samples[0]) & (sums > 1))]


def root_of(statistic: Statistic) -> Statistic:
    """The square root of a statistic's output."""

    def rooted(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
        return [(np.sqrt(np.maximum(value, 0)), known) for value, known in statistic(samples)]

    return rooted


def standardised(order: int, less: float) -> Statistic:
    """A moment over that power of the standard deviation, less its value for a normal distribution."""

    def moment(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
        spread = _moment(samples[0], 2)
        flat = spread <= 0
        value = _moment(samples[0], order) / np.where(flat, 1, spread) ** (order / 2) - less
        return [(value, some(samples[0]) & ~flat)]

    return moment


def extreme(select: Callable[..., Array], worst: Callable[[np.dtype[Any]], Any]) -> Statistic:
    """The smallest or largest value."""

    def statistic(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
        (sample,) = samples
        return [(select(np.where(used(sample), sample.values, worst(sample.values.dtype)), axis=0), some(sample))]

    return statistic


def lowest(dtype: np.dtype[Any]) -> Any:
    """What no value of a type is below."""
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def highest(dtype: np.dtype[Any]) -> Any:
    """What no value of a type is above."""
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


smallest, largest = extreme(np.min, highest), extreme(np.max, lowest)


def product(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """The product of the values."""
    sample = samples[0]
    return [(np.where(used(sample), sample.values, 1).prod(axis=0, dtype=np.float64), some(sample))]


def any_nonzero(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """1 where some value is not 0."""
    sample = samples[0]
    return [((used(sample) & (sample.values != 0)).any(axis=0).astype(np.uint8), some(sample))]


def all_nonzero(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """1 where no value is 0."""
    sample = samples[0]
    return [((~used(sample) | (sample.values != 0)).all(axis=0).astype(np.uint8), some(sample))]


def at_end(last: bool) -> Statistic:
    """The first or last value that weighs anything."""

    def statistic(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
        sample = samples[0]
        valid = used(sample)
        place = valid.shape[0] - 1 - valid[::-1].argmax(axis=0) if last else valid.argmax(axis=0)
        return [(np.take_along_axis(sample.values, np.asarray(place)[None], axis=0)[0], some(sample))]

    return statistic


def mode(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """The value of the greatest weight; of several the smallest."""
    sample = samples[0]
    valid = used(sample)
    if sample.values.ndim == 1:
        distinct, where = np.unique(sample.values[valid], return_inverse=True)
        if not len(distinct):
            return [(np.zeros((), sample.values.dtype), np.asarray(False))]
        weights = np.bincount(where, np.asarray(sample.weights[valid], dtype=np.float64))
        return [(distinct[weights.argmax()], np.asarray(True))]
    whole = sample.values * valid if sample.values.dtype.kind in "iu" else None
    candidates = _candidates(sample.values, valid, whole)
    if len(candidates) > MAX_DISTINCT_VALUES:
        raise ServiceError(
            f"reduce.mode: {len(candidates)} distinct values; the emulator finds the mode of at most "
            f"{MAX_DISTINCT_VALUES}, as in classifications."
        )
    # The narrowest type that can count the images: by far the fastest sum.
    counting = np.min_scalar_type(len(valid)) if sample.weights.dtype == np.bool_ else np.dtype(np.float64)
    most = np.zeros(valid.shape[1:], counting)
    result = np.zeros(valid.shape[1:], sample.values.dtype)
    for value in candidates:
        if sample.weights.dtype == np.bool_:
            same = whole == value if whole is not None and value else (sample.values == value) & valid
            counts = same.view(np.uint8).sum(axis=0, dtype=counting)
        else:
            counts = np.where(sample.values == value, sample.weights, 0).sum(axis=0)
        more = counts > most
        np.maximum(most, counts, out=most)
        np.copyto(result, value, where=more)
    return [(result, most > 0)]


def _candidates(values: Array, valid: BoolArray, whole: Array | None) -> Array:
    """What a stack's mode may be, in order: its distinct valid values, or all of a few classes.

    ``whole`` are integer values with 0 where they are not valid.
    """
    if whole is not None and whole.size:
        low, high = int(whole.min()), int(whole.max())
        if high - low < _FEW_CLASSES:
            return np.arange(low, high + 1).astype(values.dtype)
    return np.unique(values[valid])


def percentiles(parts: Sequence[float]) -> Statistic:
    """Values below which parts (in percent) of the weight lie, interpolated between the middles of weights.

    For equal weights NumPy's method "hazen"; the 50th percentile is then the median.
    """

    def statistic(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
        sample = samples[0]
        valid = used(sample)
        order = np.where(valid, sample.values.astype(np.float64), np.inf).argsort(axis=0, kind="stable")
        values = np.take_along_axis(np.where(valid, sample.values, 0).astype(np.float64), order, axis=0)
        weights = np.take_along_axis(np.where(valid, sample.weights, 0).astype(np.float64), order, axis=0)
        middles = weights.cumsum(axis=0) - weights / 2
        last = np.maximum(valid.sum(axis=0) - 1, 0)
        results = []
        for part in parts:
            target = part / 100 * weights.sum(axis=0)
            above = np.minimum((middles < target).sum(axis=0), last)
            below = np.maximum(above - 1, 0)
            low, high = (np.take_along_axis(values, np.asarray(at)[None], axis=0)[0] for at in (below, above))
            start, end = (np.take_along_axis(middles, np.asarray(at)[None], axis=0)[0] for at in (below, above))
            step = np.where(end > start, (target - start) / np.where(end > start, end - start, 1), 1.0)
            results.append((low + np.clip(step, 0, 1) * (high - low), some(sample)))
        return results

    return statistic


def line(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
    """Slope and offset of the least-squares line of the second input over the first."""
    x, y = samples
    both = np.where(used(x) & used(y), np.asarray(x.weights, dtype=np.float64), 0.0)
    known = Sample(x.values.astype(np.float64), both)
    sums = np.maximum(both.sum(axis=0), np.finfo(float).tiny)
    mx, my = total(known) / sums, total(known, y.values) / sums
    across = total(known, (x.values - mx) ** 2)
    slope = total(known, (x.values - mx) * (y.values - my)) / np.where(across > 0, across, 1)
    return [(slope, across > 0), (my - slope * mx, across > 0)]


def in_one(first: Reducer, second: Reducer, prefix: str, shared: bool) -> Reducer:
    """Two reducers as one: side by side, or on the same inputs."""
    if shared and first.inputs != second.inputs:
        raise ServiceError(
            f"Reducer.combine: reducers that share inputs must have as many; they have {first.inputs} and "
            f"{second.inputs}."
        )
    names = tuple(f"{prefix}{name}" for name in second.outputs)
    if set(names) & set(first.outputs):
        raise ServiceError(f"Reducer.combine: both reducers have an output '{min(set(names) & set(first.outputs))}'.")
    split = 0 if shared else first.inputs

    def rows(columns: Sequence[Sequence[Any]], weights: Sequence[Sequence[float]]) -> list[Any]:
        left = first.rows(columns[: first.inputs], weights[: first.inputs])
        return left + second.rows(columns[split:], weights[split:])

    def pixels(samples: Sequence[Sample]) -> list[tuple[Array, Array]]:
        left = first.statistic("Reducer.combine")(samples[: first.inputs])
        return [*left, *second.statistic("Reducer.combine")(samples[split:])]

    whole = first.pixels is not None and second.pixels is not None
    inputs = first.inputs if shared else first.inputs + second.inputs
    types = first.types + second.types
    weighted = first.weighted and second.weighted
    mixed = first.weighted != second.weighted or first.halves or second.halves
    own, other = range(first.inputs), range(split, split + second.inputs)
    halves = (Half(first, tuple(own)), Half(second, tuple(other))) if mixed else ()
    name = f"combine({first.name}, {second.name})"
    return Reducer(name, inputs, first.outputs + names, rows, pixels if whole else None, types, weighted, halves)


def side_by_side(reducer: Reducer, outputs: Sequence[str]) -> Reducer:
    """Copies of a reducer of one output, each named."""
    if len(reducer.outputs) != 1:
        raise ServiceError(
            f"Reducer.forEach: the emulator copies reducers of one output only; got {len(reducer.outputs)}."
        )
    if not outputs:
        raise ServiceError("Reducer.forEach: at least one output name is needed.")
    result = replace(reducer, outputs=(outputs[0],))
    for name in outputs[1:]:
        result = in_one(result, replace(reducer, outputs=(name,)), "", shared=False)
    return result
