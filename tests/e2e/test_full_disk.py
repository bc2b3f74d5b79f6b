"""A disk fills up under a collection: one line, exit code 1, and the same command ends it once there is room."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.commands import command, mmearth, shared_server
from tests.emulated import start_emulator

pytestmark = pytest.mark.e2e
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.mark.timeout(1200)
def test_a_collection_stops_cleanly_on_a_full_disk_and_carries_on(tmp_path: Path) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the kernel gives this user no mount namespace (unshare --user --mount)")
    disk, locations = tmp_path / "disk", tmp_path / "l.parquet"
    disk.mkdir()
    with (
        shared_server(tmp_path / "prefect") as environment,
        start_emulator(tmp_path, world="flat") as emulator,
    ):
        sampled = ("--locations", 112, "--tile-size", 32, "--emulator", emulator.url, "--out", locations)
        assert mmearth(environment, "sample", *sampled).returncode == 0
        store = disk / "store.zarr"
        options = ("--locations", locations, "--store", store, "--emulator", emulator.url, "--workers", 8)
        collect, verify = (
            shlex.join(words) for words in (command("collect", *options), command("verify", "--store", store))
        )
        # The disk is gone with the namespace, so everything happens in one. The plan fits, the first shard does not.
        script = f"""
            mount -t tmpfs -o size=8m tmpfs {disk}
            dd if=/dev/zero of={disk}/taken bs=4k 2> /dev/null || true
            truncate -s -700K {disk}/taken
            {collect} || echo "exit code $?" >&2
            {verify} || true
            rm {disk}/taken
            {collect} && {verify}
        """
        ran = subprocess.run(
            [*NAMESPACE, "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=900, check=False
        )
    if "mount:" in ran.stderr:
        pytest.skip(f"the kernel refuses the mount: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    assert f"mmearth collect: cannot write {store}/" in ran.stderr
    assert "No space left on device; free some space, then run again\nexit code 1\n" in ran.stderr
    assert "Traceback" not in ran.stderr
    verdicts = [line for line in ran.stdout.splitlines() if line.startswith(f"{store}: ")]
    assert verdicts == [f"{store}: {shards} shards, every file as it was committed" for shards in (0, 1)]
