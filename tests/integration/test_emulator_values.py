"""Lists, dictionaries, texts, numbers and dates through the real client, against Python's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import ee
import numpy as np
import pytest
from ee.ee_exception import EEException

from tests.emulated import SmallArchive, connected, start_emulator

ITEMS = [5, 3, 8, 3, 1, 9, 4]
WHEN = datetime(2019, 3, 7, 16, 5, 9, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def _connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=SmallArchive([])) as running, connected(running.url):
        yield


def _check(cases: dict[str, tuple[Any, Any]]) -> None:
    """Every case's value in one request."""
    got = ee.Dictionary({name: case[0] for name, case in cases.items()}).getInfo()
    for name, (_, expected) in cases.items():
        assert got[name] == (pytest.approx(expected) if isinstance(expected, float) else expected), name


def test_lists_are_pythons() -> None:
    items = ee.List(ITEMS)
    _check({
        "get": (items.get(-2), 9), "slice": (items.slice(1, 6, 2), ITEMS[1:6:2]), "tail": (items.slice(-3), ITEMS[-3:]),
        "sort": (items.sort(), sorted(ITEMS)), "reverse": (items.reverse(), ITEMS[::-1]),
        "by key": (items.sort(items.map(lambda v: ee.Number(v).multiply(-1))), sorted(ITEMS, reverse=True)),
        "add": (items.add(7), [*ITEMS, 7]), "cat": (items.cat([1, 2]), [*ITEMS, 1, 2]),
        "insert": (items.insert(2, 0), [*ITEMS[:2], 0, *ITEMS[2:]]), "set": (items.set(0, "a"), ["a", *ITEMS[1:]]),
        "splice": (items.splice(1, 2, [0, 0, 0]), [5, 0, 0, 0, *ITEMS[3:]]),
        "remove": (items.remove(3), [5, 8, 3, 1, 9, 4]), "removeAll": (items.removeAll([3, 9]), [5, 8, 1, 4]),
        "replace": (items.replace(3, 0), [5, 0, 8, 3, 1, 9, 4]),
        "replaceAll": (items.replaceAll(3, 0), [5, 0, 8, 0, 1, 9, 4]),
        "distinct": (items.distinct(), list(dict.fromkeys(ITEMS))), "contains": (items.contains(8), True),
        "containsAll": (items.containsAll([8, 2]), False), "indexOf": (items.indexOf(3), 1),
        "missing": (items.indexOf("x"), -1), "frequency": (items.frequency(3), 2), "size": (items.size(), 7),
        "sequence": (ee.List.sequence(1, 9, 2), [1, 3, 5, 7, 9]), "repeat": (ee.List.repeat("x", 3), ["x"] * 3),
        "count": (ee.List.sequence(0, 10, None, 5), [0, 2.5, 5, 7.5, 10]),
        "zip": (items.zip(["a", "b"]), [[5, "a"], [3, "b"]]),
        "unzip": (ee.List([[1, 2], [3, 4]]).unzip(), [[1, 3], [2, 4]]),
        "flatten": (ee.List([1, [2, [3]], []]).flatten(), [1, 2, 3]), "join": (items.join("-"), "5-3-8-3-1-9-4"),
        "rotate": (items.rotate(2), [*ITEMS[2:], *ITEMS[:2]]), "swap": (items.swap(0, 6), [4, *ITEMS[1:6], 5]),
        "iterate": (items.iterate(lambda v, acc: ee.Number(acc).multiply(2).add(v), 0), _horner()),
        "map": (items.map(lambda v: ee.Number(v).pow(2)), [v * v for v in ITEMS]),
        "filter": (items.filter(ee.Filter.gt("item", 4)), [5, 8, 9]), "equals": (items.equals(ITEMS), True),
        "median": (items.reduce(ee.Reducer.median()), float(np.median(ITEMS))),
        "percentile": (items.reduce(ee.Reducer.percentile([25])), float(np.percentile(ITEMS, 25, method="hazen"))),
        "several": (items.reduce(ee.Reducer.minMax()), {"min": 1, "max": 9}),
        "mode": (items.reduce(ee.Reducer.mode()), 3),
        "line": (ee.List([[0, 1], [1, 3], [2, 5]]).reduce(ee.Reducer.linearFit()), {"scale": 2, "offset": 1}),
        "histogram": (items.reduce(ee.Reducer.frequencyHistogram()), {"1": 1, "3": 2, "4": 1, "5": 1, "8": 1, "9": 1}),
        "shuffled": (items.shuffle(4).sort(), sorted(ITEMS)),
    })  # fmt: skip


def _horner() -> int:
    result = 0
    for item in ITEMS:
        result = result * 2 + item
    return result


def test_dictionaries_are_pythons() -> None:
    table = ee.Dictionary({"b": 2, "a": 1, "long": [1, 2]})
    _check({
        "keys": (table.keys(), ["a", "b", "long"]), "values": (table.values(["b", "a"]), [2, 1]),
        "get": (table.get("b"), 2), "default": (table.get("z", 9), 9), "contains": (table.contains("z"), False),
        "set": (table.set("a", 5).get("a"), 5), "size": (table.size(), 3),
        "combine": (table.combine({"a": 7, "c": 3}).get("a"), 7),
        "kept": (table.combine({"a": 7, "c": 3}, False).get("a"), 1),
        "select": (table.select(["l.*"]), {"long": [1, 2]}), "remove": (table.remove(["long"]), {"a": 1, "b": 2}),
        "rename": (table.rename(["a"], ["z"]).keys(), ["b", "long", "z"]),
        "lists": (ee.Dictionary.fromLists(["x", "y"], [1, 2]), {"x": 1, "y": 2}),
        "map": (ee.Dictionary({"a": 1, "b": 2}).map(lambda k, v: ee.Number(v).add(1)), {"a": 2, "b": 3}),
        "image": (ee.Dictionary({"b": 2, "a": 1}).toImage().bandNames(), ["a", "b"]),
    })  # fmt: skip
    with pytest.raises(EEException, match="does not contain key: 'z'"):
        table.get("z").getInfo()


def test_texts_are_pythons() -> None:
    text = ee.String("Sentinel-2A_2019")
    _check({
        "cat": (text.cat("!"), "Sentinel-2A_2019!"), "length": (text.length(), 16), "slice": (text.slice(9, -5), "2A"),
        "split": (text.split("[-_]"), ["Sentinel", "2A", "2019"]),
        "match": (text.match("(\\d)([A-D])"), ["2A", "2", "A"]),
        "all": (text.match("\\d", "g"), list("22019")), "replace": (text.replace("(\\d)A", "$1B"), "Sentinel-2B_2019"),
        "index": (text.index("2"), 9), "rindex": (text.rindex("2"), 12), "upper": (text.toUpperCase(),
        "SENTINEL-2A_2019"),
        "trim": (ee.String("  x ").trim(), "x"), "compare": (ee.String("a").compareTo("b"), -1),
        "json": (ee.String('{"a": [1, 2.5]}').decodeJSON(), {"a": [1, 2.5]}),
    })  # fmt: skip


def test_numbers_are_pythons() -> None:
    x, y = ee.Number(7), ee.Number(-2.5)
    _check({
        "add": (x.add(y), 4.5), "divide": (x.divide(2), 3.5), "by zero": (x.divide(0), 0), "mod": (x.mod(4), 3),
        "pow": (x.pow(3), 343), "root": (x.sqrt(), math.sqrt(7)), "round": (y.round(), -2), "floor": (y.floor(), -3),
        "ceil": (y.ceil(), -2), "gt": (x.gt(y), 1), "and": (x.And(0), 0), "not": (x.Not(), 0), "abs": (y.abs(), 2.5),
        "clamp": (x.clamp(0, 5), 5), "unit": (x.unitScale(0, 14), 0.5), "byte": (ee.Number(300).toByte(), 255),
        "int8": (ee.Number(-3.7).toInt8(), -3), "bits": (x.bitwiseAnd(5), 5), "shift": (x.leftShift(3), 56),
        "parse": (ee.Number.parse("2.5"), 2.5), "hex": (ee.Number.parse("ff", 16), 255),
        "format": (ee.Number(math.pi).format("%.3f"), "3.142"), "digits": (x.format("%04d"), "0007"),
        "hypot": (ee.Number(3).hypot(4), 5.0), "max": (x.max(y), 7), "if": (ee.Algorithms.If(x.gt(3), "yes", "no"),
        "yes"),
        "null is false": (ee.Algorithms.If(None, 1, 2), 2),
    })  # fmt: skip
    for wrong, message in (
        (ee.Number(-1).log(), "Number.log: no result"),
        (ee.Number(10).pow(999), "out of range|result"),
    ):
        with pytest.raises(EEException, match=message):
            wrong.getInfo()


def test_a_reducer_that_would_drop_an_output_is_refused() -> None:
    """The service leaves outputs out whose new name is null or empty; an answer that has them would be another."""
    for name, message in ((None, "expected String"), ("", "the emulator drops no outputs")):
        with pytest.raises(EEException, match=rf"Reducer\.setOutputs: .*{message}"):
            ee.List([1, 2]).reduce(ee.Reducer.minMax().setOutputs(["low", name])).getInfo()


def test_dates_are_pythons() -> None:
    date = ee.Date(WHEN.timestamp() * 1000)
    year = (WHEN - datetime(2019, 1, 1, tzinfo=UTC)).total_seconds()
    ms = round(WHEN.timestamp() * 1000)
    _check({
        "format": (date.format("YYYY-MM-dd HH:mm:ss"), WHEN.strftime("%Y-%m-%d %H:%M:%S")),
        "names": (date.format("EEE d MMMM yy, D"), WHEN.strftime("%a 7 %B %y, 66")),
        "default": (date.format(), WHEN.strftime("%Y-%m-%dT%H:%M:%S")), "quoted": (date.format("'T'H"), "T16"),
        "relative": (date.getRelative("day", "year"), WHEN.timetuple().tm_yday - 1),
        "month": (date.getRelative("month", "year"), 2), "fraction": (date.getFraction("year"), year / (365 * 86400)),
        "update": (date.update(2020, 2, 29).format("YYYY-MM-dd"), "2020-02-29"),
        "parse": (ee.Date.parse("dd.MM.YYYY", "07.03.2019").millis(), ms - ms % 86_400_000),
        "start": (date.getRange("month").start().format("YYYY-MM-dd"), "2019-03-01"),
        "end": (date.getRange("month").end().format("YYYY-MM-dd"), "2019-04-01"),
        "ratio": (ee.Date.unitRatio("day", "hour"), 24.0),
        "contains": (ee.DateRange("2019-01-01", "2020-01-01").contains(date), True),
        "empty": (ee.DateRange("2019-01-01", "2018-01-01").isEmpty(), True),
    })  # fmt: skip


def test_elements_hand_their_properties_on() -> None:
    feature = ee.Feature(None, {"a": 1, "b": "x", "c": 3})
    _check({
        "names": (feature.propertyNames().sort(), ["a", "b", "c"]),
        "all": (feature.toDictionary(), {"a": 1, "b": "x", "c": 3}),
        "some": (feature.toDictionary(["b"]), {"b": "x"}), "number": (feature.getNumber("a"), 1),
        "copied": (ee.Feature(None, {"a": 9}).copyProperties(feature, ["a", "c"]).toDictionary(), {"a": 1, "c": 3}),
        "excluded": (ee.Feature(None, {}).copyProperties(feature, exclude=["b"]).toDictionary(), {"a": 1, "c": 3}),
    })  # fmt: skip
    with pytest.raises(EEException, match="expected Number, got String"):
        feature.getNumber("b").getInfo()
