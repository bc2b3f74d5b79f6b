"""Several processes and threads write one store at once: files stay whole, and left-overs of the dead go."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarr

from mmearth_data.store import consolidate, layout, open_store
from mmearth_data.store.files import remove_left_overs, temporary_of, write_atomic
from mmearth_data.store.locking import exclusive
from mmearth_data.store.shards import commit_shard, verify
from tests.synthetic import ShardMaker, make_store

WRITE = """
import sys
from pathlib import Path
from mmearth_data.store.files import write_atomic
for _ in range(150):
    write_atomic(Path(sys.argv[1]), sys.argv[2].encode() * 5000)
"""


def digests(store: Path) -> dict[str, str]:
    files = [file for file in store.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_processes_and_threads_that_write_one_file_never_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, file, letter], stderr=subprocess.PIPE) for letter in "ab"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda letter: [write_atomic(file, letter * 5000) for _ in range(150)], (b"c", b"d")))
    for writer in writers:
        _, said = writer.communicate(timeout=60)
        assert writer.returncode == 0, said.decode()
    assert file.read_bytes() in {letter * 5000 for letter in (b"a", b"b", b"c", b"d")}
    assert list(tmp_path.iterdir()) == [file]


def test_consolidating_at_the_same_time_gives_what_one_gives(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", rows=56, tile_pixels=16, shard_rows=28)
    consolidate(store)
    alone = digests(store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(consolidate, [store] * 4))
    assert digests(store) == alone
    assert verify(store) == []


def test_what_is_committed_while_somebody_waits_to_consolidate_is_consolidated(tmp_path: Path) -> None:
    store = tmp_path / "s"
    layout.create(store, tile_pixels=16, shard_rows=28, attrs={})
    lock = store / "_commits" / "consolidate.lock"
    with ThreadPoolExecutor(1) as pool:
        with exclusive(lock):
            waiting = pool.submit(consolidate, store)
            while lock.stat().st_ino not in _awaited():
                time.sleep(0.01)
            layout.resize(store, 28)
            commit_shard(store, 0, ShardMaker(28, 16, seed=0).shard(0, 28))
        waiting.result()
    assert open_store(store).location_id.all()
    assert zarr.open_group(store, mode="r")["location_id"][:].all()


def _awaited() -> set[int]:
    """Inodes that somebody waits to lock, as Linux lists them."""
    lines = Path("/proc/locks").read_text().splitlines()
    return {int(line.split()[6].rpartition(":")[2]) for line in lines if line.split()[1] == "->"}


def test_left_overs_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = temporary_of(tmp_path / "000001.json")
    host = mine.name.removeprefix(".000001.json.").partition("-")[0]
    dead = tmp_path / f".000001.json.{host}-{ended.pid}-7.tmp"
    forgotten = tmp_path / f".000001.json.00000000-{os.getppid()}-7.tmp"
    living = [
        mine,
        tmp_path / f".000001.json.{host}-{os.getppid()}-7.tmp",
        tmp_path / f".000002.json.00000000-{ended.pid}-7.tmp",  # a process of another machine or container
    ]
    foreign = tmp_path / "notes.tmp"
    for file in (dead, forgotten, *living, foreign):
        file.write_text("half")
    os.utime(forgotten, (time.time() - 90000,) * 2)
    remove_left_overs(tmp_path)
    assert set(tmp_path.iterdir()) == {*living, foreign}
    remove_left_overs(tmp_path, own={"000002.json"})
    assert set(tmp_path.iterdir()) == {*living[:2], foreign}
    remove_left_overs(tmp_path / "nowhere")
