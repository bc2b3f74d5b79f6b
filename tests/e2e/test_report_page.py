"""The report in a real browser, cut off from every network: it shows all its pictures and fits a laptop and a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.report import ReportConfig, write_report
from tests.synthetic import make_store

pytestmark = pytest.mark.e2e

PROBE = """<script>addEventListener("load", () => {
  const bad = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
  const outside = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length;
  const root = document.documentElement;
  document.title = ["probe", root.scrollWidth, root.clientWidth, document.images.length, bad, outside].join(" ");
})</script>"""
"""Added to a copy of the page; the page itself has no script."""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed to look at the page with")
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store = make_store(folder / "store.zarr", rows=56)
    return write_report(ReportConfig(store=store, out=folder / "report.html"))


def open_page(browser: str, file: Path, profile: Path, width: int, *options: str) -> str:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", f"--window-size={width},1600",
        *options, file.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("width", [1280, 500])
def test_page_fits_and_loads_nothing(browser: str, file: Path, tmp_path: Path, width: int) -> None:
    copy = tmp_path / "probed.html"
    copy.write_text(file.read_text(encoding="utf-8").replace("</head>", f"{PROBE}</head>"), encoding="utf-8")
    dom = open_page(browser, copy, tmp_path / "profile", width, "--dump-dom")
    title = re.search(r"<title>probe ([\d ]+)</title>", dom)
    assert title, "the page did not load"
    scroll, client, pictures, broken, outside = map(int, title[1].split())
    assert client == width
    assert scroll <= client, "the page is wider than the window"
    assert pictures > 50
    assert (broken, outside) == (0, 0)


def test_page_is_drawn_in_light_and_dark(browser: str, file: Path, tmp_path: Path) -> None:
    brightness = []
    for scheme in (1, 0):  # Blink's preferred colour scheme: 0 dark, 1 light
        shot = tmp_path / f"{scheme}.png"
        options = (f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={scheme}")
        open_page(browser, file, tmp_path / f"profile{scheme}", 1280, *options)
        grey = np.asarray(Image.open(shot).convert("L"))
        assert len(np.unique(grey)) > 50, "nothing was drawn"
        brightness.append(float(np.median(grey)))
    light, dark = brightness
    assert light > 200 > 60 > dark
