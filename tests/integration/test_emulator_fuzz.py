"""Whatever graph or bytes arrive, the emulator gives a result or a 400 that says why: no crash, no hang, no 500."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import shapely

import mmearth_data.emulator.algorithms  # noqa: F401 - registers every algorithm
from mmearth_data.emulator.assets import FeatureAsset, NativeGrid
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import ALGORITHMS
from mmearth_data.emulator.service import Service
from mmearth_data.emulator.wheel import Parameter
from tests.emulated import RecordedCollection, Running, SmallArchive, image_asset, level, pattern, start_emulator

UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0), (64, 64))
BOX = shapely.box(11.8, 55.8, 11.9, 55.95)
ARCHIVE = SmallArchive(
    [
        image_asset("test/image", {"a": ("int16", UTM, pattern(0)), "b": ("float32", UTM, level(2.5))}, BOX, time=5),
        RecordedCollection(
            "test/scenes",
            [image_asset(f"test/scenes/{k}", {"a": ("uint8", UTM, level(k))}, BOX, time=k, v=k) for k in range(3)],
        ),
        FeatureAsset("test/table", ((BOX, {"v": 1, "s": "x"}), (shapely.Point(11.85, 55.9), {"v": 2, "s": None}))),
    ]
)
NUMBERS = (0, 1, -1, 2, 3, 7, 0.5, -2.75, 100, 255, 70000, 1e6, -1e18, 2**40)
TEXTS = (
    "a", "b", "v", "s", "", "system:index", "system:time_start", "EPSG:4326", "EPSG:32633", "day", "month", "mean",
    "test/image", "test/scenes", "test/table", ".geo", "circle", "pixels", "2019-05-01", "x.*", "(", "%d", "YYYY-MM",
)  # fmt: skip
FITTING: dict[str, tuple[Any, ...]] = {
    "unit": ("day", "hour", "month"), "inUnit": ("year",), "numerator": ("day",), "denominator": ("week",),
    "leftField": ("v", ".geo", "system:time_start"), "rightField": ("v", ".geo", None), "leftValue": (None,),
    "rightValue": (2, "x", [1, 2], 3.5), "field": ("day_of_year", "month"), "selectors": (["v"],),
    "year": (2019,), "month": (5,), "day": (9,), "hour": (3,), "minute": (4,), "second": (5.0,), "crs": ("EPSG:4326",),
    "kernelType": ("circle", "square"), "units": ("pixels",), "radius": (1, 2.5), "xRadius": (1,), "yRadius": (2,),
    "iterations": (1, 2), "weights": ([[1, 2, 1], [2, 4, 2], [1, 2, 1]],), "width": (3,), "height": (3,),
    "inputWeight": ("kernel", "mask"), "key": ("a", "b", "v"), "property": ("v",), "propertyName": ("v",),
    "qualityBand": ("a", "b"), "bandName": ("a",), "from": ([1, 2],), "to": ([3, 4],), "lookupIn": ([1, 2],),
    "lookupOut": ([3, 4],), "names": (["a", "b"], ["p", "q"]), "bands": (["a"],), "palette": (["red", "00ff00"],),
    "west": (11.0,), "east": (12.0,), "south": (55.0,), "north": (56.0,), "pos1": (0,), "pos2": (1,), "index": (0, 1),
    "radix": (10,), "outputs": (["p"],), "timeZone": (None,), "proj": (None,), "version": (None,), "opacity": (None,),
    "geodesics": (None,), "geometryKey": (None,), "transformWkt": (None,), "maxPixelsPerRegion": (None,),
    "distance": (10.0, 500.0), "scale": (10, 100), "mode": ("bilinear",), "string": ("[1]", "x"), "count": (2,),
    "Image.visualize bands": (["a", "b", "a"],), "Number.parse input": ("12", "-3.5"),
    "Image.load id": ("test/image",), "ImageCollection.load id": ("test/scenes",), "tableId": ("test/table",),
    "Date.parse format": ("YYYY-MM-dd",), "Date.parse date": ("2019-05-01",), "Image.constant value": (1, [2, 3.5]),
    "GeometryConstructors.LinearRing coordinates": ([[1, 1], [2, 1], [2, 2], [1, 1]],),
    "GeometryConstructors.MultiPolygon coordinates": ([[[[1, 1], [2, 1], [2, 2]]]],),
}  # fmt: skip
"""Values that parameters may have, by their name or an algorithm's and theirs: a random text is no unit, and what is
refused at once tells little."""
GRID = {
    "dimensions": {"width": 8, "height": 8},
    "crsCode": "EPSG:32633",
    "affineTransform": {"scaleX": 10, "translateX": 300000, "scaleY": -10, "translateY": 6200000},
}
SLOW_SECONDS = 20.0
RETURNING: dict[str, list[str]] = {}
for _name, _known in ALGORITHMS.items():
    RETURNING.setdefault(_known.signature.returns.partition("<")[0], []).append(_name)


class Graphs:
    """Random expressions: every argument is made for the type that the signature names, most of the time."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.left = 60

    def constant(self, value: Any) -> dict[str, Any]:
        return {"constantValue": value}

    def call(self, name: str, depth: int) -> dict[str, Any]:
        self.left -= 1
        arguments = {}
        for parameter in ALGORITHMS[name].signature.parameters.values():
            if parameter.optional and self.draw.random() < 0.5:
                continue
            arguments[parameter.name] = self.argument(name, parameter, depth - 1)
        return {"functionInvocationValue": {"functionName": name, "arguments": arguments}}

    def argument(self, name: str, parameter: Parameter, depth: int) -> dict[str, Any]:
        fitting = FITTING.get(f"{name} {parameter.name}", FITTING.get(parameter.name))
        if fitting is not None and self.draw.random() < 0.7:
            return self.constant(self.draw.choice(fitting))
        kind = parameter.type if self.draw.random() > 0.05 else self.draw.choice(("Number", "Image", "String"))
        return self.of(kind, depth)

    def of(self, kind: str, depth: int) -> dict[str, Any]:
        base, _, inner = kind.partition("<")
        makers = RETURNING.get(base, [])
        if makers and depth > 0 and self.left > 0 and self.draw.random() < 0.5:
            return self.call(self.draw.choice(makers), depth)
        return self.leaf(base, inner.removesuffix(">"), depth)

    def leaf(self, base: str, inner: str, depth: int) -> dict[str, Any]:
        draw = self.draw
        match base:
            case "Number" | "Float" | "Integer" | "Long":
                return self.constant(draw.choice(NUMBERS))
            case "String":
                return self.constant(draw.choice(TEXTS))
            case "Boolean":
                return self.constant(draw.random() < 0.5)
            case "Date":
                return self.constant(draw.choice((0, 1.5e12, "2019-05-01", "x")))
            case "List":
                items = [self.of(inner or "Object", depth - 1) for _ in range(draw.randrange(4))]
                return {"arrayValue": {"values": items}}
            case "Dictionary":
                return {"dictionaryValue": {"values": {t: self.of("Object", depth - 1) for t in draw.sample("abv", 2)}}}
            case "Geometry" | "Feature" | "Element" | "Projection" | "Reducer" | "Kernel" | "Filter" | "Join":
                return self.known(base)
            case "DateRange" | "ErrorMargin" | "Image" | "ImageCollection" | "FeatureCollection":
                return self.known(base)
            case "Algorithm":
                return {"functionDefinitionValue": {"argumentNames": ["x"], "body": "body"}}
            case _:
                return self.of(draw.choice(("Number", "String", "Image", "List<Object>", "Geometry")), depth - 1)

    def known(self, base: str) -> dict[str, Any]:
        def call(name: str, **arguments: Any) -> dict[str, Any]:
            made = {key: value if isinstance(value, dict) else self.constant(value) for key, value in arguments.items()}
            return _invoked(name, **made)

        x, y = self.draw.choice(((11.83, 55.9), (0.0, 0.0), (179.99, 89.9), (-500.0, 95.0)))
        geometry = self.draw.choice(
            (
                call("GeometryConstructors.Point", coordinates=[x, y]),
                call("GeometryConstructors.Rectangle", coordinates=[x, y, x + 0.002, y + 0.001]),
                call("GeometryConstructors.LineString", coordinates=[[x, y], [x + 0.01, y]]),
            )
        )
        table = call("Collection.loadTable", tableId="test/table")
        made = {
            "Geometry": geometry,
            "Feature": call("Feature", geometry=geometry, metadata={"v": 1}),
            "Element": self.draw.choice((call("Image.load", id="test/image"), call("Feature", geometry=geometry))),
            "Projection": call("Projection", crs=self.draw.choice(("EPSG:4326", "EPSG:32633", "EPSG:3857"))),
            "Reducer": call(self.draw.choice(("Reducer.mean", "Reducer.toList", "Reducer.count", "Reducer.first"))),
            "Kernel": call("Kernel.square", radius=1),
            "Filter": call("Filter.lessThan", leftField="v", rightValue=2),
            "Join": call("Join.simple"),
            "DateRange": call("DateRange", start=0, end=10),
            "ErrorMargin": call("ErrorMargin", value=1),
            "Image": call("Image.load", id="test/image"),
            "ImageCollection": call("ImageCollection.load", id="test/scenes"),
            "FeatureCollection": table,
        }
        return made[base]

    def expression(self, name: str) -> dict[str, Any]:
        body = self.draw.choice(({"argumentReference": "x"}, self.constant(3), self.call("Feature", 1)))
        return {"result": "0", "values": {"0": self.applied(name, self.call(name, 3)), "body": body}}

    def applied(self, name: str, call: dict[str, Any]) -> dict[str, Any]:
        """What cannot be sent is put to use, so that it is evaluated too."""
        match ALGORITHMS[name].signature.returns:
            case "Filter":
                table = self.known(self.draw.choice(("FeatureCollection", "ImageCollection")))
                passed = _invoked("Collection.filter", collection=table, filter=call)
                return _invoked("Collection.size", collection=passed)
            case "Kernel":
                return _invoked("Image.convolve", image=self.known("Image"), kernel=call)
            case "Reducer":
                values = {"constantValue": [3, 1, 2, 1]}
                return _invoked("List.reduce", list=values, reducer=call)
            case _:
                return call


def _invoked(name: str, **arguments: Any) -> dict[str, Any]:
    return {"functionInvocationValue": {"functionName": name, "arguments": arguments}}


def _verb(name: str) -> str:
    """Pixels are asked for of what is an image in the end."""
    image = ALGORITHMS[name].signature.returns.startswith(("Image<", "Kernel"))
    return "image:computePixels" if image else "value:compute"


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(ARCHIVE)


def _answers(service: Service, verb: str, body: dict[str, Any]) -> bool:
    """Whether there is a result; False for a refusal; anything else is an error of the emulator's."""
    began = time.process_time()
    try:
        answer = service.answer(verb, body)
    except ServiceError as error:
        if error.code not in (400, 404, 429) or not error.message:
            raise
        return False
    finally:
        assert time.process_time() - began < SLOW_SECONDS, json.dumps(body)[:3000]
    assert answer.body
    return True


@pytest.mark.parametrize("part", range(4))
def test_random_graphs_of_every_algorithm_give_a_result_or_a_refusal(service: Service, part: int) -> None:
    results: dict[str, int] = dict.fromkeys(sorted(ALGORITHMS)[part::4], 0)
    for number, name in enumerate(results):
        for attempt in range(12):
            graph = Graphs(1000 * number + attempt).expression(name)
            body = {"expression": graph, "fileFormat": "NPY", "grid": GRID}
            try:
                results[name] += _answers(service, _verb(name), body)
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error}\n{json.dumps(graph)[:4000]}") from error
    answered = [name for name, count in results.items() if count]
    assert len(answered) > 0.85 * len(results), sorted({*results} - {*answered})


def _any(base: str) -> dict[str, Any]:
    return Graphs(0).known(base)


def _of(value: Any) -> dict[str, Any]:
    return {"constantValue": value}


@pytest.mark.parametrize(
    ("node", "answered"),
    [
        (_invoked("ErrorMargin", value=_invoked("Number.parse", input=_of("nan"))), True),
        (_invoked("Image.sinh", value=_invoked("Image.float", value=_invoked("Image.constant", value=_of(200)))), True),
        (_invoked("Image.rename", input=_invoked("Image.constant", value=_of(1)), names=_of([":a"])), True),
        (_invoked("Image.reduceResolution", image=_any("Image"), reducer=_any("Reducer"), maxPixels=_of(-1)), False),
        (_invoked("Image.convolve", image=_any("Image"), kernel=_invoked("Kernel.sobel", magnitude=_of(1e999))), False),
        (
            _invoked(
                "Join.apply", join=_invoked("Join.saveFirst", matchKey=_of("system:index")),
                primary=_any("FeatureCollection"), secondary=_any("FeatureCollection"),
                condition=_invoked("Filter.equals", leftField=_of("v"), rightField=_of("v")),
            ),
            True,
        ),
    ],
)  # fmt: skip
def test_graphs_that_once_were_errors_of_the_emulator_s_own(
    service: Service, node: dict[str, Any], answered: bool
) -> None:
    name = node["functionInvocationValue"]["functionName"]
    body = {"expression": {"result": "0", "values": {"0": node}}, "fileFormat": "NPY", "grid": GRID}
    assert _answers(service, _verb(name), body) == answered


def test_an_error_of_the_emulator_s_own_is_no_refusal(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests here look for would be seen: it passes through the service and is a 500 on the wire."""

    def broken(**arguments: Any) -> Any:
        raise KeyError("broken")

    body = {"expression": Graphs(1).expression("Number.add")}
    assert _answers(service, "value:compute", body)
    monkeypatch.setitem(ALGORITHMS, "Number.add", replace(ALGORITHMS["Number.add"], handler=broken))
    with pytest.raises(KeyError, match="broken"):
        _answers(service, "value:compute", body)


def test_broken_requests_are_refused(service: Service) -> None:
    draw = random.Random(5)
    whole = json.dumps({"expression": Graphs(1).expression("Image.add"), "fileFormat": "NPY", "grid": GRID})
    strange = (None, 1, "x", [], {}, {"constantValue": 1}, {"valueReference": "0"}, -1, 1e300, True)

    def mangled(value: Any) -> Any:
        if draw.random() < 0.1:
            return draw.choice(strange)
        if isinstance(value, dict):
            return {key: mangled(item) for key, item in value.items() if draw.random() > 0.03}
        return [mangled(item) for item in value] if isinstance(value, list) else value

    for _ in range(400):
        body = mangled(json.loads(whole))
        if not isinstance(body, dict):
            continue
        for verb in ("value:compute", "image:computePixels", "table:computeFeatures", "thumbnails"):
            try:
                _answers(service, verb, body)
            except Exception as error:
                raise AssertionError(f"{verb}: {type(error).__name__}: {error}\n{json.dumps(body)}") from error


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=ARCHIVE) as running:
        yield running


def test_garbage_on_the_wire_breaks_nothing(running: Running) -> None:
    address = urlsplit(running.url)
    host, port = address.hostname or "", address.port or 0
    noise = np.random.default_rng(3)
    heads = (
        b"", b"GET / HTTP/1.1\r\n\r\n", b"POST /v1/projects/p/value:compute HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/projects/p/value:compute HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/projects/p/value:compute HTTP/1.1\r\nContent-Length: 400\r\n\r\n{",
        b"POST /v1/projects/p/value:compute HTTP/9.9\r\nContent-Length: 2\r\n\r\n{}",
        b"DELETE /v1/projects/p/value:compute HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"GET /v1/projects/p/thumbnails/none:getPixels HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"GET " + b"/" * 70_000,
    )  # fmt: skip
    for k in range(60):
        content = heads[k % len(heads)] + noise.bytes(int(noise.integers(0, 300)))
        with socket.create_connection((host, port), timeout=10) as raw:
            raw.sendall(content)
            raw.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := raw.recv(65536):
                    answer += piece
            except ConnectionResetError:
                pass  # it hung up on us, as it may
        assert b" 500 " not in answer.partition(b"\r\n")[0], (content[:200], answer[:300])
    client = http.client.HTTPConnection(host, port, timeout=30)
    for body, status in (
        (b"{}", 400), (b"[1]", 400), (b"\xff\xfe", 400), (b'{"expression": 3}', 400), (b"{" * 100_000, 400),
        (b'{"expression": {"result": "0", "values": {"0": {"constantValue": 7}}}}', 200),
    ):  # fmt: skip
        client.request("POST", "/v1/projects/p/value:compute", body)
        answered = client.getresponse()
        answered.read()
        assert answered.status == status, body[:50]
    client.close()
