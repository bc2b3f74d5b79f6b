"""Elements, collections of them, their columns, filters and joins, as Python's lists of dictionaries."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import ee

from tests.online.answers.case import CRS, SIDE, Case, box, do, metres

DAY = 86_400_000
ROWS: list[dict[str, Any]] = [
    {"id": k, "v": v, "s": s, "l": [v, k], "system:time_start": 1_550_000_000_000 + 40 * DAY * k}
    for k, (v, s) in enumerate(zip((5, 3, 8, 3, 1, 9, 4), ("ab", "cd", "abcd", "b", "bcd", "a", "d"), strict=True))
]
ROWS[6]["n"] = 1
V = [row["v"] for row in ROWS]
FEATURE = {"a": 1, "b": "x", "c": 3}


def _table() -> Any:
    """The rows, each a point two pixels right of the last."""
    return ee.FeatureCollection([ee.Feature(ee.Geometry.Point(metres(2 * row["id"], 0), CRS), row) for row in ROWS])


def _feature() -> Any:
    return ee.Feature(box(0, 0, 4, 4), FEATURE)


def _ids(table: Any) -> Any:
    return ee.FeatureCollection(table).aggregate_array("id")


def _kept(passes: Callable[[dict[str, Any]], bool]) -> list[int]:
    return [row["id"] for row in ROWS if passes(row)]


def _filtered(name: str, *values: Any, **named: Any) -> Any:
    return _ids(_table().filter(do(name, *values, **named)))


def _filter(name: str, passes: Callable[[dict[str, Any]], bool], *values: Any, **named: Any) -> Case:
    return Case(name, partial(_filtered, name, *values, **named), _kept(passes))


def _place(name: str, region: Callable[[], Any], passes: Callable[[float], bool]) -> Case:
    """A filter of points by a region; ``passes`` is asked how many pixels right of the corner each is."""
    return Case(
        name,
        lambda: _ids(_table().filter(do(name, leftField=".geo", rightValue=region()))),
        _kept(lambda row: passes(2 * row["id"])),
    )


def _when(row: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(row["system:time_start"] / 1000, UTC)


def _yearday(row: dict[str, Any]) -> int:
    return _when(row).timetuple().tm_yday


COMPARED: dict[tuple[str, ...], Callable[[dict[str, Any]], bool]] = {
    ("Filter.eq", "Filter.equals"): lambda row: row["v"] == 3,
    ("Filter.neq", "Filter.notEquals"): lambda row: row["v"] != 3,
    ("Filter.lt", "Filter.lessThan"): lambda row: row["v"] < 3,
    ("Filter.lte", "Filter.lessThanOrEquals"): lambda row: row["v"] <= 3,
    ("Filter.gt", "Filter.greaterThan"): lambda row: row["v"] > 3,
    ("Filter.gte", "Filter.greaterThanOrEquals"): lambda row: row["v"] >= 3,
}
FILTERS = [
    *(_filter(name, passes, leftField="v", rightValue=3) for names, passes in COMPARED.items() for name in names),
    _filter("Filter.always", lambda row: True),
    _filter("Filter.never", lambda row: False),
    _filter("Filter.inList", lambda row: row["v"] in (3, 9), leftField="v", rightValue=[3, 9]),
    _filter("Filter.listContains", lambda row: 3 in row["l"], leftField="l", rightValue=3),
    _filter("Filter.stringContains", lambda row: "bc" in row["s"], leftField="s", rightValue="bc"),
    _filter("Filter.stringStartsWith", lambda row: row["s"].startswith("a"), leftField="s", rightValue="a"),
    _filter("Filter.stringEndsWith", lambda row: row["s"].endswith("d"), leftField="s", rightValue="d"),
    _filter("Filter.hasType", lambda row: isinstance(row["s"], str), leftField="s", rightValue="string"),
    _filter("Filter.notNull", lambda row: "n" in row, ["n"]),
    _filter("Filter.rangeContains", lambda row: 3 <= row["v"] <= 5, "v", 3, 5),
    _filter("Filter.maxDifference", lambda row: abs(row["v"] - 4) <= 1, 1, leftField="v", rightValue=4),
    _filter("Filter.calendarRange", lambda row: 4 <= _when(row).month <= 6, 4, 6, "month"),
    _filter("Filter.dayOfYear", lambda row: 83 <= _yearday(row) <= 163, 83, 163),
    _filter("Filter.dayOfYear", lambda row: not 83 < _yearday(row) < 163, 163, 83),
    Case(
        "Filter.dateRangeContains",
        lambda: _ids(_table().filterDate("2019-04-01", "2019-08-01")),
        _kept(lambda row: 4 <= _when(row).month < 8),
    ),
    Case(
        "Filter.and",
        lambda: _ids(_table().filter(ee.Filter.And(ee.Filter.gt("v", 3), ee.Filter.lt("v", 9)))),
        _kept(lambda row: 3 < row["v"] < 9),
    ),
    Case(
        "Filter.or",
        lambda: _ids(_table().filter(ee.Filter.Or(ee.Filter.gt("v", 8), ee.Filter.lt("v", 3)))),
        _kept(lambda row: row["v"] > 8 or row["v"] < 3),
    ),
    Case("Filter.not", lambda: _ids(_table().filter(ee.Filter.gt("v", 3).Not())), _kept(lambda row: row["v"] <= 3)),
    Case(
        "Filter.hasGeometry",
        lambda: (
            ee.FeatureCollection([ee.Feature(None, {"id": 1}), ee.Feature(ee.Geometry.Point([0, 0]), {"id": 2})])
            .filter(ee.Filter.hasGeometry())
            .aggregate_array("id")
        ),
        [2],
    ),
    _place("Filter.intersects", lambda: box(3, -1, 9, 1), lambda x: 3 <= x <= 9),
    _place("Filter.isContained", lambda: box(3, -1, 9, 1), lambda x: 3 < x < 9),
    _place("Filter.disjoint", lambda: box(3, -1, 9, 1), lambda x: not 3 <= x <= 9),
    _place("Filter.contains", lambda: ee.Geometry.Point(metres(4, 0), CRS), lambda x: x == 4),
    Case(
        "Filter.withinDistance",
        lambda: _ids(_table().filter(ee.Filter.withinDistance(25, ".geo", ee.Geometry.Point(metres(6, 0), CRS)))),
        _kept(lambda row: abs(2 * row["id"] - 6) * SIDE <= 25),
    ),
]

COLUMNS: dict[str, tuple[Any, float]] = {
    "array": (V, 0), "count": (len(V), 0), "count_distinct": (len(set(V)), 0), "first": (V[0], 0), "max": (max(V), 0),
    "min": (min(V), 0), "sum": (sum(V), 0), "mean": (statistics.fmean(V), 1e-9), "product": (math.prod(V), 1e-9),
    "sample_sd": (statistics.stdev(V), 1e-9), "sample_var": (statistics.variance(V), 1e-9),
    "total_sd": (statistics.pstdev(V), 1e-9), "total_var": (statistics.pvariance(V), 1e-9),
    "histogram": ({str(value): number for value, number in Counter(V).items()}, 0),
}  # fmt: skip


def _column(name: str) -> Any:
    return do(f"AggregateFeatureCollection.{name}", _table(), "v")


ELEMENTS = [
    Case(
        "Element.copyProperties",
        lambda: ee.Feature(None, {"a": 9}).copyProperties(_feature(), ["a", "c"]).toDictionary(),
        {"a": 1, "c": 3},
    ),
    Case("Element.geometry", lambda: ee.Geometry(do("Element.geometry", _feature())).type(), "Polygon"),
    Case("Element.get", lambda: _feature().get("c"), FEATURE["c"]),
    Case("Element.getNumber", lambda: _feature().getNumber("a"), FEATURE["a"]),
    Case("Element.getString", lambda: _feature().getString("b"), FEATURE["b"]),
    Case(
        "Element.propertyNames", lambda: _feature().propertyNames().removeAll(["system:index"]).sort(), sorted(FEATURE)
    ),
    Case(
        "Element.replaceProperties",
        lambda: ee.Feature(do("Element.replaceProperties", ee.Feature(None, {"z": 0}), _feature())).toDictionary(),
        FEATURE,
    ),
    Case("Element.set", lambda: _feature().set("a", 7).toDictionary(), FEATURE | {"a": 7}),
    Case(
        "Element.setMulti",
        lambda: ee.Feature(do("Element.setMulti", _feature(), {"a": 7, "d": 8})).toDictionary(),
        FEATURE | {"a": 7, "d": 8},
    ),
    Case("Element.toDictionary", lambda: _feature().toDictionary(["b"]), {"b": "x"}),
    Case("Feature", lambda: do("Feature", None, FEATURE).toDictionary(), FEATURE),
    Case("Feature.geometry", lambda: _feature().geometry().type(), "Polygon"),
    Case("Feature.id", lambda: ee.Feature(None, {"system:index": "x7"}).id(), "x7"),
    Case("Feature.select", lambda: _feature().select(["a", "c"], ["p", "q"]).toDictionary(), {"p": 1, "q": 3}),
    Case(
        "Feature.setGeometry",
        lambda: _feature().setGeometry(ee.Geometry.Point([1, 2])).geometry().coordinates(),
        [1, 2],
    ),
]

COLLECTIONS = [
    *(Case(f"AggregateFeatureCollection.{name}", partial(_column, name), *answer) for name, answer in COLUMNS.items()),
    Case(
        "AggregateFeatureCollection.stats",
        lambda: ee.Dictionary(_column("stats")).select(["max", "mean", "min", "sum", "total_count", "sample_var"]),
        {
            "max": max(V),
            "min": min(V),
            "sum": sum(V),
            "total_count": len(V),
            "mean": statistics.fmean(V),
            "sample_var": statistics.variance(V),
        },
    ),
    Case("Collection", lambda: _table().size(), len(ROWS)),
    Case(
        "Collection.bounds",
        lambda: do("Collection.bounds", _table().map(lambda row: ee.Feature(row).buffer(5, 0.1, CRS)), 0.1, CRS).area(
            0.1, CRS
        ),
        (2 * SIDE * (len(ROWS) - 1) + 10) * 10,
        1e-3,
    ),
    Case(
        "Collection.distinct",
        lambda: _ids(_table().distinct("v")),
        [row["id"] for row in ROWS if V.index(row["v"]) == row["id"]],
    ),
    Case("Collection.filter", lambda: _table().filter(ee.Filter.eq("v", 3)).size(), V.count(3)),
    Case("Collection.first", lambda: ee.Feature(_table().first()).get("id"), 0),
    Case(
        "Collection.flatten",
        lambda: ee.FeatureCollection(ee.FeatureCollection([_table(), _table()]).flatten()).aggregate_array("v"),
        V + V,
    ),
    Case("Collection.geometry", lambda: _table().geometry().geometries().size(), len(ROWS)),
    Case(
        "Collection.iterate",
        lambda: _table().iterate(lambda row, least: ee.Number(least).min(ee.Feature(row).getNumber("v")), 99),
        min(V),
    ),
    Case(
        "Collection.limit",
        lambda: _ids(_table().limit(3, "v", False)),
        [row["id"] for row in sorted(ROWS, key=lambda row: -row["v"])[:3]],
    ),
    Case(
        "Collection.loadTable",
        lambda: ee.FeatureCollection("RESOLVE/ECOREGIONS/2017").aggregate_array("BIOME_NUM").distinct().size(),
        14,
    ),
    Case(
        "Collection.map",
        lambda: (
            _table()
            .map(lambda row: ee.Feature(row).set("w", ee.Feature(row).getNumber("v").multiply(2)))
            .aggregate_array("w")
        ),
        [2 * v for v in V],
    ),
    Case("Collection.merge", lambda: _table().merge(_table()).aggregate_array("v"), V + V),
    Case(
        "Collection.randomColumn",
        lambda: _table().randomColumn("q", 3).filter(ee.Filter.And(ee.Filter.gte("q", 0), ee.Filter.lt("q", 1))).size(),
        len(ROWS),
    ),
    Case("Collection.reduceColumns", lambda: _table().reduceColumns(ee.Reducer.sum(), ["v"]), {"sum": sum(V)}),
    Case(
        "Collection.remap",
        lambda: _table().remap([3, 9], [30, 90], "v").aggregate_array("v"),
        [10 * v for v in V if v in (3, 9)],
    ),
    Case("Collection.size", lambda: _table().size(), len(V)),
    Case("Collection.toList", lambda: _table().toList(3, 2).map(lambda row: ee.Feature(row).get("id")), [2, 3, 4]),
    Case(
        "Collection.union",
        lambda: (
            ee.FeatureCollection([ee.Feature(box(0, 0, 10, 6)), ee.Feature(box(5, 2, 18, 10))])
            .union(0.1)
            .geometry()
            .area(0.1, CRS)
        ),
        (60 + 104 - 5 * 4) * SIDE**2,
        1e-4,
    ),
    Case(
        "FeatureCollection.randomPoints",
        lambda: (
            ee.FeatureCollection.randomPoints(box(0, 0, 4, 4), 25, 1).filterBounds(box(-0.1, -0.1, 4.1, 4.1)).size()
        ),
        25,
    ),
]

SAME = {"leftField": "v", "rightField": "w"}
PARTNERS = [{"w": 3, "p": 1}, {"w": 3, "p": 0}, {"w": 9, "p": 2}, {"w": 100, "p": 3}]


def _partners() -> Any:
    return ee.FeatureCollection([ee.Feature(None, row) for row in PARTNERS])


def _joined(join: Any, near: float | None = None) -> Any:
    condition = ee.Filter.equals(**SAME) if near is None else ee.Filter.maxDifference(near, **SAME)
    return ee.FeatureCollection(join.apply(_table(), _partners(), condition))


def _matched(v: float) -> list[int]:
    return sorted(row["p"] for row in PARTNERS if row["w"] == v)


JOINS = [
    Case("Join.apply", lambda: _joined(ee.Join.simple()).size(), sum(bool(_matched(v)) for v in V)),
    Case("Join.simple", lambda: _ids(_joined(ee.Join.simple())), _kept(lambda row: bool(_matched(row["v"])))),
    Case("Join.inverted", lambda: _ids(_joined(ee.Join.inverted())), _kept(lambda row: not _matched(row["v"]))),
    Case("Join.inner", lambda: _joined(ee.Join.inner()).size(), sum(len(_matched(v)) for v in V)),
    Case(
        "Join.saveAll",
        lambda: (
            _joined(ee.Join.saveAll("m", "p"))
            .map(lambda row: ee.Feature(row).set("q", ee.List(row.get("m")).map(lambda one: ee.Feature(one).get("p"))))
            .aggregate_array("q")
        ),
        [_matched(v) for v in V if _matched(v)],
    ),
    Case(
        "Join.saveFirst",
        lambda: (
            _joined(ee.Join.saveFirst("m", "p"))
            .map(lambda row: ee.Feature(row).set("q", ee.Feature(row.get("m")).get("p")))
            .aggregate_array("q")
        ),
        [_matched(v)[0] for v in V if _matched(v)],
    ),
    Case(
        "Join.saveBest",
        lambda: (
            _joined(ee.Join.saveBest("m", "d"), 2)
            .map(lambda row: ee.Feature(row).set("q", ee.Feature(row.get("m")).get("w")))
            .aggregate_array("q")
        ),
        [
            min((row["w"] for row in PARTNERS), key=lambda w: abs(w - v))
            for v in V
            if min(abs(row["w"] - v) for row in PARTNERS) <= 2
        ],
    ),
]

CASES = [*FILTERS, *ELEMENTS, *COLLECTIONS, *JOINS]
