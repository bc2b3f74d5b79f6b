"""Reducers of lists, columns, regions and neighbourhoods, against NumPy's and SciPy's statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ee
import numpy as np
import shapely
from scipy import stats

from tests.online.answers.case import AFFINE, COLUMN, CRS, ROW, Case, around, at, box, bumps, bumpy, do, value_of

ITEMS = [5, 3, 8, 3, 1, 9, 4]
XY = [[0, 1], [1, 3], [2, 6], [4, 7]]
PART = (2.5, 1.25, 6.0, 4.0)
"""A region that cuts pixels, in pixels."""


def _list(reducer: Callable[[], Any], values: list[Any]) -> Any:
    return ee.List(values).reduce(reducer())


def _of(name: str, expected: Any, values: list[Any] | None = None, **named: Any) -> Case:
    reducer = partial(do, f"Reducer.{name}", **named)
    return Case(f"Reducer.{name}", partial(_list, reducer, ITEMS if values is None else values), expected)


def _weights() -> dict[tuple[int, int], float]:
    """The part of each pixel inside the region, by shapely."""
    region = shapely.box(*PART)
    parts = {(i, j): shapely.box(i, j, i + 1, j + 1).intersection(region).area for i in range(8) for j in range(6)}
    return {place: part for place, part in parts.items() if part > 0}


def _inside() -> list[float]:
    """The pixels whose centres lie in the region."""
    left, top, right, bottom = PART
    return [bumpy(i, j) for j in range(6) for i in range(8) if left < i + 0.5 < right and top < j + 0.5 < bottom]


def _region(reducer: Any, image: Any = None) -> Any:
    asked = bumps() if image is None else image
    return asked.reduceRegion(reducer, box(*PART), crs=CRS, crsTransform=AFFINE)


def _two() -> Any:
    return bumps().rename("a").addBands(bumps().multiply(2).rename("b"))


WEIGHTS = _weights()
MEAN = float(np.average([bumpy(*place) for place in WEIGHTS], weights=list(WEIGHTS.values())))
SUM = float(sum(bumpy(*place) * part for place, part in WEIGHTS.items()))
LINE = np.polyfit([x for x, _ in XY], [y for _, y in XY], 1)
ROWS = [{"v": v, "w": v % 2, "x": 2 * v} for v in ITEMS]


def _columns(reducer: Any, names: list[str]) -> Any:
    return ee.FeatureCollection([ee.Feature(None, row) for row in ROWS]).reduceColumns(reducer, names)


def _groups(statistic: Callable[[list[int]], float], name: str) -> dict[str, Any]:
    return {"groups": [{"w": w, name: statistic([v for v in ITEMS if v % 2 == w])} for w in (0, 1)]}


REDUCERS = [
    _of("mean", float(np.mean(ITEMS))),
    _of("sum", sum(ITEMS)),
    _of("count", len(ITEMS)),
    _of("product", math.prod(ITEMS)),
    _of("variance", float(np.var(ITEMS))),
    _of("stdDev", float(np.std(ITEMS))),
    _of("sampleVariance", float(np.var(ITEMS, ddof=1))),
    _of("sampleStdDev", float(np.std(ITEMS, ddof=1))),
    _of("skew", float(stats.skew(ITEMS))),
    _of("kurtosis", float(stats.kurtosis(ITEMS))),
    _of("median", float(np.median(ITEMS))),
    _of("mode", 3),
    _of("min", min(ITEMS)),
    _of("max", max(ITEMS)),
    _of("minMax", {"min": min(ITEMS), "max": max(ITEMS)}),
    _of("first", ITEMS[0]),
    _of("last", ITEMS[-1]),
    _of("firstNonNull", 6, [None, 6, 7]),
    _of("lastNonNull", 7, [6, 7, None]),
    _of("and", 0, [1, 0, 2]),
    _of("allNonZero", 1, [1, 3, 2]),
    _of("or", 1, [0, 0, 2]),
    _of("anyNonZero", 0, [0, 0]),
    _of("countDistinct", len(set(ITEMS))),
    _of("countDistinctNonNull", 2, [1, 2, 2, None]),
    _of("toList", ITEMS),
    _of("linearFit", {"scale": float(LINE[0]), "offset": float(LINE[1])}, XY),
    _of("frequencyHistogram", {str(value): number for value, number in Counter(ITEMS).items()}),
    _of(
        "percentile", {f"p{p}": float(np.percentile(ITEMS, p, method="hazen")) for p in (25, 50)}, percentiles=[25, 50]
    ),
    Case(
        "Reducer.combine",
        lambda: _list(lambda: ee.Reducer.sum().combine(ee.Reducer.max(), "", True), ITEMS),
        {"sum": sum(ITEMS), "max": max(ITEMS)},
    ),
    Case(
        "Reducer.forEach",
        lambda: _columns(ee.Reducer.mean().forEach(["p", "q"]), ["v", "x"]),
        {"p": float(np.mean(ITEMS)), "q": 2 * float(np.mean(ITEMS))},
    ),
    Case(
        "Reducer.forEachBand", lambda: _region(ee.Reducer.sum().forEachBand(_two()), _two()), {"a": SUM, "b": 2 * SUM}
    ),
    Case("Reducer.getOutputs", lambda: ee.Reducer.minMax().getOutputs(), ["min", "max"]),
    Case("Reducer.group", lambda: _columns(ee.Reducer.sum().group(1, "w"), ["v", "w"]), _groups(sum, "sum")),
    Case(
        "Reducer.repeat",
        lambda: _columns(ee.Reducer.sum().repeat(2), ["v", "x"]),
        {"sum": [sum(ITEMS), 2 * sum(ITEMS)]},
    ),
    Case(
        "Reducer.setOutputs",
        lambda: _list(lambda: ee.Reducer.minMax().setOutputs(["low", "high"]), ITEMS),
        {"low": min(ITEMS), "high": max(ITEMS)},
    ),
    Case("Reducer.unweighted", lambda: _region(ee.Reducer.mean().unweighted()), {"r": float(np.mean(_inside()))}),
]

REGIONS = [
    Case("Image.reduceRegion", lambda: _region(ee.Reducer.mean()), {"r": MEAN}),
    Case("Image.reduceRegion", lambda: _region(ee.Reducer.sum()), {"r": SUM}),
    Case("Image.reduceRegion", lambda: _region(ee.Reducer.max()), {"r": max(_inside())}),
    Case(
        "Image.reduceRegions",
        lambda: ee.Feature(
            bumps()
            .reduceRegions(
                ee.FeatureCollection([ee.Feature(box(*PART))]), ee.Reducer.mean(), crs=CRS, crsTransform=AFFINE
            )
            .first()
        ).get("mean"),
        MEAN,
    ),
    Case(
        "Image.sample",
        lambda: bumps().sample(box(0, 0, 4, 3), projection=ee.Projection(CRS, AFFINE)).aggregate_sum("r"),
        sum(bumpy(i, j) for i in range(4) for j in range(3)),
    ),
    Case(
        "Image.sampleRegions",
        lambda: (
            bumps()
            .sampleRegions(
                ee.FeatureCollection([ee.Feature(box(*PART), {"k": 1})]), ["k"], projection=ee.Projection(CRS, AFFINE)
            )
            .aggregate_array("r")
            .sort()
        ),
        sorted(_inside()),
    ),
    Case(
        "Image.reduceNeighborhood",
        lambda: at(bumps().reduceNeighborhood(ee.Reducer.mean(), ee.Kernel.square(1))),
        {"r_mean": float(np.mean(around(1)))},
    ),
]


def _parted() -> list[dict[str, float]]:
    """Weighted sums beside counts of centres, by whether pixels are odd."""
    rows = []
    for odd in (0, 1):
        part = sum(bumpy(*place) * share for place, share in WEIGHTS.items() if bumpy(*place) % 2 == odd)
        rows.append({"odd": odd, "sum": part, "count": len([value for value in _inside() if value % 2 == odd])})
    return rows


def _mixed() -> Any:
    """A reducer of which one part is weighted and the other is not."""
    return ee.Reducer.sum().combine(ee.Reducer.count(), "", True)


def _odd() -> Any:
    return bumps().addBands(bumps().mod(2).rename("w"))


def _weighed() -> float:
    """The mean of the pixels around, weighted by a kernel."""
    return float(np.average(np.array(around(1)), weights=np.array(UNEVEN)))


UNEVEN = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
MIXED = [
    Case("Reducer.combine", lambda: _region(_mixed()), {"r_sum": SUM, "r_count": len(_inside())}),
    Case(
        "Reducer.repeat",
        lambda: _region(_mixed().repeat(2), _two()),
        {"sum": [SUM, 2 * SUM], "count": [len(_inside())] * 2},
    ),
    Case("Reducer.group", lambda: _region(_mixed().group(1, "odd"), _odd()), {"groups": _parted()}),
    Case(
        "Reducer.unweighted",
        lambda: _region(_mixed().unweighted()),
        {"r_sum": sum(_inside()), "r_count": len(_inside())},
    ),
    Case(
        "Image.reduceNeighborhood",
        lambda: at(
            bumps().reduceNeighborhood(
                ee.Reducer.mean().combine(ee.Reducer.count(), "", True), ee.Kernel.fixed(3, 3, UNEVEN)
            )
        ),
        {"r_mean": _weighed(), "r_count": 9},
    ),
]


def _kernel(inside: Callable[[int, int], float], reach: int) -> Any:
    steps = range(-reach, reach + 1)
    return np.array([[float(inside(i, j)) for i in steps] for j in steps])


def _even(weights: Any) -> Any:
    return weights / np.abs(weights).sum()


SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
FIXED = [[1, 2, 3], [4, 5, 6], [7, 8, 10]]
BELL = _kernel(lambda i, j: math.exp(-(i * i + j * j) / (2 * 1.5**2)), 2)
KERNELS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "square": ((2,), _even(np.ones((5, 5)))), "rectangle": ((2, 1), _even(np.ones((3, 5)))),
    "circle": ((2,), _even(_kernel(lambda i, j: i * i + j * j <= 4, 2))),
    "diamond": ((2,), _even(_kernel(lambda i, j: abs(i) + abs(j) <= 2, 2))),
    "plus": ((2,), _even(_kernel(lambda i, j: i == 0 or j == 0, 2))),
    "cross": ((2,), _even(_kernel(lambda i, j: abs(i) == abs(j), 2))), "gaussian": ((2, 1.5), _even(BELL)),
    "laplacian4": ((), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])),
    "laplacian8": ((), np.array([[1, 1, 1], [1, -8, 1], [1, 1, 1]])),
    "sobel": ((), SOBEL), "prewitt": ((), np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]])),
    "fixed": ((3, 3, FIXED), np.array(FIXED)),
}  # fmt: skip


def _convolved(name: str, values: tuple[Any, ...]) -> Any:
    return value_of(bumps().convolve(do(f"Kernel.{name}", *values)))


def _convolutions() -> Iterator[Case]:
    for name, (values, weights) in KERNELS.items():
        down, across = weights.shape[0] // 2, weights.shape[1] // 2
        near = [[bumpy(COLUMN + i, ROW + j) for i in range(-across, across + 1)] for j in range(-down, down + 1)]
        yield Case(f"Kernel.{name}", partial(_convolved, name, values), float((weights * np.array(near)).sum()))
    mean = float(np.mean(around(1)))
    yield Case("Image.convolve", lambda: value_of(bumps().convolve(ee.Kernel.square(1))), mean)


CASES = [*REDUCERS, *REGIONS, *MIXED, *_convolutions()]
