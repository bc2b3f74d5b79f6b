"""What runs by itself: `make deploy` on a real server, a schedule that fires, events that start what comes next."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.schedules import IntervalSchedule

from mmearth_data.completion import is_finalized
from mmearth_data.emulator import world
from mmearth_data.plan import Plan
from tests.collecting import location_table
from tests.emulated import start_emulator
from tests.servers import REPOSITORY, prefect_server_with_services, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
PATIENCE = 400.0


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with prefect_server_with_services(tmp_path_factory.mktemp("prefect")) as variables:
        yield variables


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_emulator(tmp_path_factory.mktemp("emulator"), archive=world.build("flat", 0)) as running_emulator:
        yield running_emulator.url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], emulator: str) -> Path:
    """Where the deployed collection finds its table and puts its store."""
    path = tmp_path_factory.mktemp("data")
    location_table(path / "locations.parquet", primaries=2, reserves=1, pixels=32)
    command = [
        "make", "-o", ".venv/.installed", "deploy", f"BIN={Path(sys.executable).parent}",
        f"STORE={path / 'store.zarr'}",
        f"LOCATIONS={path / 'locations.parquet'}", f"EMULATOR={emulator}", f"OUT={path / 'run'}",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return path


def ask(environment: dict[str, str], question: Any) -> Any:
    """The answer of an asynchronous function of a client of the server."""

    async def asked() -> Any:
        async with PrefectClient(environment["PREFECT_API_URL"]) as client:
            return await question(client)

    return asyncio.run(asked())


def test_every_deployment_is_made_with_its_pool_schedule_and_trigger(folder: Path, environment: dict[str, str]) -> None:
    deployments = {d.name: d for d in ask(environment, lambda client: client.read_deployments())}
    assert {name: d.work_pool_name for name, d in deployments.items()} == {
        "nightly": "mmearth-collect",
        "container": "mmearth-docker",
        "when-complete": "mmearth-collect",
        "when-finalized": "mmearth-gpu",
    }
    assert {name for name, d in deployments.items() if d.schedules} == {"nightly"}
    settings = deployments["nightly"].parameters["settings"]
    assert settings["store"] == str(folder / "store.zarr")
    assert settings["project"] == ""
    pools = {pool.name: pool.type for pool in ask(environment, lambda client: client.read_work_pools())}
    assert pools == {"mmearth-collect": "process", "mmearth-docker": "docker", "mmearth-gpu": "process"}


def test_a_schedule_fires_and_events_start_what_comes_next(
    folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The nightly run, given a shorter night, collects; that starts finalize; that asks a GPU worker to pretrain."""

    async def shorten(client: PrefectClient) -> None:
        deployment = await client.read_deployment_by_name("collect/nightly")
        schedule = IntervalSchedule(interval=datetime.timedelta(seconds=15))
        await client.create_deployment_schedules(
            deployment.id, [DeploymentScheduleCreate(schedule=schedule, active=True)]
        )

    async def runs(client: PrefectClient) -> Any:
        return await client.read_flow_runs()

    ask(environment, shorten)
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "mmearth-collect"]
    store = folder / "store.zarr"
    log = tmp_path / "worker.log"
    with running(worker, environment, log):
        deadline = time.monotonic() + PATIENCE
        asked_to_train: list[Any] = []
        while not asked_to_train:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(2)
            asked_to_train = [run for run in ask(environment, runs) if run.work_pool_name == "mmearth-gpu"]
    summary = Plan.open(store).summary()
    assert summary.stored == summary.quota == 8
    assert is_finalized(store)
    assert asked_to_train[0].parameters == {"store": str(store), "out": str(folder / "run")}
    by_deployment = [run for run in ask(environment, runs) if run.state_name == "Completed"]
    assert any(run.auto_scheduled for run in by_deployment), "nothing was run by the schedule"


@pytest.mark.parametrize("key", ["collect-progress", "absences", "fresh-tiles", "collect"])
def test_the_run_left_what_people_look_for(folder: Path, environment: dict[str, str], key: str) -> None:
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    artifacts = ask(environment, lambda client: client.read_artifacts(artifact_filter=chosen))
    assert artifacts
    if key == "collect-progress":
        assert any("8 of 8" in artifact.description and "requests" in artifact.description for artifact in artifacts)
