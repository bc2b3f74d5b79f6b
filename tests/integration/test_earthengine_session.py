"""Connecting, and what each failure of the service becomes: types, one-line messages and remedies."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ee
import numpy as np
import pytest
from urllib3.exceptions import SSLError

from mmearth_data import grid
from mmearth_data.earthengine.errors import TooLarge
from mmearth_data.earthengine.pixels import parse
from mmearth_data.earthengine.session import WORKLOAD_TAG, EarthEngineSource, connect
from mmearth_data.earthengine.transport import Transport
from mmearth_data.emulator import wheel
from mmearth_data.modalities import PIXEL
from mmearth_data.source import Acquisition, Corrupt, Quota, Rejected, SourceError, Spent, Transient


class Scripted(BaseHTTPRequestHandler):
    """Initialises like the service, then answers every POST with what the test wants."""

    protocol_version = "HTTP/1.1"
    answer: Callable[[Scripted], None]
    posts: list[dict[str, Any]]
    body: dict[str, Any]
    stumbles: int

    def do_GET(self) -> None:
        if type(self).stumbles:
            type(self).stumbles -= 1
            return self.reply(503, b"not yet", "text/plain")
        return self.reply(200, wheel.discovery_document() if "discovery" in self.path else wheel.algorithms_document())

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).posts.append(self.body)
        type(self).answer(self)

    def reply(self, status: int, content: bytes, kind: str = "application/json", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Tests say themselves what happened."""


@contextmanager
def scripted(answer: Callable[[Scripted], None], stumbles: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    handler = type("Handler", (Scripted,), {"answer": staticmethod(answer), "posts": [], "stumbles": stumbles})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def failing(status: int, message: str, reason: str = "", kind: str = "application/json") -> Callable[[Scripted], None]:
    error = {"code": status, "message": message, "errors": [{"reason": reason}] if reason else []}
    content = json.dumps({"error": error}).encode() if kind == "application/json" else message.encode()
    return lambda handler: handler.reply(status, content, kind)


def ask(source: EarthEngineSource) -> bytes:
    return source.compute_pixels({"expression": ee.Image.constant(1), "fileFormat": "NPY"})


@pytest.mark.parametrize(
    ("status", "message", "reason", "kind", "said"),
    [
        (429, "Too many concurrent requests.", "", Quota, "429: Too many concurrent requests"),
        (403, "Rate limit exceeded.", "rateLimitExceeded", Quota, "Rate limit"),
        (
            429,
            "Quota exceeded for quota metric 'Earth Engine compute time' and limit 'EECU-hours per month'.",
            "",
            Spent,
            "the quota of project 'my-project' is spent: .*; run again once it is renewed",
        ),
        (
            429,
            "Your usage exceeded the custom quota for 'earthengine.googleapis.com/daily_eecu_usage_time', which is "
            "adjustable by your administrator in the Google Cloud console.",
            "",
            Spent,
            "the quota of project 'my-project' is spent: .*daily_eecu_usage_time.*; run again once it is renewed",
        ),
        (429, "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.", "", Quota, "429"),
        (
            404,
            "ImageCollection.load: ImageCollection asset 'A/B' not found (does not exist).",
            "",
            Rejected,
            "has no collection 'A/B', or your account may not read it; look it up",
        ),
        (429, "Too many concurrent aggregations.", "", TooLarge, "aggregations"),
        (400, "User memory limit exceeded.", "", TooLarge, "memory"),
        (400, "Computation timed out.", "", TooLarge, "timed out"),
        (400, "Image.select: Band pattern 'B99' did not match any bands.", "", Rejected, "answered 400: .*B99"),
        (401, "Request had invalid credentials.", "", Rejected, "expired or were revoked; log in again with"),
        (403, "Caller does not have permission.", "", Rejected, "may use project 'my-project'"),
        (
            403,
            "Google Earth Engine API has not been used in project 12 before or it is disabled.",
            "",
            Rejected,
            "project 'my-project' may not use Earth Engine; register it",
        ),
        (404, "Not found.", "", Rejected, "404"),
        (500, "Internal error.", "", Transient, "500"),
        (503, "Unavailable.", "", Transient, "503"),
    ],
)
def test_statuses_become_types(status: int, message: str, reason: str, kind: type[SourceError], said: str) -> None:
    with scripted(failing(status, message, reason)) as (url, posts):
        source = connect("my-project", url)
        with pytest.raises(kind, match=said) as raised:
            ask(source)
        assert type(raised.value) is kind
        assert "\n" not in str(raised.value)
        assert len(posts) == 1, "the client repeats nothing by itself"


def test_a_proxys_error_page_is_transient() -> None:
    with scripted(failing(502, "<html>Bad Gateway</html>", kind="text/html")) as (url, _), pytest.raises(Transient):
        ask(connect(None, url))


def test_an_answer_that_breaks_off_or_never_comes_is_transient() -> None:
    def cut(handler: Scripted) -> None:
        handler.reply(200, b"\x93NUMPY", "application/octet-stream", length=1000)
        handler.close_connection = True

    def drop(handler: Scripted) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    for answer in (cut, drop):
        with scripted(answer) as (url, _), pytest.raises(Transient, match="broke off") as raised:
            ask(connect(None, url))
        assert not isinstance(raised.value, TooLarge)
    release = threading.Event()
    with scripted(lambda handler: (release.wait(20), failing(500, "late")(handler))[1]) as (url, _):
        source = connect(None, url, deadline=0.3)
        with pytest.raises(TooLarge, match=r"no answer within 0\.3 s"):
            ask(source)
        release.set()


def test_an_answer_that_breaks_off_within_tls_has_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def read1(*_: object, **__: object) -> bytes:
        raise SSLError("bad record mac")

    transport = Transport("https://service.test", deadline=1, slots=1)
    answer = SimpleNamespace(raw=SimpleNamespace(read1=read1, close=lambda: None))
    monkeypatch.setattr(transport._session, "request", lambda *_, **__: answer)
    with pytest.raises(ConnectionError, match=r"service\.test broke off"):
        transport.request("https://service.test/v1/projects/p/value:compute", "POST")


def test_tables_that_are_not_geojson_are_corrupt_and_keep_their_bytes() -> None:
    with scripted(lambda handler: handler.reply(200, b"%PDF-garbage")) as (url, _):
        source = connect(None, url)
        with pytest.raises(Corrupt, match="not GeoJSON") as raised:
            source.features(ee.FeatureCollection([]))
    assert b"garbage" in raised.value.payload


def test_pages_of_a_table_are_followed_to_the_end() -> None:
    pages = [["a", "b"], ["c"], ["d"]]

    def answer(handler: Scripted) -> None:
        number = int(str(handler.body.get("pageToken", "0")))
        features = [{"type": "Feature", "geometry": None, "properties": {"name": n}} for n in pages[number]]
        page = {"type": "FeatureCollection", "features": features}
        if number + 1 < len(pages):
            page["nextPageToken"] = str(number + 1)
        handler.reply(200, json.dumps(page).encode())

    with scripted(answer) as (url, posts):
        rows = connect(None, url).features(ee.FeatureCollection([]), page_rows=2)
    assert [row["properties"]["name"] for row in rows] == ["a", "b", "c", "d"]
    assert [body["pageSize"] for body in posts] == [2, 2, 2]
    assert {body["workloadTag"] for body in posts} == {WORKLOAD_TAG}


def test_forty_threads_share_one_pool_and_each_gets_its_own_answer() -> None:
    connections = set()

    def echo(handler: Scripted) -> None:
        connections.add(handler.client_address)
        handler.reply(200, json.dumps(handler.body["expression"]).encode(), "application/octet-stream")

    def correct(number: int) -> bool:
        answer = source.compute_pixels({"expression": ee.Image.constant(number), "fileFormat": "NPY"})
        return f'{{"constantValue": {number}}}' in answer.decode()

    with scripted(echo) as (url, _):
        source = connect(None, url)
        with ThreadPoolExecutor(40) as pool:
            assert all(pool.map(correct, range(400)))
    assert len(connections) <= 40, "no connection was thrown away"


def test_nobody_there_and_nothing_named_get_one_line_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(
        Rejected, match=f"no emulator answers at .*{port}; start one with: mmearth emulator --port {port}$"
    ):
        connect(None, f"http://127.0.0.1:{port}")
    with pytest.raises(
        Rejected, match=r"name a Google Cloud project with --project, or an emulator with --emulator URL"
    ):
        connect(None, None)
    with pytest.raises(Rejected, match="needs a URL such as"):
        connect(None, "localhost:8017")


def test_without_credentials_the_remedy_is_to_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(Rejected, match=r"authorize access.* earthengine authenticate"):
        connect("my-project")


def test_a_proxy_in_the_environment_is_not_asked_for_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with scripted(lambda handler: handler.reply(200, b"fine", "application/octet-stream")) as (url, _):
        assert ask(connect(None, url)) == b"fine"


def test_connecting_makes_no_request_to_anybody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own catalogue fetch has no timeout; a proxy that never answers shows whether it is tried."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with scripted(lambda handler: handler.reply(200, b"fine", "application/octet-stream")) as (url, _):
            assert ask(connect(None, url)) == b"fine"
        silent.settimeout(0.05)
        with pytest.raises(TimeoutError):
            silent.accept()


def test_an_earlier_connection_ends_when_a_later_one_begins() -> None:
    with scripted(lambda handler: handler.reply(200, b"fine", "application/octet-stream")) as (url, _):
        first, second = connect(None, url), connect(None, url)
        assert ask(second) == b"fine"
        with pytest.raises(Rejected, match="was replaced by a later one"):
            ask(first)


def test_a_server_that_stumbles_while_connecting_is_asked_again() -> None:
    with scripted(lambda handler: handler.reply(200, b"fine", "application/octet-stream"), stumbles=2) as (url, _):
        source = connect(None, url)
        assert ask(source) == b"fine"
        assert source.requests == 2 + 3 + 1


ACQUISITION = Acquisition(
    location_id=int(grid.cells_at(9.0, 45.0, 16)[0]),
    year=2019,
    level="L1C",
    sentinel2_id="COPERNICUS/S2_HARMONIZED/X",
    time=1_546_300_800_000,
    scene_cloud=1.0,
    baseline="02.07",
    bands=("B2", "QA60"),
    ascending=None,
    descending=None,
    era5=(0.0,) * 12,
)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload[:-1],
        lambda payload: payload[: len(payload) // 2],
        lambda payload: payload + b"x",
        lambda payload: b"",
        lambda payload: b"<html>" + payload,
        lambda payload: payload.replace(b"'B2'", b"'B3'"),
        lambda payload: payload.replace(b"(16, 16)", b"(8, 32) "),
        lambda payload: payload.replace(b"'<u2'), ('QA60'", b"'<i2'), ('QA60'"),
        lambda payload: payload.replace(b"'<u2'), ('QA60'", b"'|O8'), ('QA60'"),
    ],
)
def test_pixels_that_are_not_exactly_what_was_asked_for_are_corrupt(spoil: Callable[[bytes], bytes]) -> None:
    payload = answer_of(ACQUISITION)
    assert parse(payload, ACQUISITION).pixels["sentinel2"][1, 0, 0] == 7
    with pytest.raises(Corrupt) as raised:
        parse(spoil(payload), ACQUISITION)
    assert raised.value.payload == spoil(payload)


def answer_of(acquisition: Acquisition) -> bytes:
    """An NPY of sevens with the bands that the request's image has, as the service would send it."""
    fields = [(band, m.dtype) for m in PIXEL for band in acquisition.available(m)]
    array = np.zeros((16, 16), dtype=[(name, np.dtype(dtype)) for name, dtype in fields])
    for name, _ in fields:
        array[name] = 7
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
