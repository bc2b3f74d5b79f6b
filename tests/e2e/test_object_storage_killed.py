"""A collection into a bucket is killed; two others carry on at once, and the store ends as one on disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from mmearth_data.store.commits import committed
from mmearth_data.store.files import files_below
from mmearth_data.store.locking import lock_file
from mmearth_data.store.objects import at
from mmearth_data.store.shards import verify
from tests.buckets import s3_server
from tests.commands import command, mmearth, shared_server
from tests.emulated import start_emulator

pytestmark = pytest.mark.e2e


def _content(store: str | Path) -> dict[str, bytes]:
    """Every file that readers of the store may look at; locks, leases and accounts tell who worked when."""
    own = re.compile(r".*(lock|clock)|_plan/account/.*")
    names = [name for name, _ in files_below(at(store)) if not own.fullmatch(name)]
    return {name: (at(store) / name).read_bytes() for name in names}


def _held_by(process: subprocess.Popen[bytes], url: str, shard: int) -> bool:
    try:
        return f"process {process.pid}" in json.loads(lock_file(url, shard).read_bytes())["holder"]
    except FileNotFoundError:
        return False


@pytest.mark.timeout(1800)
def test_killed_while_it_writes_a_collection_is_carried_on_by_two_at_once(tmp_path: Path) -> None:
    with (
        s3_server(tmp_path) as server,
        shared_server(tmp_path / "prefect") as environment,
        start_emulator(tmp_path, world="flat", latency=30) as emulator,
    ):
        url, disk, locations = server.make_bucket("tiles") + "/store.zarr", tmp_path / "disk", tmp_path / "l.parquet"
        sampled = ("--locations", 448, "--tile-size", 32, "--emulator", emulator.url, "--out", locations)
        assert mmearth(environment, "sample", *sampled).returncode == 0

        def collect(store: str | Path) -> subprocess.Popen[bytes]:
            options = ("--locations", locations, "--store", store, "--emulator", emulator.url, "--workers", 8)
            return subprocess.Popen(command("collect", *options), env=environment, stderr=subprocess.PIPE)

        undisturbed, killed = collect(disk), collect(url)
        while not committed(url):
            assert killed.poll() is None, "the collection ended before its first commit was seen"
            time.sleep(0.05)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        for shard in {0, 1} - committed(url):  # the other one, unless it was committed in that moment too
            assert _held_by(killed, url, shard), "a lease outlives its holder"

        carried_on = [collect(url), collect(url)]
        for process in (undisturbed, *carried_on):
            _, said = process.communicate(timeout=900)
            assert process.returncode == 0, said.decode()
        assert _content(url) == _content(disk)
        assert verify(url) == []
        for verb in ("status", "verify", "finalize"):
            result = mmearth({**environment, **os.environ}, verb, "--store", url)
            assert result.returncode == 0, result.stderr
        # Every record was written once, whoever tried.
        puts = re.findall(r'"PUT /tiles/store.zarr/_commits/(\d+).json HTTP/1.1" 200', server.log.read_text())
        assert Counter(puts) == {"000000": 1, "000001": 1}
