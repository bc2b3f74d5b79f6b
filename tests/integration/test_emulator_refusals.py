"""What the table of algorithms says is refused is refused, by name, in the service's words and shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import ee
import pytest
from ee.ee_exception import EEException
from googleapiclient.errors import HttpError

import mmearth_data.emulator.algorithms  # noqa: F401 - registers every algorithm
from mmearth_data.emulator.algorithm_table import REFUSED
from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import ALGORITHMS
from mmearth_data.emulator.service import Service
from mmearth_data.emulator.wheel import signatures
from tests.emulated import SmallArchive, connected, image_asset, pattern, start_emulator
from tests.online.answers.case import do, point, value_of

UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5500000.0))
TURNED = NativeGrid("EPSG:32633", (10.0, 3.0, 500000.0, 3.0, -10.0, 5500000.0))
ARCHIVE = SmallArchive(
    [
        image_asset("test/image", {"a": ("int16", UTM, pattern())}),
        image_asset("test/turned", {"a": ("int16", TURNED, pattern())}),
    ]
)
RING = [[10, 50], [12, 50], [11, 51], [10, 50]]


@pytest.fixture(scope="module", autouse=True)
def _connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=ARCHIVE) as running, connected(running.url):
        yield


def _image() -> Any:
    return ee.Image("test/image")


def _features() -> Any:
    return ee.FeatureCollection([ee.Feature(point(), {"v": 1, "other": point()})])


def _many() -> Any:
    return ee.ImageCollection([_image().unmask(0).add(k) for k in range(0, 3000, 10)])


def _filtered(name: str, **more: Any) -> Any:
    made = do(name, leftField="other", rightValue=ee.Feature(point()), **more)
    return _features().filter(ee.Filter(made)).size()


ASKED: dict[str, list[Callable[[], Any]]] = {
    "Collection.randomColumn": [lambda: _features().randomColumn("r", 0, "normal")],
    "Date.advance": [lambda: ee.Date(0).advance(0.5, "month"), lambda: ee.Date(0).advance(1.5, "year")],
    "Date.format": [lambda: ee.Date(0).format("YYYY G"), lambda: ee.Date(0).format("ZZ")],
    "Date.parse": [lambda: ee.Date.parse("d MMM YYYY", "7 Mar 2019"), lambda: ee.Date.parse("hh a", "07 PM")],
    "Element.set": [lambda: _image().set("system:footprint", point()).get("system:footprint")],
    "Element.setMulti": [lambda: do("Element.setMulti", _image(), {"system:footprint": point()})],
    **{
        f"Filter.{name}": [lambda name=name: _filtered(f"Filter.{name}")]  # type: ignore[misc]
        for name in ("contains", "disjoint", "intersects", "isContained")
    },
    "Filter.withinDistance": [lambda: _filtered("Filter.withinDistance", distance=5)],
    "Geometry.buffer": [lambda: point().buffer(10_000_001).area(1)],
    **{
        f"GeometryConstructors.{name}": [
            lambda name=name, shape=shape: do(f"GeometryConstructors.{name}", shape, crs="EPSG:4258", geodesic=True)  # type: ignore[misc]
        ]
        for name, shape in (
            ("LineString", RING), ("LinearRing", RING), ("MultiLineString", [RING]), ("MultiPolygon", [[RING]]),
            ("Polygon", [RING]), ("Rectangle", RING[:3:2]),
        )
    },
    "GeometryConstructors.MultiGeometry": [
        lambda: do("GeometryConstructors.MultiGeometry", [point()], crs="EPSG:32633")
    ],
    **{
        f"Image.{name}": [
            lambda name=name: value_of(do(f"Image.{name}", _image(), units="meters")),  # type: ignore[misc]
            lambda name=name: value_of(do(f"Image.{name}", _image(), kernelType="octagon")),  # type: ignore[misc]
            lambda name=name: value_of(do(f"Image.{name}", _image(), iterations=21)),  # type: ignore[misc]
        ]
        for kind in ("Max", "Mean", "Median", "Min", "Mode")
        for name in (f"focal{kind}", f"focal_{kind.lower()}")
    },
    "Image.reduceNeighborhood": [
        lambda: value_of(_image().reduceNeighborhood(ee.Reducer.linearFit(), ee.Kernel.square(1)))
    ],
    "Image.reduceResolution": [
        lambda: value_of(_image().reduceResolution(ee.Reducer.minMax())),
        lambda: value_of(_image().reduceResolution(ee.Reducer.linearFit())),
    ],
    "Image.resample": [lambda: value_of(_image().resample("bicubic"))],
    "Image.visualize": [lambda: value_of(_image().visualize(palette=["black", "rebeccapurple"]))],
    **{
        f"Kernel.{name}": [
            lambda name=name: value_of(_image().convolve(do(f"Kernel.{name}", 20, units="meters"))),  # type: ignore[misc]
            lambda name=name: value_of(_image().convolve(do(f"Kernel.{name}", 513))),  # type: ignore[misc]
        ]
        for name in ("circle", "cross", "diamond", "gaussian", "plus", "square")
    },
    "Kernel.rectangle": [
        lambda: value_of(_image().convolve(ee.Kernel.rectangle(20, 20, "meters"))),
        lambda: value_of(_image().convolve(ee.Kernel.rectangle(1, 513))),
    ],
    "List.join": [lambda: ee.List([[1]]).join(",")],
    "Number.format": [lambda: ee.Number(3).format("%c")],
    "Reducer.forEach": [lambda: ee.Reducer.minMax().forEach(["a"]).getOutputs()],
    "Reducer.forEachBand": [lambda: ee.Reducer.minMax().forEachBand(_image()).getOutputs()],
    "Reducer.mode": [lambda: value_of(_many().reduce(ee.Reducer.mode()))],
    "Reducer.setOutputs": [lambda: ee.Reducer.minMax().setOutputs(["", "b"]).getOutputs()],
    "reduce.mode": [lambda: value_of(_many().mode())],
    "String": [lambda: do("String", ee.List([1]))],
    "String.match": [lambda: ee.String("a").match("a", "m"), lambda: ee.String("a").match("(a+)+b")],
    "String.replace": [lambda: ee.String("a").replace("a", "b", "m"), lambda: ee.String("a").replace("(a+)+b", "c")],
    "String.split": [lambda: ee.String("a").split("a", "m"), lambda: ee.String("a").split("(a+)+b")],
    "Terrain.slope": [lambda: value_of(ee.Terrain.slope(ee.Image("test/turned")))],
}  # fmt: skip
"""Questions that each refusal of the table is shown by."""
SAID = {
    "Element.setMulti": "Element.set",
    "List.join": "String",
    "Reducer.forEachBand": "Reducer.forEach",
    "Reducer.mode": "reduce.mode",
}
"""Whose name stands in the message where another algorithm does what is refused."""


def _said(name: str) -> str:
    if name.startswith("GeometryConstructors.") and name != "GeometryConstructors.MultiGeometry":
        return "Geometry"
    return re.sub("_([a-z])", lambda found: found[1].upper(), SAID.get(name, name))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_table_says_is_refused_is_refused_by_name(name: str) -> None:
    for ask in ASKED[name]:
        with pytest.raises(EEException, match=rf"^{re.escape(_said(name))}: ") as caught:
            ee.Dictionary({"0": ask()}).getInfo()
        assert isinstance(caught.value.__context__, HttpError)
        assert caught.value.__context__.status_code == 400


def test_every_refusal_that_is_shown_is_in_the_table() -> None:
    assert ASKED.keys() == REFUSED.keys()


def test_a_filter_of_geometries_needs_one() -> None:
    for name in ("Filter.contains", "Filter.intersects"):
        with pytest.raises(EEException, match=f"{name}: the filter has no geometry to compare with"):
            _features().filter(ee.Filter(do(name, leftField=".geo"))).size().getInfo()


def test_a_kernel_without_weights_reaches_nothing() -> None:
    nowhere = ee.Kernel.fixed(1, 1, [[0]])
    for name in ("Min", "Max", "Mean", "Median", "Mode"):
        assert value_of(do(f"Image.focal{name}", _image().unmask(0), kernel=nowhere)).getInfo() is None


@pytest.mark.parametrize("name", sorted({*signatures()} - {*ALGORITHMS}))
def test_an_algorithm_that_is_not_covered_is_refused_by_name(name: str) -> None:
    call = {"functionInvocationValue": {"functionName": name, "arguments": {}}}
    with pytest.raises(ServiceError) as caught:
        Service(ARCHIVE).answer("value:compute", {"expression": {"result": "0", "values": {"0": call}}})
    assert caught.value.code == 400
    assert re.fullmatch(rf"The emulator does not implement the algorithm '{re.escape(name)}'\.", caught.value.message)
