"""What the emulator refuses, and how connections fail: rates, stalls, expired tokens, deadlines, memory, counters."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import math
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import ee
import google.oauth2.credentials
import numpy as np
import pytest
from ee.ee_exception import EEException
from scipy import stats

from mmearth_data.emulator import limits
from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.faults import Faults, parse
from tests.emulated import Running, SmallArchive, connected, image_asset, level, start_emulator

UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0))
ARCHIVE = SmallArchive([image_asset("test/image", {"a": ("uint16", UTM, level(7))})])


def _compute(url: str, value: int) -> int:
    """The status of asking for a constant."""
    body = json.dumps({"expression": {"result": "0", "values": {"0": {"constantValue": value}}}}).encode()
    request = urllib.request.Request(f"{url}/v1/projects/p/value:compute", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_more_requests_are_let_in_per_second_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    gate, passed = limits.Gate(), []
    for step in range(1000):
        now[0] = 1000 + step / 200
        with contextlib.suppress(ServiceError), gate.enter():
            passed.append(now[0])
    passing = np.array(passed)
    busiest = max(((passing > start - 1) & (passing <= start)).sum() for start in passing)
    assert busiest == limits.MAX_REQUESTS_PER_SECOND
    assert len(passing) == 5 * limits.MAX_REQUESTS_PER_SECOND


def test_the_rate_limit_reaches_clients_as_429(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=ARCHIVE, requests_per_second=1) as running:
        assert sorted({_compute(running.url, k) for k in range(4)}) == [200, 429]


def test_a_stalled_connection_says_nothing_and_drops(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=ARCHIVE, faults="stall=1,stall_seconds=0.3") as running:
        began = time.monotonic()
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            _compute(running.url, 1)
        assert time.monotonic() - began >= 0.3
        assert [entry["fault"] for entry in running.requests("compute")] == ["stall"]


def test_an_expired_token_is_renewed_and_the_request_repeated(tmp_path: Path) -> None:
    """Of 30 requests some meet a 401; with credentials that can be refreshed the client never shows it."""
    with start_emulator(tmp_path, archive=ARCHIVE, faults="401=0.3,seed=3") as running:
        credentials = google.oauth2.credentials.Credentials(
            "stale", refresh_token="r", token_uri=f"{running.url}/token", client_id="i", client_secret="s"
        )
        ee.Reset()
        ee.Initialize(credentials=credentials, project="p", url=running.url)
        try:
            assert [ee.Number(k).getInfo() for k in range(30)] == list(range(30))
        finally:
            ee.Reset()
        assert {entry["fault"] for entry in running.requests("compute")} == {"", "401"}
        assert running.requests("token")


def test_latencies_are_lognormal_and_drawn_from_the_seed() -> None:
    first, again, other = (Faults(parse(f"seed={seed}")) for seed in (1, 1, 2))
    bodies = [f"{k}".encode() for k in range(2000)]
    drawn = np.array([first.stretch(body, 0.5) for body in bodies])
    assert drawn.tolist() == [again.stretch(body, 0.5) for body in bodies]
    assert drawn.tolist() != [other.stretch(body, 0.5) for body in bodies]
    assert stats.kstest(np.log(drawn) / 0.5, "norm").pvalue > 1e-4
    assert first.stretch(b"x", 0.0) == 1.0


def test_time_and_memory_that_are_spent_are_said_in_the_services_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_emulator(tmp_path, archive=ARCHIVE) as running, connected(running.url):
        monkeypatch.setattr(limits, "MAX_SECONDS", -1.0)
        with pytest.raises(EEException, match=r"Computation timed out\."):
            ee.Number(1).add(1).getInfo()
        monkeypatch.undo()
        many = ee.ImageCollection.fromImages([ee.Image("test/image").add(k) for k in range(40)])
        grid = {
            "crsCode": "EPSG:32633",
            "dimensions": {"width": 1500, "height": 1500},
            "affineTransform": {"scaleX": 10, "translateX": 300000, "scaleY": -10, "translateY": 6200000},
        }
        monkeypatch.setattr(limits, "MAX_MEMORY_BYTES", 10**8)
        with pytest.raises(EEException, match=r"User memory limit exceeded\."):
            ee.data.computePixels({"expression": many.median(), "fileFormat": "NUMPY_NDARRAY", "grid": grid})


def _metrics(running: Running) -> dict[str, float]:
    with urllib.request.urlopen(f"{running.url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_counters_are_those_of_the_log(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=ARCHIVE, faults="500=0.4,seed=2") as running:
        for number in range(20):
            _compute(running.url, number)
        metrics = _metrics(running)
        entries = running.requests("compute")
    for status in (200, 500):
        count = sum(entry["status"] == status for entry in entries)
        assert metrics[f'emulator_requests_total{{kind="compute",status="{status}"}}'] == count > 0
    assert metrics['emulator_bytes_total{kind="compute"}'] == sum(entry["bytes"] for entry in entries)
    assert metrics['emulator_faults_total{fault="500"}'] == sum(entry["fault"] == "500" for entry in entries)
    assert math.isclose(metrics["emulator_computing"], 0)


def test_the_oldest_downloads_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str) -> Any:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return np.load(io.BytesIO(answer.read()))

    monkeypatch.setattr("mmearth_data.emulator.service.MAX_THUMBNAILS", 3)
    with start_emulator(tmp_path, archive=ARCHIVE) as running, connected(running.url):
        region = {"crs": "EPSG:32633", "crs_transform": [10, 0, 300000, 0, -10, 6200000], "dimensions": [3, 2]}
        urls = [ee.Image("test/image").add(k).getDownloadURL({**region, "format": "NPY"}) for k in range(5)]
        assert [fetch(url)["a"].tolist() for url in urls[2:]] == [[[7 + k] * 3] * 2 for k in (2, 3, 4)]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(urls[0])
