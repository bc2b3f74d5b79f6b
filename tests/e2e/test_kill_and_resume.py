"""The plug is pulled in the middle of a collection: commits stay, and the next run ends with the same store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmearth_data.store.commits import committed
from tests.commands import command, mmearth
from tests.emulated import start_emulator
from tests.stores import content

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
LATENCY = 30
"""Milliseconds a request takes, so that there is time to stop between the first and the last commit."""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_emulator(tmp_path_factory.mktemp("emulator"), world="flat", latency=LATENCY) as running:
        yield running.url


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], emulator: str) -> Path:
    path = tmp_path_factory.mktemp("plan") / "locations.parquet"
    result = mmearth(
        environment, "sample", "--locations", 448, "--tile-size", 32, "--emulator", emulator, "--out", path
    )
    assert result.returncode == 0, result.stderr
    return path


def _collect(emulator: str, locations: Path, store: Path) -> list[str]:
    return command("collect", "--locations", locations, "--store", store, "--emulator", emulator, "--workers", 8)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], emulator: str, locations: Path
) -> dict[str, str]:
    store = tmp_path_factory.mktemp("undisturbed") / "store.zarr"
    subprocess.run(_collect(emulator, locations, store), env=environment, check=True, capture_output=True, timeout=600)
    return content(store)


def _stop_with_one_committed_and_one_in_flight(
    process: subprocess.Popen[bytes], store: Path, how: signal.Signals
) -> None:
    deadline = time.monotonic() + 600
    while not committed(store):
        assert process.poll() is None, "the collection ended before its first commit was seen"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, how)
    process.wait(timeout=60)
    planned = len(list((store / "_plan").glob("round-*.parquet")))
    done = len(committed(store))
    locked = len(list((store / "_commits").glob("*.lock")))
    assert planned == 1
    assert done == 1
    assert locked > done, "no shard was in flight"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_collection_carries_on_to_the_same_store(
    how: signal.Signals,
    tmp_path: Path,
    environment: dict[str, str],
    emulator: str,
    locations: Path,
    undisturbed: dict[str, str],
) -> None:
    store = tmp_path / "store.zarr"
    process = subprocess.Popen(_collect(emulator, locations, store), env=environment, stderr=subprocess.PIPE)
    _stop_with_one_committed_and_one_in_flight(process, store, how)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    if how == signal.SIGINT:
        assert process.returncode == 1
        assert "carries on" in said
        assert "Traceback" not in said
    else:
        assert process.returncode == -signal.SIGKILL
    again = subprocess.run(
        _collect(emulator, locations, store), env=environment, capture_output=True, timeout=600, check=False
    )
    assert again.returncode == 0, again.stderr.decode()
    assert content(store) == undisturbed


def test_status_tells_the_middle_from_the_end(
    tmp_path: Path, environment: dict[str, str], emulator: str, locations: Path
) -> None:
    store = tmp_path / "store.zarr"
    process = subprocess.Popen(_collect(emulator, locations, store), env=environment, stderr=subprocess.DEVNULL)
    _stop_with_one_committed_and_one_in_flight(process, store, signal.SIGKILL)
    middle = json.loads(mmearth(environment, "status", "--store", store, "--json").stdout)
    subprocess.run(_collect(emulator, locations, store), env=environment, capture_output=True, timeout=600, check=True)
    end = json.loads(mmearth(environment, "status", "--store", store, "--json").stdout)
    assert middle["stored"] < end["stored"] == 448
