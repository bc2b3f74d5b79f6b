"""The unmodified client against the emulator: initialising, errors, limits, faults, pages and the request log."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ee
import numpy as np
import pytest
import shapely
from ee.ee_exception import EEException

from mmearth_data.emulator import limits
from mmearth_data.emulator.assets import FeatureAsset, NativeGrid
from tests.emulated import Running, SmallArchive, connected, image_asset, level, pixels, start_emulator

UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0))
GRID = ("EPSG:32633", (10.0, 0.0, 300100.0, 0.0, -10.0, 6199900.0), 4, 4)
ROWS = 2300
ARCHIVE = SmallArchive(
    [
        image_asset("test/image", {"a": ("uint16", UTM, level(7)), "b": ("float32", UTM, level(0.5))}),
        FeatureAsset("test/table", tuple((shapely.Point(i / 100, 1), {"row": i}) for i in range(ROWS))),
    ]
)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("emulator"), archive=ARCHIVE) as running, connected(running.url):
        yield running


def _post(url: str, verb: str, body: Any) -> tuple[int, bytes]:
    """A raw request, for what the client would not send or would retry."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/projects/p/{verb}", data=content, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _one(node: dict[str, Any]) -> dict[str, Any]:
    return {"expression": {"result": "0", "values": {"0": node}}}


def test_the_client_initialises_with_three_requests_and_computes(emulator: Running) -> None:
    kinds = [entry["kind"] for entry in emulator.requests()[:3]]
    assert kinds == ["discovery", "discovery", "algorithms"]
    assert ee.Number(2).add(3).getInfo() == 5
    assert ee.Image("test/image").bandNames().getInfo() == ["a", "b"]


def test_the_server_never_imports_the_client() -> None:
    code = (
        "import sys; from mmearth_data.emulator import wheel, run, service; "
        "assert len(wheel.signatures()) > 900; assert b'v1alpha' not in wheel.discovery_document(); "
        "assert not any(name == 'ee' or name.startswith('ee.') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_algorithms_are_the_wheels_own(emulator: Running) -> None:
    spec = importlib.util.find_spec("ee")
    assert spec is not None
    assert spec.origin is not None
    with urllib.request.urlopen(f"{emulator.url}/v1/projects/p/algorithms", timeout=30) as answer:
        assert answer.read() == (Path(spec.origin).parent / "tests" / "algorithms.json").read_bytes()


def test_the_root_says_what_it_is(emulator: Running) -> None:
    with urllib.request.urlopen(emulator.url, timeout=30) as answer:
        assert b"Nothing here is Google's service" in answer.read()


def test_service_accounts_get_a_token(emulator: Running) -> None:
    with urllib.request.urlopen(f"{emulator.url}/token", data=b"grant_type=x", timeout=30) as answer:
        assert json.load(answer)["token_type"] == "Bearer"


def test_an_unknown_path_is_404_in_the_services_shape(emulator: Running) -> None:
    status, content = _post(emulator.url, "video:compute", {})
    assert status == 404
    assert json.loads(content)["error"]["status"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"functionInvocationValue": {"functionName": "Image.hillshadow", "arguments": {}}}, "Image.hillshadow"),
        (
            {"functionInvocationValue": {"functionName": "Image.entropy", "arguments": {}}},
            "not implement.*Image.entropy",
        ),
        (
            {
                "functionInvocationValue": {
                    "functionName": "Image.load",
                    "arguments": {"id": {"constantValue": "test/no"}},
                }
            },
            "'test/no' not found",
        ),
        (
            {"functionInvocationValue": {"functionName": "Number.abs", "arguments": {"x": {"constantValue": 1}}}},
            "Unrecognized argument 'x'; it takes input",
        ),
        ({"functionInvocationValue": {"functionName": "Number.abs", "arguments": {}}}, "'input' is required"),
        (
            {"functionInvocationValue": {"functionName": "Number.abs", "arguments": {"input": {"constantValue": "a"}}}},
            "expected Number, got String",
        ),
        ({"valueReference": "9"}, "'9' refers to no value"),
        ({"valueReference": "0"}, "refers to itself"),
        ({"argumentReference": "x"}, "'x' is not an argument"),
        ({"surpriseValue": 1}, "Unknown kind of value node: 'surpriseValue'"),
    ],
)
def test_what_is_not_known_is_a_400_that_names_it(emulator: Running, node: dict[str, Any], message: str) -> None:
    status, content = _post(emulator.url, "value:compute", _one(node))
    error = json.loads(content)["error"]
    assert (status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert re.search(message, error["message"]), error["message"]


def test_an_argument_that_is_not_emulated_is_refused_instead_of_ignored(emulator: Running) -> None:
    with pytest.raises(EEException, match="does not implement the argument 'timeZone'"):
        ee.Date("2020-01-01").advance(1, "day", "Europe/Oslo").getInfo()


def test_all_nine_kinds_of_nodes_are_evaluated(emulator: Running) -> None:
    add = {
        "functionInvocationValue": {
            "functionName": "Number.add",
            "arguments": {"left": {"argumentReference": "x"}, "right": {"integerValue": "40"}},
        }
    }
    values = {
        "body": add,
        "function": {"functionDefinitionValue": {"argumentNames": ["x"], "body": "body"}},
        "sum": {"functionInvocationValue": {"functionReference": "function", "arguments": {"x": {"constantValue": 2}}}},
        "all": {
            "dictionaryValue": {
                "values": {
                    "sum": {"valueReference": "sum"},
                    "list": {"arrayValue": {"values": [{"constantValue": "a"}]}},
                }
            }
        },
    }
    status, content = _post(emulator.url, "value:compute", {"expression": {"result": "all", "values": values}})
    assert (status, json.loads(content)) == (200, {"result": {"sum": 42, "list": ["a"]}})
    blob = {"bytesValue": base64.b64encode(b"x").decode()}
    status, content = _post(emulator.url, "value:compute", _one({"arrayValue": {"values": [blob]}}))
    assert status == 400
    assert "bytes" in json.loads(content)["error"]["message"]


def test_tables_arrive_in_pages_of_1000(emulator: Running) -> None:
    before = len(emulator.requests("computeFeatures"))
    frame = ee.data.computeFeatures(
        {"expression": ee.FeatureCollection("test/table"), "fileFormat": "PANDAS_DATAFRAME"}
    )
    assert frame["row"].tolist() == list(range(ROWS))
    assert len(emulator.requests("computeFeatures")) - before == -(-ROWS // limits.MAX_PAGE_ROWS)
    small = ee.data.computeFeatures({"expression": ee.FeatureCollection("test/table"), "pageSize": 10})
    assert len(small["features"]) == 10
    rest = {"expression": ee.FeatureCollection("test/table"), "pageToken": small["nextPageToken"]}
    assert ee.data.computeFeatures(rest)["features"][0]["properties"]["row"] == 10


def test_a_page_token_of_another_table_is_refused(emulator: Running) -> None:
    token = ee.data.computeFeatures({"expression": ee.FeatureCollection("test/table"), "pageSize": 1})["nextPageToken"]
    other = ee.FeatureCollection("test/table").limit(5)
    with pytest.raises(EEException, match="page token"):
        ee.data.computeFeatures({"expression": other, "pageToken": token})


def test_a_collection_of_over_5000_elements_is_not_sent_whole(emulator: Running) -> None:
    table = ee.FeatureCollection("test/table")
    assert len(table.merge(table).getInfo()["features"]) == 2 * ROWS
    with pytest.raises(EEException, match="over 5000 elements"):
        table.merge(table).merge(table).getInfo()


def test_48_megabytes_count_a_mask_byte_per_pixel_and_band(emulator: Running) -> None:
    bytes_per_pixel = 2 + 1
    width = 4096
    height = limits.MAX_PIXEL_BYTES // (bytes_per_pixel * width)
    image = ee.Image("test/image").select("a")
    assert pixels(image, GRID[0], GRID[1], height, width).shape == (height, width)
    too_many = (height + 1) * width * bytes_per_pixel
    with pytest.raises(EEException, match=rf"\({too_many} bytes\) must be less than or equal to 50331648 bytes"):
        pixels(image, GRID[0], GRID[1], height + 1, width)


def test_a_band_may_have_any_name(emulator: Running) -> None:
    data = pixels(ee.Image("test/image").rename([":a", "b b"]), *GRID)
    assert data.dtype.names == (":a", "b b")
    assert (data[":a"] == 7).all()
    assert pixels(ee.Image(7).rename("高さ"), *GRID).dtype.names == ("高さ",)


def test_grids_and_bands_are_bounded(emulator: Running) -> None:
    with pytest.raises(EEException, match=r"32769x1.*between 1 and 32768"):
        pixels(ee.Image(1), GRID[0], GRID[1], 1, 32769)
    with pytest.raises(EEException, match="1025 bands"):
        pixels(ee.Image.constant([1] * 1025), GRID[0], GRID[1], 1, 1)


def test_a_request_over_10_megabytes_is_refused_and_its_connection_survives(emulator: Running) -> None:
    status, content = _post(emulator.url, "value:compute", b" " * (limits.MAX_REQUEST_BYTES + 1))
    assert status == 400
    assert "payload size exceeds the limit" in json.loads(content)["error"]["message"]


def test_the_log_counts_requests_with_their_tags(emulator: Running) -> None:
    before = len(emulator.requests("computePixels"))
    with ee.data.workloadTagContext("counted"):
        data = pixels(ee.Image("test/image"), *GRID)
    (entry,) = emulator.requests("computePixels")[before:]
    assert entry["method"] == "POST"
    assert entry["path"].startswith("/v1/projects/p/image:computePixels")
    assert (entry["status"], entry["tag"], entry["client"]) == (200, "counted", "ee-py/1.7.50")
    assert entry["bytes"] > data.nbytes
    assert data.dtype == np.dtype([("a", "<u2"), ("b", "<f4")])
    assert (data["a"] == 7).all()
