"""Texts, lists, dictionaries and dates, as Python has them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import ee
import numpy as np

from tests.online.answers.case import Case, do, value_of

TEXT = "  Sentinel-2A_2019 "
WORD = TEXT.strip()
ITEMS = [5, 3, 8, 3, 1, 9, 4]
TABLE = {"b": 2, "a": 1, "long": [1, 2], "name": "x"}
WHEN = datetime(2019, 3, 7, 16, 5, 9, tzinfo=UTC)
PLACE = {"type": "Point", "coordinates": [12.5, -7.25]}


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def _date(when: datetime) -> dict[str, Any]:
    return {"type": "Date", "value": _ms(when)}


def _day(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def _range(first: str, last: str) -> Any:
    return ee.DateRange(first, last)


def _now() -> Any:
    return ee.Date(_ms(WHEN))


def _horner() -> int:
    result = 0
    for item in ITEMS:
        result = result * 2 + item
    return result


TEXTS = [
    Case("String", lambda: do("String", ee.Number(7)), str(7)),
    Case("String.cat", lambda: ee.String(TEXT).cat("!"), TEXT + "!"),
    Case("String.compareTo", lambda: ee.String("a").compareTo("b"), -1),
    Case("String.decodeJSON", lambda: ee.String('{"a": [1, 2.5, "x"]}').decodeJSON(), {"a": [1, 2.5, "x"]}),
    Case(
        "String.encodeJSON",
        lambda: ee.String(do("String.encodeJSON", TABLE)).decodeJSON(),
        json.loads(json.dumps(TABLE)),
    ),
    Case("String.equals", lambda: ee.String("a").equals("a"), "a" == "a"),
    Case("String.index", lambda: ee.String(TEXT).index("2"), TEXT.find("2")),
    Case("String.index", lambda: ee.String(TEXT).index("x"), TEXT.find("x")),
    Case("String.length", lambda: ee.String(TEXT).length(), len(TEXT)),
    Case(
        "String.match",
        lambda: ee.String(TEXT).match("(\\d)([A-D])"),
        [found[k] for found in re.finditer(r"(\d)([A-D])", TEXT) for k in range(3)][:3],
    ),
    Case("String.match", lambda: ee.String(TEXT).match("\\d+", "g"), re.findall(r"\d+", TEXT)),
    Case("String.replace", lambda: ee.String(TEXT).replace("([0-9])", "<$1>", "g"), re.sub("([0-9])", r"<\1>", TEXT)),
    Case("String.rindex", lambda: ee.String(TEXT).rindex("2"), TEXT.rfind("2")),
    Case("String.slice", lambda: ee.String(TEXT).slice(3, -4), TEXT[3:-4]),
    Case("String.split", lambda: ee.String(WORD).split("[-_]"), re.split("[-_]", WORD)),
    Case("String.toLowerCase", lambda: ee.String(TEXT).toLowerCase(), TEXT.lower()),
    Case("String.toUpperCase", lambda: ee.String(TEXT).toUpperCase(), TEXT.upper()),
    Case("String.trim", lambda: ee.String(TEXT).trim(), WORD),
]

LISTS = [
    Case("List.add", lambda: ee.List(ITEMS).add(7), [*ITEMS, 7]),
    Case("List.cat", lambda: ee.List(ITEMS).cat([1, "x"]), [*ITEMS, 1, "x"]),
    Case("List.contains", lambda: ee.List(ITEMS).contains(8), 8 in ITEMS),
    Case("List.containsAll", lambda: ee.List(ITEMS).containsAll([8, 2]), {8, 2} <= set(ITEMS)),
    Case("List.distinct", lambda: ee.List(ITEMS).distinct(), list(dict.fromkeys(ITEMS))),
    Case("List.equals", lambda: ee.List(ITEMS).equals(ITEMS[::-1]), ITEMS[::-1] == ITEMS),
    Case("List.filter", lambda: ee.List(ITEMS).filter(ee.Filter.gt("item", 4)), [v for v in ITEMS if v > 4]),
    Case("List.flatten", lambda: ee.List([1, [2, [3, []]], 4]).flatten(), [1, 2, 3, 4]),
    Case("List.frequency", lambda: ee.List(ITEMS).frequency(3), ITEMS.count(3)),
    Case("List.get", lambda: ee.List(ITEMS).get(-2), ITEMS[-2]),
    Case(
        "List.getGeometry",
        lambda: ee.Geometry(do("List.getGeometry", [ee.Geometry(PLACE)], 0)).coordinates(),
        PLACE["coordinates"],
    ),
    Case("List.getNumber", lambda: ee.List(ITEMS).getNumber(2), ITEMS[2]),
    Case("List.getString", lambda: ee.List(["a", "b"]).getString(1), "b"),
    Case("List.indexOf", lambda: ee.List(ITEMS).indexOf(3), ITEMS.index(3)),
    Case("List.insert", lambda: ee.List(ITEMS).insert(2, 0), [*ITEMS[:2], 0, *ITEMS[2:]]),
    Case(
        "List.iterate", lambda: ee.List(ITEMS).iterate(lambda v, acc: ee.Number(acc).multiply(2).add(v), 0), _horner()
    ),
    Case("List.join", lambda: ee.List(ITEMS).join("-"), "-".join(map(str, ITEMS))),
    Case("List.length", lambda: ee.List(ITEMS).length(), len(ITEMS)),
    Case("List.map", lambda: ee.List(ITEMS).map(lambda v: ee.Number(v).pow(2)), [v * v for v in ITEMS]),
    Case("List.reduce", lambda: ee.List(ITEMS).reduce(ee.Reducer.mean()), float(np.mean(ITEMS))),
    Case("List.remove", lambda: ee.List(ITEMS).remove(3), [v for k, v in enumerate(ITEMS) if k != ITEMS.index(3)]),
    Case("List.removeAll", lambda: ee.List(ITEMS).removeAll([3, 9]), [v for v in ITEMS if v not in (3, 9)]),
    Case("List.repeat", lambda: ee.List.repeat("x", 3), ["x"] * 3),
    Case("List.replace", lambda: ee.List(ITEMS).replace(3, 0), [5, 0, *ITEMS[2:]]),
    Case("List.replaceAll", lambda: ee.List(ITEMS).replaceAll(3, 0), [0 if v == 3 else v for v in ITEMS]),
    Case("List.reverse", lambda: ee.List(ITEMS).reverse(), ITEMS[::-1]),
    Case("List.rotate", lambda: ee.List(ITEMS).rotate(2), [*ITEMS[2:], *ITEMS[:2]]),
    Case("List.sequence", lambda: ee.List.sequence(1, 9, 2), list(range(1, 10, 2))),
    Case("List.sequence", lambda: ee.List.sequence(0, 10, None, 5), np.linspace(0, 10, 5).tolist()),
    Case("List.set", lambda: ee.List(ITEMS).set(0, "a"), ["a", *ITEMS[1:]]),
    Case("List.shuffle", lambda: ee.List(ITEMS).shuffle(4).sort(), sorted(ITEMS)),
    Case("List.size", lambda: ee.List(ITEMS).size(), len(ITEMS)),
    Case("List.slice", lambda: ee.List(ITEMS).slice(1, 6, 2), ITEMS[1:6:2]),
    Case("List.sort", lambda: ee.List(ITEMS).sort(), sorted(ITEMS)),
    Case("List.sort", lambda: ee.List(["a", "b", "c"]).sort([2, 3, 1]), ["c", "a", "b"]),
    Case("List.splice", lambda: ee.List(ITEMS).splice(1, 2, [0, 0, 0]), [5, 0, 0, 0, *ITEMS[3:]]),
    Case("List.swap", lambda: ee.List(ITEMS).swap(0, 6), [ITEMS[6], *ITEMS[1:6], ITEMS[0]]),
    Case("List.unzip", lambda: ee.List([[1, 2], [3, 4]]).unzip(), [[1, 3], [2, 4]]),
    Case("List.zip", lambda: ee.List([5, 3]).zip(["a", "b"]), [[5, "a"], [3, "b"]]),
]

DICTIONARIES = [
    Case("Dictionary", lambda: do("Dictionary", ["a", 1, "b", 2]), {"a": 1, "b": 2}),
    Case("Dictionary.combine", lambda: ee.Dictionary(TABLE).combine({"a": 7, "c": 3}), TABLE | {"a": 7, "c": 3}),
    Case("Dictionary.combine", lambda: ee.Dictionary(TABLE).combine({"a": 7, "c": 3}, False), {"a": 7, "c": 3} | TABLE),
    Case("Dictionary.contains", lambda: ee.Dictionary(TABLE).contains("z"), "z" in TABLE),
    Case("Dictionary.fromLists", lambda: ee.Dictionary.fromLists(["x", "y"], [1, 2]), {"x": 1, "y": 2}),
    Case("Dictionary.get", lambda: ee.Dictionary(TABLE).get("b"), TABLE["b"]),
    Case("Dictionary.get", lambda: ee.Dictionary(TABLE).get("z", 9), TABLE.get("z", 9)),
    Case(
        "Dictionary.getGeometry",
        lambda: ee.Dictionary({"g": ee.Geometry(PLACE)}).getGeometry("g").coordinates(),
        PLACE["coordinates"],
    ),
    Case("Dictionary.getNumber", lambda: ee.Dictionary(TABLE).getNumber("a"), TABLE["a"]),
    Case("Dictionary.getString", lambda: ee.Dictionary(TABLE).getString("name"), TABLE["name"]),
    Case("Dictionary.keys", lambda: ee.Dictionary(TABLE).keys(), sorted(TABLE)),
    Case(
        "Dictionary.map",
        lambda: ee.Dictionary({"a": 1, "b": 2}).map(lambda key, v: ee.String(key).cat(ee.Number(v).format("%d"))),
        {"a": "a1", "b": "b2"},
    ),
    Case("Dictionary.remove", lambda: ee.Dictionary(TABLE).remove(["long", "b"]), {"a": 1, "name": "x"}),
    Case(
        "Dictionary.rename",
        lambda: ee.Dictionary(TABLE).rename(["a"], ["z"]).keys(),
        sorted([*(TABLE.keys() - {"a"}), "z"]),
    ),
    Case("Dictionary.select", lambda: ee.Dictionary(TABLE).select(["l.*"]), {"long": TABLE["long"]}),
    Case("Dictionary.set", lambda: ee.Dictionary(TABLE).set("a", 5), TABLE | {"a": 5}),
    Case("Dictionary.size", lambda: ee.Dictionary(TABLE).size(), len(TABLE)),
    Case("Dictionary.toImage", lambda: value_of(ee.Dictionary({"q": 2.5}).toImage()), 2.5),
    Case("Dictionary.values", lambda: ee.Dictionary(TABLE).values(["b", "a"]), [TABLE["b"], TABLE["a"]]),
    Case("If", lambda: ee.Algorithms.If(ee.Number(0), "yes", "no"), "no"),
]

DATES = [
    Case("Date", lambda: ee.Date(WHEN.isoformat()[:19]), _date(WHEN)),
    Case("Date.advance", lambda: ee.Date("2020-01-31").advance(1, "month"), _date(_day(2020, 2, 29))),
    Case("Date.advance", lambda: _now().advance(-36, "hour"), _date(WHEN - timedelta(hours=36))),
    Case(
        "Date.difference",
        lambda: _now().difference("2018-12-25", "day"),
        (WHEN - _day(2018, 12, 25)) / timedelta(days=1),
    ),
    Case(
        "Date.format",
        lambda: _now().format("EEE d MMMM YYYY HH:mm:ss, D"),
        f"{WHEN:%a} 7 {WHEN:%B %Y %H:%M:%S}, {WHEN.timetuple().tm_yday}",
    ),
    Case("Date.fromYMD", lambda: ee.Date.fromYMD(2019, 3, 7), _date(_day(2019, 3, 7))),
    Case(
        "Date.get",
        lambda: ee.List([_now().get(unit) for unit in ("year", "month", "day", "hour", "minute", "second", "week")]),
        [*WHEN.timetuple()[:6], int(WHEN.strftime("%V"))],
    ),
    Case("Date.getFraction", lambda: _now().getFraction("day"), (WHEN - _day(2019, 3, 7)) / timedelta(days=1)),
    Case(
        "Date.getRange",
        lambda: _now().getRange("month"),
        {"type": "DateRange", "dates": [_ms(_day(2019, 3, 1)), _ms(_day(2019, 4, 1))]},
    ),
    Case("Date.getRelative", lambda: _now().getRelative("day", "year"), WHEN.timetuple().tm_yday - 1),
    Case("Date.millis", lambda: _now().millis(), _ms(WHEN)),
    Case("Date.parse", lambda: ee.Date.parse("dd.MM.YYYY HH:mm", "07.03.2019 16:05"), _date(WHEN.replace(second=0))),
    Case("Date.unitRatio", lambda: ee.Date.unitRatio("week", "hour"), timedelta(weeks=1) / timedelta(hours=1)),
    Case("Date.update", lambda: _now().update(2020, 2, 29), _date(WHEN.replace(2020, 2, 29))),
    Case(
        "DateRange",
        lambda: _range("2019-01-01", "2020-01-01"),
        {"type": "DateRange", "dates": [_ms(_day(2019, 1, 1)), _ms(_day(2020, 1, 1))]},
    ),
    Case("DateRange.contains", lambda: _range("2019-01-01", "2020-01-01").contains("2020-01-01"), False),
    Case("DateRange.end", lambda: _range("2019-01-01", "2020-01-01").end(), _date(_day(2020, 1, 1))),
    Case(
        "DateRange.intersects",
        lambda: _range("2019-01-01", "2020-01-01").intersects(_range("2019-12-31", "2021-01-01")),
        True,
    ),
    Case(
        "DateRange.intersects",
        lambda: _range("2019-01-01", "2020-01-01").intersects(_range("2020-01-01", "2021-01-01")),
        False,
    ),
    Case("DateRange.isEmpty", lambda: _range("2019-01-01", "2018-01-01").isEmpty(), True),
    Case("DateRange.start", lambda: _range("2019-01-01", "2020-01-01").start(), _date(_day(2019, 1, 1))),
]

CASES = [*TEXTS, *LISTS, *DICTIONARIES, *DATES]
