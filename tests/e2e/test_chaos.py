"""A faulty service, two processes on one store, twenty times one of them is killed: the store is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.loopback import comes_up, end, free_port
from mmearth_data.cost.account import read_account
from mmearth_data.modalities import BIOME_NAMES
from mmearth_data.plan import Plan
from mmearth_data.store import shards
from tests.collecting import location_table
from tests.commands import command, mmearth
from tests.stores import content

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
KILLS = 20
FAULTS = "429=0.03,500=0.03,drop=0.02,truncate=0.02,garbage=0.02,seed=11"
"""12 % of the requests fail, in five ways."""
LATENCY = 30
"""Milliseconds a request takes, so that there is time to kill."""
FUSE_SECONDS = 2.0
"""A process is killed at a random moment up to this long after as many shards were committed as was drawn."""
YEARS = tuple(range(2017, 2022))
LONG_STRATA, PRIMARIES = 2, 72
"""Strata of 72 locations among 70, of which a shard takes three each: 24 shards of some six tiles."""


@contextmanager
def emulator(folder: Path, *options: object) -> Iterator[str]:
    """``mmearth emulator`` of the flat world, in a process of its own that logs to ``folder``."""
    port, log = free_port(), folder / "requests.jsonl"
    wanted = command("emulator", "--port", port, "--world", "flat", "--log", log, *options)
    process = subprocess.Popen(wanted, stderr=subprocess.DEVNULL)
    try:
        assert comes_up(process, log.is_file, 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        end(process)


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few long strata and many of one location: a shard has rows for each, so most of them are vacant."""
    path = tmp_path_factory.mktemp("plan") / "locations.parquet"
    table = location_table(
        path, PRIMARIES, 0, biomes=len(BIOME_NAMES), years=YEARS, around=((-100.0, 40.0),), pixels=16
    )
    stratum = table.groupby(["biome", "year"], sort=False).ngroup()
    table[(stratum < LONG_STRATA) | (table["rank"] == 0)].to_parquet(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], locations: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with emulator(folder) as url:
        where = ("--locations", locations, "--store", folder / "store.zarr", "--emulator", url, "--workers", 8)
        result = mmearth(environment, "collect", *where, timeout=600)
    assert result.returncode == 0, result.stderr
    return folder / "store.zarr"


class Worker:
    """One ``mmearth collect``, started again and again."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._arguments, self._environment, self._log = arguments, environment, log
        self.start()

    def start(self) -> None:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self._arguments, env=self._environment, stderr=log)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(60) == -signal.SIGKILL

    def has_begun(self, store: Path) -> bool:
        """Whether it has taken a shard to work on."""
        mine = f"{self.process.pid}\n"
        return any(file.read_text() == mine for file in (store / "_commits").glob("*.lock"))

    def check(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode} before its time: {self._log.read_text()}")

    def end(self) -> None:
        assert self.process.wait(600) == 0, self._log.read_text()


def wait_until(what: Callable[[], bool], workers: list[Worker]) -> None:
    deadline = time.monotonic() + 900
    while not what():
        for worker in workers:
            worker.check()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def disturbed(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], locations: Path, undisturbed: Path
) -> tuple[Path, list[int]]:
    """A store whose collection was killed twenty times, and how many shards were committed at each kill."""
    folder = tmp_path_factory.mktemp("disturbed")
    store, last = folder / "store.zarr", Plan.open(undisturbed).summary().shards
    draw, at_kills = random.Random(20), list[int]()
    with emulator(folder, "--faults", FAULTS, "--latency", LATENCY) as url:
        arguments = command("collect", "--locations", locations, "--store", store, "--emulator", url, "--workers", 1)
        workers = [Worker(arguments, environment, folder / f"{number}.log") for number in range(2)]
        for due in sorted(draw.randint(1, last - 5) for _ in range(KILLS)):
            wait_until(lambda: len(shards.committed(store)) >= due, workers)  # noqa: B023 - called at once
            wait_until(lambda: any(worker.has_begun(store) for worker in workers), workers)
            victim = draw.choice([worker for worker in workers if worker.has_begun(store)])
            time.sleep(draw.uniform(0, FUSE_SECONDS))
            victim.check()
            victim.kill()
            at_kills.append(len(shards.committed(store)))
            victim.start()
        for worker in workers:
            worker.end()
    return store, at_kills


def test_twenty_kills_between_the_first_commit_and_the_last_change_no_byte(
    disturbed: tuple[Path, list[int]], undisturbed: Path
) -> None:
    store, at_kills = disturbed
    last = Plan.open(undisturbed).summary().shards
    assert len(at_kills) == KILLS
    assert all(0 < done < last for done in at_kills)
    assert len(set(at_kills)) > KILLS / 4, "work went on between the kills"
    assert content(store) == content(undisturbed)
    assert shards.verify(store) == []


def test_every_row_is_there_once(disturbed: tuple[Path, list[int]], locations: Path) -> None:
    store, _ = disturbed
    table, owed = pq.read_table(store / "locations.parquet"), pq.read_table(locations)
    rows = table["row"].to_numpy()
    np.testing.assert_array_equal(rows, np.arange(len(rows)))
    stored = [
        i
        for i, outcome in zip(table["location_id"].to_pylist(), table["outcome"].to_pylist(), strict=True)
        if outcome == "stored"
    ]
    assert sorted(stored) == sorted(owed["location_id"].to_pylist())


def test_the_account_has_all_that_was_sent_for_what_is_stored_and_nothing_twice(
    disturbed: tuple[Path, list[int]],
) -> None:
    store, _ = disturbed
    logged = [json.loads(line) for line in (store.parent / "requests.jsonl").read_text().splitlines()]
    sent = Counter(entry["kind"] for entry in logged)
    account = read_account(store)
    assert account is not None
    assert account.sessions == KILLS + 2
    tried = sum(
        row["attempts"] for shard in shards.committed(store) for row in shards.row_table(store, shard).to_pylist()
    )
    assert tried <= account.traffic["computePixels"].sent <= sent["computePixels"]
    assert 0 < account.traffic["computePixels"].repeated < account.traffic["computePixels"].sent
    share = sum(bool(entry["fault"]) for entry in logged if entry["kind"] == "computePixels") / sent["computePixels"]
    assert 0.08 < share < 0.16
