"""A store in a bucket of a real S3 server is the store that a folder holds, and as safe from torn and double writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import duckdb
import numpy as np
import obstore
import obstore.fsspec
import pytest
import xarray as xr
from obstore.store import S3Store
from torch import Tensor

from mmearth_data.collection import collect_shard, resolve_plan
from mmearth_data.plan import Plan
from mmearth_data.source import Acquisition, Tile
from mmearth_data.status import status
from mmearth_data.store import StoreError, consolidate, layout, leases, open_store
from mmearth_data.store.buckets import Refused
from mmearth_data.store.commits import read_record, write_record
from mmearth_data.store.files import files_below
from mmearth_data.store.leases import LeaseLost, LeaseTaken, take
from mmearth_data.store.objects import ObjectPath, at
from mmearth_data.store.shards import ShardLocked, commit_shard, committed, lock, verify
from mmearth_train.loader import Loader
from tests.buckets import S3Server, s3_server
from tests.collecting import FormulaSource, location_table
from tests.commands import mmearth
from tests.servers import REPOSITORY
from tests.synthetic import ShardMaker, make_store

ROWS, SHARD_ROWS, PIXELS = 56, 28, 16
_NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("tiles")
        yield running


@pytest.fixture
def url(server: S3Server) -> str:
    """Where nothing lies yet."""
    return f"s3://tiles/deep/{next(_NUMBERS)}/store.zarr"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("local") / "s", rows=ROWS, tile_pixels=PIXELS, shard_rows=SHARD_ROWS)


@pytest.fixture(scope="module")
def remote(server: S3Server) -> str:
    url = "s3://tiles/finalized/store.zarr"
    make_store(url, rows=ROWS, tile_pixels=PIXELS, shard_rows=SHARD_ROWS)
    return url


def _place(url: str) -> ObjectPath:
    place = at(url)
    assert isinstance(place, ObjectPath)
    return place


def _content(store: str | Path) -> dict[str, bytes]:
    """Every file of the store but locks and leases."""
    names = [name for name, _ in files_below(at(store))]
    return {name: (at(store) / name).read_bytes() for name in names if not name.endswith(("lock", "clock"))}


def test_the_objects_are_the_files_of_a_local_store_byte_for_byte(local: Path, remote: str) -> None:
    assert _content(remote) == _content(local)
    assert verify(remote) == []
    there = status(remote)
    assert there.path == remote
    assert replace(there, path="", bytes_on_disk=0) == replace(status(local), path="", bytes_on_disk=0)


def test_xarray_and_duckdb_open_it_by_the_means_of_object_storage(
    server: S3Server, local: Path, remote: str, tmp_path: Path
) -> None:
    obstore.fsspec.register("s3")
    opened = xr.open_zarr(remote, storage_options={"client_options": {"allow_http": True}}, chunks=None)
    xr.testing.assert_identical(opened.load(), xr.open_zarr(local, chunks=None).load())
    table = tmp_path / "locations.parquet"
    table.write_bytes((_place(remote) / "locations.parquet").read_bytes())
    assert duckdb.sql(f"SELECT count(*) FROM '{table}' WHERE outcome = 'stored'").fetchall() == [(55,)]


@pytest.mark.parametrize(("start", "stop"), [(0, ROWS), (5, 6), (20, 41), (28, 28)])
def test_any_rows_read_as_those_of_the_local_store(local: Path, remote: str, start: int, stop: int) -> None:
    here, there = open_store(local), open_store(remote)
    assert there.statistics.rows == here.statistics.rows
    for name in here.modalities:
        np.testing.assert_array_equal(there.read(name, start, stop), here.read(name, start, stop))


def test_rows_of_one_shard_are_one_request_however_many_chunks_they_are(server: S3Server, url: str) -> None:
    make_store(url, rows=SHARD_ROWS, tile_pixels=104, shard_rows=SHARD_ROWS)
    opened = open_store(url)
    assert opened.shard_rows == 4 * opened.chunk_rows
    opened.read("sentinel2", 0, 1)  # checks the shard and gets its index

    def requests() -> int:
        return server.log.read_text().count(f"/{_place(url).key}/sentinel2/")

    for start, stop in ((0, opened.chunk_rows), (opened.chunk_rows, opened.chunk_rows + 1), (3, 18), (0, SHARD_ROWS)):
        before = requests()
        opened.read("sentinel2", start, stop)
        assert requests() - before == 1


def test_a_collection_in_a_bucket_ends_as_one_on_disk(url: str, tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", primaries=6, reserves=2)
    source = FormulaSource()
    for store in (str(tmp_path / "store"), url):
        plan = Plan.prepare(store, tmp_path / "locations.parquet", max_shard_rows=8)
        assert resolve_plan(plan, source) == plan.batches
        assert resolve_plan(Plan.open(store), source) == 0
        while (shards := plan.next_round()) is not None:
            for shard in shards:
                collect_shard(store, plan.spec(shard), source, workers=2)
    assert _content(url) == _content(tmp_path / "store")
    assert [s.stored for s in Plan.open(url).summary().strata] == [6, 6, 6, 6]


def test_training_reads_the_same_batches_from_a_bucket(local: Path, remote: str) -> None:
    def batches(store: str | Path) -> list[dict[str, Tensor]]:
        opened = open_store(store)
        names = ("sentinel2", "esa_worldcover", "era5")
        loader = Loader(opened, opened.select(), names, batch_size=9, crop=8, seed=3, threads=2, memory_bytes=0)
        return list(loader.epoch(0))

    for here, there in zip(batches(local), batches(remote), strict=True):
        assert here.keys() == there.keys()
        assert all(here[name].numpy().tobytes() == there[name].numpy().tobytes() for name in here)


# -- one writer


_HOLD = """
    import sys, time
    from mmearth_data.store import leases
    from mmearth_data.store.shards import lock

    leases.LEASE_SECONDS = float(sys.argv[2])
    with lock(sys.argv[1], 3):
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_killed_holder_keeps_others_away_until_its_lease_runs_out_and_a_living_one_always(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1.0
    monkeypatch.setattr(leases, "LEASE_SECONDS", seconds)
    command = [sys.executable, "-c", textwrap.dedent(_HOLD), url, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            alive_until = time.monotonic() + 2 * seconds + 1.5
            while time.monotonic() < alive_until:
                with pytest.raises(ShardLocked, match=f"shard 3 of {url} .* process {holder.pid};"), lock(url, 3):
                    pass
                time.sleep(0.3)
        finally:
            holder.kill()
    with pytest.raises(ShardLocked), lock(url, 3):
        pass
    refused = 0
    while True:
        try:
            with lock(url, 3):
                break
        except ShardLocked:
            refused += 1
            time.sleep(0.3)
    assert refused
    with lock(url, 3):  # given back, it is free at once
        pass


def test_of_many_claimants_one_gets_the_shard(url: str) -> None:
    release = threading.Event()
    settled = threading.Barrier(8)

    def claim(_: int) -> bool:
        try:
            with lock(url, 0):
                settled.wait()
                release.wait(10)
                return True
        except ShardLocked:
            settled.wait()
            release.set()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_a_holder_that_slept_too_long_learns_that_it_lost_its_lease_and_takes_nothing_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.0)
    file = _place(url) / "lease"
    sleeper = take(file)
    sleeper._ended.set()  # it does not renew
    while True:
        try:
            heir = take(file)
            break
        except LeaseTaken:
            time.sleep(0.3)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 60.0)
    with pytest.raises(LeaseLost, match="another process took it; run again"):
        sleeper.renew()
    sleeper.give_back()
    with pytest.raises(LeaseTaken):
        take(file)
    heir.renew()
    heir.give_back()
    take(file).give_back()


def test_a_lease_is_kept_where_the_answer_to_a_renewal_was_lost(url: str) -> None:
    lease = take(_place(url) / "lease")
    known = lease._version
    lease.renew()
    lease._version = known  # as if it had not heard
    lease.renew()
    with pytest.raises(LeaseTaken):
        take(_place(url) / "lease")
    lease.give_back()


def test_a_shard_is_committed_once(url: str) -> None:
    layout.create(url, tile_pixels=PIXELS, shard_rows=SHARD_ROWS, attrs={})
    layout.resize(url, ROWS)
    data = ShardMaker(ROWS, PIXELS, 0).shard(0, SHARD_ROWS)
    with lock(url, 0):
        commit_shard(url, 0, data)
    record = read_record(url, 0)
    with pytest.raises(StoreError, match=r"shard 0 of .* is committed, and a committed shard is never rewritten"):
        commit_shard(url, 0, data)
    write_record(url, record)  # as where an answer was lost and the put repeated
    name, file = next(iter(record.files.items()))
    with pytest.raises(StoreError, match="never rewritten"):
        write_record(url, replace(record, files={**record.files, name: replace(file, size=file.size + 1)}))
    assert read_record(url, 0) == record


# -- damage and refusals


def test_torn_missing_damaged_and_foreign_objects_are_found_and_never_read_as_data(url: str) -> None:
    make_store(url, rows=SHARD_ROWS, tile_pixels=PIXELS, shard_rows=SHARD_ROWS)
    store, bucket = _place(url), S3Store("tiles", client_options={"allow_http": True})
    torn, damaged, missing = "aster/c/0/0/0/0", "sentinel2/c/0/0/0/0", "sentinel1/c/0/0/0/0"
    (store / torn).write_bytes((store / torn).read_bytes()[:-7])
    content = bytearray((store / damaged).read_bytes())
    content[len(content) // 3] ^= 1
    (store / damaged).write_bytes(bytes(content))
    obstore.delete(bucket, (store / missing).key)
    (store / "aster" / "notes.txt").write_bytes(b"mine")
    assert {finding.file: finding.problem for finding in verify(url)} == {
        torn: "torn",
        damaged: "damaged",
        missing: "missing",
        "aster/notes.txt": "foreign",
    }
    opened = open_store(url)
    for name, said in {"aster": "is torn", "sentinel2": "cannot be decoded", "sentinel1": "is missing"}.items():
        with pytest.raises(StoreError, match=f"{url}/{name}.*{said}|{said}.*{url}/{name}"):
            opened.read(name, 0, SHARD_ROWS)


def test_a_half_written_shard_does_not_exist_and_is_said_to_be_harmless(url: str) -> None:
    layout.create(url, tile_pixels=PIXELS, shard_rows=SHARD_ROWS, attrs={})
    layout.resize(url, SHARD_ROWS)
    (_place(url) / "sentinel2/c/0/0/0/0").write_bytes(b"half")
    assert committed(url) == set()
    assert [(finding.file, finding.harmless) for finding in verify(url)] == [("sentinel2/c/0/0/0/0", True)]


class _Revoking(FormulaSource):
    """Answers until its tenth tile is asked for, when the server revokes the credentials."""

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        self.server = server

    def fetch(self, wanted: Acquisition) -> Tile:
        if self.fetched.total() == 10:
            self.server.revoke()
        return super().fetch(wanted)


def test_revoked_permission_stops_in_one_line_and_the_next_run_ends_as_if_nothing_had_been(
    server: S3Server, url: str, tmp_path: Path
) -> None:
    location_table(tmp_path / "locations.parquet", primaries=6, reserves=2)

    def collect(store: str, source: FormulaSource) -> None:
        plan = Plan.prepare(store, tmp_path / "locations.parquet", max_shard_rows=8)
        resolve_plan(plan, source)
        while (shards := plan.next_round()) is not None:
            for shard in shards:
                collect_shard(store, plan.spec(shard), source, workers=1)

    try:
        with pytest.raises(StoreError, match=r"the credentials are not accepted|access is denied") as refused:
            collect(url, _Revoking(server))
    finally:
        server.restore()
    assert "\n" not in str(refused.value)
    assert len(committed(url)) == 1
    # What the first run could not give back runs out; here it is taken away.
    (_place(url) / "_commits" / "000001.lock").write_bytes(json.dumps({"holder": ""}).encode())
    collect(url, FormulaSource())
    collect(str(tmp_path / "store"), FormulaSource())
    assert _content(url) == _content(tmp_path / "store")


def test_a_store_that_was_begun_on_a_disk_goes_on_in_a_bucket(url: str, tmp_path: Path) -> None:
    location_table(tmp_path / "locations.parquet", primaries=6, reserves=2)
    disk = tmp_path / "store"
    plan = Plan.prepare(disk, tmp_path / "locations.parquet", max_shard_rows=8)
    resolve_plan(plan, FormulaSource())
    first, *others = plan.next_round() or ()
    collect_shard(disk, plan.spec(first), FormulaSource(), workers=1)
    with lock(disk, others[0]):  # whoever held it is not there any more
        pass
    for name, _ in files_below(disk):
        (at(url) / name).write_bytes((disk / name).read_bytes())
    plan = Plan.prepare(url, tmp_path / "locations.parquet", max_shard_rows=8)
    assert plan.pending() == tuple(others)
    for shard in others:
        collect_shard(url, plan.spec(shard), FormulaSource(), workers=1)
        collect_shard(disk, plan.spec(shard), FormulaSource(), workers=1)
    assert _content(url) == _content(disk)


def test_a_refusal_is_no_damage(server: S3Server, remote: str) -> None:
    opened = open_store(remote)
    working: dict[str, Callable[[], object]] = {
        "verify": lambda: verify(remote),
        "verify, once it has begun": lambda: verify(remote, lambda done, total: server.revoke()),
        "status": lambda: status(remote),
        "open": lambda: open_store(remote),
        "read": lambda: opened.read("sentinel2", 0, ROWS),
        "consolidate": lambda: consolidate(remote),
        "statistics": lambda: opened.statistics,
        "plan": lambda: Plan.open(remote),
    }
    for name, work in working.items():
        if "," not in name:
            server.revoke()
        try:
            with pytest.raises(Refused, match=r"the credentials are not accepted|access is denied"):
                work()
        finally:
            server.restore()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bucket": "nobody-made-it"}, "its bucket does not exist; make the bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "check the network, AWS_REGION and AWS_ENDPOINT_URL"),
    ],
)
def test_what_is_not_there_is_said_with_the_remedy(server: S3Server, change: dict[str, str], said: str) -> None:
    bucket = change.get("bucket", "tiles")
    environment = {**os.environ, **server.environment, "MMEARTH_LOG": "ERROR", **change}
    result = mmearth(environment, "status", "--store", f"s3://{bucket}/store.zarr")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.returncode == (2 if "bucket" in change else 1)
