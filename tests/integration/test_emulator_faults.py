"""The emulator under load and in trouble: concurrency, latency, injected faults, bad configuration, stopping."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import ee
import pytest
from ee.ee_exception import EEException

from mmearth_data.emulator import limits
from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.errors import EmulatorError
from mmearth_data.emulator.run import Emulator, EmulatorConfig
from tests.emulated import SmallArchive, connected, image_asset, level, pixels, start_emulator

UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0))
GRID = ("EPSG:32633", (10.0, 0.0, 300100.0, 0.0, -10.0, 6199900.0), 4, 4)
ARCHIVE = SmallArchive([image_asset("test/image", {"a": ("uint16", UTM, level(7))})])


SLOW_PIXEL = {
    "expression": {
        "result": "0",
        "values": {
            "0": {
                "functionInvocationValue": {
                    "functionName": "Image.load",
                    "arguments": {"id": {"constantValue": "test/slow"}},
                }
            }
        },
    },
    "fileFormat": "NPY",
    "grid": {
        "crsCode": "EPSG:32633",
        "dimensions": {"width": 1, "height": 1},
        "affineTransform": {"scaleX": 10, "translateX": 300000, "scaleY": -10, "translateY": 6200000},
    },
}


def _post(url: str, verb: str, body: dict[str, Any]) -> int:
    """The status of a raw request, without a client that retries."""
    content = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/projects/p/{verb}", data=content, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def _compute(url: str, value: int) -> int:
    """The status of asking for a constant."""
    return _post(url, "value:compute", {"expression": {"result": "0", "values": {"0": {"constantValue": value}}}})


def _inside(url: str) -> int:
    """How many compute requests are inside, by the metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line for line in lines if line.startswith("emulator_computing ")).split()[1]))


def test_the_41st_request_at_a_time_gets_429(tmp_path: Path) -> None:
    release = threading.Event()

    def slow(row: int, column: int, height: int, width: int) -> Any:
        assert release.wait(60)
        return level(7)(row, column, height, width)

    def ask(url: str) -> None:
        answers.append(_post(url, "image:computePixels", SLOW_PIXEL))

    answers: list[int] = []
    archive = SmallArchive([image_asset("test/slow", {"a": ("uint16", UTM, slow)})])
    with start_emulator(tmp_path, archive=archive) as running:
        threads = [threading.Thread(target=ask, args=(running.url,)) for _ in range(limits.MAX_CONCURRENT_REQUESTS)]
        for thread in threads:
            thread.start()
        for _ in range(600):
            if _inside(running.url) == limits.MAX_CONCURRENT_REQUESTS:
                break
            time.sleep(0.1)
        refused = [_compute(running.url, number) for number in range(5)]
        release.set()
        for thread in threads:
            thread.join()
        assert _compute(running.url, 1) == 200
    assert refused == [429] * 5
    assert answers == [200] * limits.MAX_CONCURRENT_REQUESTS


def test_latency_holds_a_compute_request(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=ARCHIVE, latency=150) as running:
        assert _compute(running.url, 1) == 200
        (entry,) = running.requests("compute")
    assert entry["ms"] >= 150


def test_faults_strike_at_their_rates_and_repeat_with_their_seed(tmp_path: Path) -> None:
    def outcomes(folder: str, seed: int) -> list[str]:
        (tmp_path / folder).mkdir()
        with start_emulator(tmp_path / folder, archive=ARCHIVE, faults=f"429=0.2,500=0.2,seed={seed}") as running:
            for number in range(200):
                _compute(running.url, number)
            return [entry["fault"] for entry in running.requests("compute")]

    first = outcomes("a", 7)
    assert first == outcomes("b", 7)
    assert first != outcomes("c", 8)
    for kind in ("429", "500"):  # 200 draws at 0.2: mean 40, standard deviation under 6
        assert 16 <= first.count(kind) <= 64
    assert first.count("") == 200 - first.count("429") - first.count("500")


def test_faults_of_downloads_do_not_depend_on_their_order(tmp_path: Path) -> None:
    """A download has no body: its path tells it from others."""

    def statuses(folder: str, names: list[str]) -> dict[str, int]:
        (tmp_path / folder).mkdir()
        found = {}
        with start_emulator(tmp_path / folder, archive=ARCHIVE, faults="500=0.5,seed=3") as running:
            for name in names:
                with pytest.raises(urllib.error.HTTPError) as error:
                    urllib.request.urlopen(f"{running.url}/v1/projects/p/thumbnails/{name}:getPixels", timeout=60)
                found[name] = error.value.code
        return found

    names = [f"n{k}" for k in range(20)]
    first = statuses("a", names)
    assert set(first.values()) == {404, 500}
    assert statuses("b", names[::-1]) == first


def test_a_repeated_request_is_drawn_afresh(tmp_path: Path) -> None:
    with start_emulator(tmp_path, archive=ARCHIVE, faults="503=0.5,seed=1") as running:
        statuses = {_compute(running.url, 1) for _ in range(30)}
    assert statuses == {200, 503}


def test_an_outage_refuses_every_request_from_its_own_on(tmp_path: Path) -> None:
    expected = {"credentials": 401, "permission": 403, "unregistered": 403, "spent": 429}
    for kind, status in expected.items():
        (tmp_path / kind).mkdir()
        with start_emulator(tmp_path / kind, archive=ARCHIVE, faults=f"{kind}@3") as running:
            seen = [_compute(running.url, number) for number in range(6)]
        assert seen == [200] * 3 + [status] * 3
    with (
        start_emulator(tmp_path, archive=ARCHIVE, faults="unregistered@0") as running,
        pytest.raises(EEException, match="not registered to use Earth Engine"),
        connected(running.url),
    ):
        pass


def test_drop_truncate_and_garbage_break_the_answer_as_they_say(tmp_path: Path) -> None:
    for kind in ("drop", "truncate", "garbage"):
        (tmp_path / kind).mkdir()
        with start_emulator(tmp_path / kind, archive=ARCHIVE, faults=f"{kind}=1") as running, connected(running.url):
            with pytest.raises((OSError, ValueError, EOFError)) as caught:
                pixels(ee.Image("test/image"), *GRID)
            logged = running.requests("computePixels")[-1]
        assert logged["fault"] == kind
        if kind == "garbage":
            assert isinstance(caught.value, ValueError)
        if kind == "drop":
            assert logged["bytes"] == 0


def test_429_and_500_reach_the_client_as_statuses(tmp_path: Path) -> None:
    for code in ("429", "500"):
        (tmp_path / code).mkdir()
        with start_emulator(tmp_path / code, archive=ARCHIVE, faults=f"{code}=1") as running, connected(running.url):
            with pytest.raises(EEException) as caught:
                ee.Number(1).add(1).getInfo()
            context: Any = caught.value.__context__
            assert context.status_code == int(code)


def test_a_broken_asset_is_a_500_and_not_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(row: int, column: int, height: int, width: int) -> Any:
        raise ZeroDivisionError("disk on fire")

    archive = SmallArchive([image_asset("test/broken", {"a": ("uint8", UTM, broken)})])
    with (
        start_emulator(tmp_path, archive=archive) as running,
        connected(running.url),
        pytest.raises(EEException, match="Internal error"),
    ):
        pixels(ee.Image("test/broken"), *GRID)
    assert "disk on fire" in caplog.text


def test_a_taken_port_is_one_line_with_the_remedy() -> None:
    with Emulator(archive=ARCHIVE) as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(EmulatorError, match=rf"port {port} is not free .*choose another with --port"):
            Emulator(EmulatorConfig(port=port), ARCHIVE).start()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EmulatorConfig(port=0, faults="418=0.5"), "unknown fault '418'; choose from: 401"),
        (EmulatorConfig(port=0, faults="spent@often"), "'spent@often' is not NAME=NUMBER or OUTAGE@NUMBER"),
        (EmulatorConfig(port=0, faults="429=often"), "'429=often' is not NAME=NUMBER"),
        (EmulatorConfig(port=0, faults="429=1.5"), "is no probability"),
        (EmulatorConfig(port=0, faults="429=0.6,500=0.6"), "sum to 1.2"),
        (EmulatorConfig(port=0, latency=-1), "negative"),
        (EmulatorConfig(port=0, log=Path("/no/such/folder/log")), "cannot write /no/such/folder/log"),
    ],
)
def test_a_bad_configuration_is_one_line_with_the_remedy(config: EmulatorConfig, message: str) -> None:
    with pytest.raises(EmulatorError, match=message) as caught:
        Emulator(config, ARCHIVE).start()
    assert "\n" not in str(caught.value)


def test_a_stopped_emulator_ends_idle_connections(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    with start_emulator(tmp_path, archive=ARCHIVE) as running, connected(running.url):
        assert ee.Number(1).add(1).getInfo() == 2
        serving = [t for t in threading.enumerate() if "process_request_thread" in t.name and t not in others]
        assert serving
    for thread in serving:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in serving)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_serving_ends_with_a_signal_and_no_traceback(name: str) -> None:
    code = (
        "import logging, signal, sys; logging.basicConfig(stream=sys.stdout, level=logging.INFO); "
        "from mmearth_data.emulator.run import EmulatorConfig, serve; serve(EmulatorConfig(port=0, world='flat'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "Earth Engine emulator at http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
