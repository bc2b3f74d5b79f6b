"""What ends a collection through the command: each cause has its own line and exit code; the next run carries on."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmearth_data.emulator import world
from mmearth_data.plan import Plan
from mmearth_data.store.commits import committed
from tests.collecting import location_table
from tests.commands import command, mmearth
from tests.emulated import start_emulator

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
TILES = 6


@dataclass(frozen=True)
class Without:
    """The flat archive without one collection."""

    gone: str

    def lookup(self, asset_id: str) -> Any:
        return None if asset_id.startswith(self.gone) else world.build("flat", 0).lookup(asset_id)


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "locations.parquet"
    location_table(path, TILES, 2, biomes=1, years=(2019,), around=((-100.0, 40.0),), pixels=32)
    return path


@dataclass(frozen=True)
class Collection:
    """One store, collected by the command again and again from emulators that differ."""

    environment: dict[str, str]
    locations: Path
    store: Path

    def run(self, folder: str, faults: str = "", archive: Any = None, *options: object) -> tuple[int, str]:
        """The exit code and the lines of a run that are not its tables or bars."""
        (self.store.parent / folder).mkdir()
        with start_emulator(self.store.parent / folder, "flat", faults=faults, archive=archive) as emulator:
            where = ("--locations", self.locations, "--store", self.store, "--emulator", emulator.url)
            result = mmearth(self.environment, "collect", *where, "--workers", 6, *options)
        assert "Traceback" not in result.stderr, result.stderr
        said = [line for line in result.stderr.splitlines() if line.startswith("mmearth collect: ")]
        assert len(said) == (result.returncode != 0), result.stderr
        return result.returncode, said[0] if said else ""

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(mmearth(self.environment, "status", "--store", self.store, "--json").stdout)
        return result


def test_each_outage_has_its_line_and_the_next_run_carries_on(
    environment: dict[str, str], locations: Path, tmp_path: Path
) -> None:
    collection = Collection(environment, locations, tmp_path / "store.zarr")

    code, said = collection.run("credentials", "credentials@0")
    assert code == 2
    assert "refused the credentials; log in again with: earthengine authenticate" in said

    code, said = collection.run("unregistered", "unregistered@0")
    assert code == 2
    assert "project 'emulator' may not use Earth Engine; register it at" in said

    # One request for the list of algorithms and two to resolve pass; then the token has expired.
    code, said = collection.run("expired", "credentials@4")
    assert code == 2
    assert "no longer takes the credentials that it took at first: they expired or were revoked; log in again" in said
    plan = Plan.open(collection.store)
    assert (plan.unresolved(), plan.rounds(), committed(plan.store)) == ((), 1, set())

    code, said = collection.run("spent", "spent@2")
    assert code == 1
    assert "the quota of project 'emulator' is spent: Quota exceeded" in said
    assert said.endswith("run again once it is renewed")

    code, said = collection.run("vanished", archive=Without("GOOGLE/DYNAMICWORLD/V1"))
    assert code == 2
    assert "has no collection 'GOOGLE/DYNAMICWORLD/V1', or your account may not read it" in said

    code, said = collection.run("garbage", "garbage=1,seed=1")
    assert code == 1
    ids = [int(word) for word in said.partition("--give-up ")[2].partition(")")[0].split()]
    given = [int(slot.location["location_id"]) for slot in plan.spec(0).slots if slot.location]
    assert ids == sorted(given)
    assert {int(file.name.partition("-")[0]) for file in (plan.store / "_quarantine").iterdir()} == set(given)

    code, said = collection.run("unknown", "", None, "--give-up", 17)
    assert code == 2
    assert "location 17 has no row" in said

    assert collection.run("well", "", None, "--give-up", ids[0], ids[3]) == (0, "")
    status = collection.status()
    assert (status["stored"], status["quota"], status["refusals"]) == (TILES, TILES, {"given_up": 2})

    # The account has what the services logged, of every run that got as far as asking for something.
    logged = [json.loads(line) for log in tmp_path.glob("*/requests.jsonl") for line in log.read_text().splitlines()]
    account = status["account"]
    assert account["sessions"] == 5
    for kind, count in account["traffic"].items():
        if kind.startswith("compute"):
            answered = [entry for entry in logged if entry["kind"] == kind]
            assert count["sent"] == len(answered)
            assert count["bytes_received"] == sum(entry["bytes"] for entry in answered)
    assert account["traffic"]["computePixels"]["repeated"] == 3 * len(given), "garbage is asked for four times"
    assert {entry["tag"] for entry in logged if entry["kind"].startswith("compute")} == {f"mmearth-{plan.seed:08x}"}


def test_a_disk_that_fills_up_ends_the_run_and_room_lets_it_carry_on(
    environment: dict[str, str], locations: Path, tmp_path: Path
) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("the kernel gives this user no mount namespace (unshare --user --mount)")
    whole = Collection(environment, locations, tmp_path / "whole.zarr")
    assert whole.run("emulator")[0] == 0
    pages = sum(-(-file.stat().st_size // 4096) for file in whole.store.rglob("*") if file.is_file())
    store = tmp_path / "small" / "store.zarr"
    store.mkdir(parents=True)
    script = (
        f'mount -t tmpfs -o size={int(0.6 * pages) * 4096} tmpfs "{store}" || exit 99; '
        '"$@" || echo "ended with $?" >&2; '
        f'mount -o remount,size=256m "{store}" || exit 99; exec "$@"'
    )
    with start_emulator(tmp_path, "flat") as emulator:
        collect = command("collect", "--locations", locations, "--store", store, "--emulator", emulator.url)
        ran = subprocess.run(
            [*NAMESPACE, "sh", "-c", script, "sh", *collect],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    if ran.returncode == 99:
        pytest.skip(f"the kernel refuses the mount: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("mmearth collect: ")]
    assert "cannot write" in line
    assert "No space left on device; free some space, then run again" in line
    assert "ended with 1" in ran.stderr.splitlines()
