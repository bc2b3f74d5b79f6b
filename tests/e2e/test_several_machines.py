"""One collection by several processes: a Dask cluster, workers of one server, and the quota that they share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from distributed import LocalCluster

from mmearth_data.emulator import world
from mmearth_data.plan import Plan
from tests.collecting import location_table
from tests.commands import command, mmearth
from tests.emulated import Running, start_emulator
from tests.servers import prefect_server_with_services
from tests.stores import content

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
LATENCY = 100
"""Milliseconds a request takes, so that the processes' requests overlap."""
SLOW = 6_000
"""Milliseconds a request takes, so that a collection outlasts its lease."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with prefect_server_with_services(tmp_path_factory.mktemp("prefect")) as variables:
        yield variables


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("emulator")
    with start_emulator(folder, archive=world.build("flat", 0), latency=LATENCY) as running:
        yield running


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "locations.parquet"
    location_table(path, primaries=57, reserves=0, pixels=16)
    return path


def collecting(emulator: Running, locations: Path, store: Path, *options: object) -> list[str]:
    return command("collect", "--locations", locations, "--store", store, "--emulator", emulator.url, *options)


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], emulator: Running, locations: Path
) -> dict[str, str]:
    """What one process collects."""
    store = tmp_path_factory.mktemp("alone") / "store.zarr"
    subprocess.run(collecting(emulator, locations, store), env=environment, check=True, capture_output=True)
    assert Plan.open(store).summary().shards == 2
    return content(store)


def test_a_dask_cluster_collects_the_same_store(
    tmp_path: Path,
    environment: dict[str, str],
    emulator: Running,
    locations: Path,
    alone: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        if name.startswith("PREFECT"):
            monkeypatch.setenv(name, value)  # the cluster's processes inherit it
    store = tmp_path / "store.zarr"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        options = ("--dask", cluster.scheduler_address, "--workers", 8)
        ran = subprocess.run(
            collecting(emulator, locations, store, *options), env=environment, capture_output=True, text=True
        )
    assert ran.returncode == 0, ran.stderr
    assert content(store) == alone


def test_two_processes_share_the_shards_and_the_quota(
    tmp_path: Path, environment: dict[str, str], emulator: Running, locations: Path, alone: dict[str, str]
) -> None:
    """With 40 slots and 30 requests at once each, one waits for the other, and both end with the whole store."""
    store = tmp_path / "store.zarr"
    wanted = collecting(emulator, locations, store, "--workers", 30)
    both = [subprocess.Popen(wanted, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    slots: set[int] = set()
    while any(process.poll() is None for process in both):
        slots.add(taken(environment))
        time.sleep(0.2)
    assert [process.returncode for process in both] == [0, 0]
    assert slots == {0, 30}
    assert content(store) == alone


def taken(environment: dict[str, str]) -> int:
    """Slots of the emulator's limit that are taken, as the server says."""
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        return int(client.read_global_concurrency_limit_by_name("earthengine-emulator").active_slots)


def test_a_killed_holders_slots_are_free_again_soon(
    tmp_path: Path, environment: dict[str, str], emulator: Running, locations: Path, alone: dict[str, str]
) -> None:
    store = tmp_path / "store.zarr"
    wanted = collecting(emulator, locations, store, "--workers", 30)
    process = subprocess.Popen(wanted, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while taken(environment) != 30:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert taken(environment) == 30
    again = subprocess.run(wanted, env=environment, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert content(store) == alone


def test_a_run_whose_slots_are_taken_back_waits_for_others_and_goes_on(
    tmp_path: Path, environment: dict[str, str], emulator: Running, locations: Path, alone: dict[str, str]
) -> None:
    """The lease is given back behind the run's back, as the server does once it could not be renewed in time."""
    from prefect.client.orchestration import SyncPrefectClient

    store = tmp_path / "store.zarr"
    with start_emulator(tmp_path, archive=world.build("flat", 0), latency=SLOW) as slow:
        wanted = collecting(slow, locations, store, "--workers", 30)
        process = subprocess.Popen(wanted, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 240
        while taken(environment) != 30:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        leases = [
            json.loads(file.read_text()) for file in Path(environment["PREFECT_HOME"]).glob("concurrency_leases/*-*")
        ]
        (lease,) = [lease["id"] for lease in leases if lease["metadata"]["slots"] == 30]
        with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
            client.release_concurrency_slots_with_lease(UUID(lease))
        assert taken(environment) == 0
        _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    assert [line for line in said.splitlines() if "slots" in line] == [
        "WARNING flows.collect: the slots of 'earthengine-emulator' are lost: the Prefect server took them back, or "
        "did not answer for minutes; taking slots again"
    ]
    assert content(store) == alone


def test_more_requests_at_once_than_the_limit_has_are_refused(
    tmp_path: Path, environment: dict[str, str], emulator: Running, locations: Path
) -> None:
    arguments = ("--locations", locations, "--store", tmp_path / "store.zarr", "--emulator", emulator.url)
    result = mmearth(environment, "collect", *arguments, "--workers", 41)
    assert result.returncode == 2
    assert "41 slots" in result.stderr
    assert "prefect gcl update earthengine-emulator" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
