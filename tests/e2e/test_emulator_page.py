"""The emulator's page in a real browser: move the map, click it, and see what a client sees and asks for."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ee
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from mmearth_data.emulator.page.listing import describe
from mmearth_data.emulator.world import build
from tests.emulated import Running, connected, start_emulator

pytestmark = pytest.mark.e2e

EUROPE = "7.00/48.00000/20.00000/cover"
L2A = "COPERNICUS/S2_SR_HARMONIZED"


class Browser:
    """One page of a headless Chromium, driven through its DevTools protocol as a hand would: by mouse and keys."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.requested: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(60))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def value(self, script: str) -> Any:
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str, what: str) -> Any:
        for _ in range(300):
            found = self.value(script)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{what}: {script} stayed {found!r}")

    def open(self, url: str, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.until("document.body && document.body.dataset.ready === 'yes'", "the page did not get ready")
        self.painted()

    def painted(self) -> None:
        """Wait until every tile of the map has come."""
        tiles = "[...document.querySelectorAll('#tiles img')]"
        done = "(i => i.length > 3 && i.every(t => t.complete && t.naturalWidth === 256))"
        self.until(f"{done}({tiles})", "tiles are missing")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, x: float, y: float, dx: float, dy: float) -> None:
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        for part in (0.3, 0.7, 1.0):
            self.mouse("mouseMoved", x + dx * part, y + dy * part, button="left", buttons=1)
        self.mouse("mouseReleased", x + dx, y + dy, button="left", clickCount=1)

    def click(self, x: float, y: float) -> None:
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element."""
        sides = "(b => [b.x, b.y, b.width, b.height])"
        left, top, width, height = self.value(f"{sides}(document.querySelector({selector!r}).getBoundingClientRect())")
        return left, top, width, height

    def click_on(self, selector: str) -> None:
        left, top, width, height = self.box(selector)
        self.click(left + width / 2, top + height / 2)

    def where(self) -> tuple[float, float, float]:
        """Zoom, latitude and longitude of the map's middle."""
        zoom, lat, lon = self.value("[view.zoom, ...lonlat(view.x, view.y).reverse()]")
        return zoom, lat, lon

    def picture(self, file: Path) -> np.ndarray[Any, Any]:
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
        return np.asarray(Image.open(file).convert("RGB"))


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser that reaches the loopback interface alone."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed to look at the page with")
    command = [
        found, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-quic",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(m for line in process.stderr if (m := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/json/list", timeout=60) as answer:
            target = next(page for page in json.load(answer) if page["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=2**26) as socket:
            browser = Browser(socket)
            for domain in ("Page", "Runtime", "Network"):
                browser.send(f"{domain}.enable")
            yield browser
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def across(lat: float, zoom: float, pixels: float) -> float:
    """The latitude this many pixels further down a Web Mercator map."""
    y = math.asinh(math.tan(math.radians(lat))) - pixels / 256 / 2**zoom * 2 * math.pi
    return math.degrees(math.atan(math.sinh(y)))


def land(place: Callable[[float, float], bool]) -> tuple[float, float]:
    """A place of the procedural Earth that the test may use."""
    rng = np.random.default_rng(1)
    return next(
        (x, y) for x, y in zip(rng.uniform(-150, 150, 999), rng.uniform(20, 60, 999), strict=True) if place(x, y)
    )


def test_the_map_follows_the_hand(emulator: Running, browser: Browser) -> None:
    browser.open(f"{emulator.url}/#{EUROPE}", 1400, 900)
    assert browser.where() == pytest.approx((7, 48, 20), abs=1e-4)
    browser.drag(500, 400, 200, -150)
    zoom, lat, lon = browser.where()
    assert zoom == pytest.approx(7)
    assert lon == pytest.approx(20 - 200 * 360 / 256 / 2**7, abs=1e-3)
    assert lat == pytest.approx(across(48, 7, 150), abs=1e-3)
    browser.painted()

    # The point under the pointer stays where it is when the wheel turns.
    under = browser.value("lonlat(...at({clientX: 300, clientY: 300}))")
    browser.mouse("mouseWheel", 300, 300, deltaX=0, deltaY=-120)
    assert browser.until("view.zoom > 7.4 && view.zoom", "the wheel did nothing") == pytest.approx(7.5)
    assert browser.value("lonlat(...at({clientX: 300, clientY: 300}))") == pytest.approx(under, abs=1e-6)

    browser.click_on("#zoom button")
    assert browser.where()[0] == pytest.approx(9)
    browser.painted()
    assert browser.until("location.hash", "the address does not tell the place").startswith("#9.00/")


@pytest.mark.parametrize("address", ["", "7.00/48/2x/true", "7.00/48", "/48/20/true", "7/NaN/20/true", "7/90/20"])
def test_an_address_that_tells_no_place_shows_the_world(emulator: Running, browser: Browser, address: str) -> None:
    browser.open(f"{emulator.url}/#{address}", 1400, 900)
    zoom, lat, lon = browser.where()
    if address.startswith("7/90"):
        assert (zoom, lon) == (pytest.approx(7), pytest.approx(20))
        assert 80 < lat < 85
    else:
        assert zoom < 3
        assert lon == pytest.approx(0)


def test_every_layer_is_drawn_at_every_scale_from_the_emulator_alone(
    emulator: Running, browser: Browser, tmp_path: Path
) -> None:
    browser.requested.clear()
    lon, lat = land(lambda x, y: bool(describe_point(x, y)))
    seen = {}
    for zoom in (2, 8, 14):
        for layer in ("true", "cover", "biomes", "elevation"):
            browser.open(f"{emulator.url}/#{zoom}/{lat}/{lon}/{layer}", 1000, 700)
            seen[zoom, layer] = browser.picture(tmp_path / "shot.png")[:, :600].astype(int)
        for one, other in itertools.combinations(("true", "cover", "biomes", "elevation"), 2):
            assert np.abs(seen[zoom, one] - seen[zoom, other]).mean() > 2
    assert len(np.unique(seen[2, "true"].reshape(-1, 3), axis=0)) > 500
    outside = [url for url in browser.requested if not url.startswith((emulator.url, "data:", "about:"))]
    assert outside == []


def test_no_latitude_is_drawn_as_a_line_around_the_sea(emulator: Running) -> None:
    """Rows of a world map: from one to the next the sea may change colour in places, nowhere along most of the row."""

    def tile(layer: str, x: int) -> np.ndarray[Any, Any]:
        with urllib.request.urlopen(f"{emulator.url}/page/tile/{layer}/2/{x}/2.png", timeout=60) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)

    red, _, blue = np.moveaxis(np.hstack([tile("elevation", x) for x in range(4)]), -1, 0)
    sea = blue - red > 30
    both = sea[1:] & sea[:-1]
    rows = both.sum(axis=1) > 200
    changed = ((np.abs(np.diff(red, axis=0)) > 3) & both).sum(axis=1)[rows] / both.sum(axis=1)[rows]
    assert rows.sum() > 200
    assert changed.max() < 0.5


def describe_point(lon: float, lat: float) -> int:
    """How many L2A products of 2019 cover a point, by the archive itself."""
    return len(list(build("earth").lookup(L2A).query((lon, lat, lon, lat), 1546300800000, 1577836800000)))  # type: ignore[union-attr]


def test_a_click_lists_what_a_client_finds_there(emulator: Running, browser: Browser) -> None:
    lon, lat = land(lambda x, y: bool(describe_point(x, y)))
    browser.open(f"{emulator.url}/#9/{lat}/{lon}/true", 1400, 900)
    browser.click(430, 380)
    point = browser.until("document.querySelector('#found').dataset.point", "no products were listed")
    where = [float(part) for part in point.split(",")]
    assert where == pytest.approx(browser.value("lonlat(...at({clientX: 430, clientY: 380}))"), abs=1e-9)
    listed = browser.value(
        "Object.fromEntries([...document.querySelectorAll('#found details')].map(d => [d.dataset.id, "
        "[+d.dataset.total, ...[...d.querySelectorAll('td code')].map(c => c.textContent)]]))"
    )
    with connected(emulator.url):
        here = ee.Geometry.Point(where)
        for asset_id, (total, *indices) in listed.items():
            found = ee.ImageCollection(asset_id).filterBounds(here).filterDate("2019-01-01", "2020-01-01")
            expected = found.aggregate_array("system:index").getInfo()
            assert total == len(expected)
            assert indices == expected[:200]
    assert len(listed[L2A]) > 10
    assert len(listed["ECMWF/ERA5_LAND/MONTHLY_AGGR"]) == 13

    browser.value("(y => { y.value = '2016'; y.onchange(); })(document.querySelector('#year'))")
    browser.until(f"document.querySelector('[data-id=\"{L2A}\"]').dataset.total === '0'", "the year did not change")


def test_requests_of_clients_show_up_and_the_page_s_own_do_not(emulator: Running, browser: Browser) -> None:
    browser.open(f"{emulator.url}/", 1400, 900)
    browser.click_on("[data-tab=activity]")
    browser.until("!!document.querySelector('.facts')", "no counts are shown")
    before = int(browser.value("document.querySelector('.facts b').textContent"))
    with connected(emulator.url):
        assert ee.Number(20).add(22).getInfo() == 42
        with pytest.raises(ee.EEException):
            ee.Image("nothing/there").bandNames().getInfo()
    rows = browser.until(
        "(r => r.length > 1 && r[0][2] === '400' && r)([...document.querySelectorAll('#activity tr')].slice(1).map("
        "r => [...r.children].map(c => c.textContent)))",
        "the refused request is not shown",
    )
    assert [row[1:3] for row in rows[:2]] == [["compute", "400"], ["compute", "200"]]
    assert not any(row[1] == "page" for row in rows)
    logged = [entry for entry in emulator.requests() if entry["kind"] != "page"]
    assert int(browser.value("document.querySelector('.facts b').textContent")) == len(logged) >= before + 2


def test_collections_are_described(emulator: Running, browser: Browser) -> None:
    browser.open(f"{emulator.url}/", 1400, 900)
    browser.click_on("[data-tab=assets]")
    browser.until("document.querySelectorAll('#assets details').length > 10", "no collections are listed")
    shown = browser.value("[...document.querySelectorAll('#assets details')].map(d => d.textContent)")
    archive = build("earth")
    for entry, text in zip(describe(archive, archive.ids, [(20.0, 48.0)]), shown, strict=True):
        assert entry["id"] in text
    assert any("B8A" in text and "SCL" in text for text in shown)


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 800)])
def test_the_page_fits_a_desk_and_a_phone(emulator: Running, browser: Browser, width: int, height: int) -> None:
    browser.open(f"{emulator.url}/", width, height)
    scroll, client = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert (scroll, client) == (width, width)
    for selector in ("#layers", "#zoom", "nav", "#products"):
        left, _, wide, _ = browser.box(selector)
        assert 0 <= left < left + wide <= width
