"""Committing shards: whole or not at all, by one writer, and the same bytes whatever happened before."""

from __future__ import annotations

import hashlib
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr

from mmearth_data.modalities import STORED
from mmearth_data.store import StoreError, consolidate, layout, open_store
from mmearth_data.store.rows import row_table
from mmearth_data.store.shards import ShardData, ShardLocked, commit_shard, committed, lock, no_data, verify
from mmearth_data.store.shards import row_table as committed_table
from tests.synthetic import ShardMaker

CHECKOUT = Path(__file__).resolve().parents[2]
PIXELS, SHARD_ROWS = 16, 28
INDEX = {modality.name: index for index, modality in enumerate(STORED)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty store with room for two shards."""
    return _empty(tmp_path / "s")


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for shards that are refused before anything of them is written."""
    return _empty(tmp_path_factory.mktemp("unused") / "s")


def _empty(path: Path) -> Path:
    layout.create(path, tile_pixels=PIXELS, shard_rows=SHARD_ROWS, attrs={})
    layout.resize(path, 2 * SHARD_ROWS)
    return path


@pytest.fixture(scope="module")
def shards() -> tuple[ShardData, ShardData]:
    maker = ShardMaker(2 * SHARD_ROWS, PIXELS, seed=5)
    return maker.shard(0, SHARD_ROWS), maker.shard(1, SHARD_ROWS)


def _content(path: Path) -> dict[str, str]:
    """SHA-256 of every file but locks, whose content is the process that wrote them."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix != ".lock")
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


_CHILD = """
    import os, signal, sys
    from tests.synthetic import ShardMaker
    from mmearth_data.store.shards import commit_shard

    path, event, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
    shard = ShardMaker({rows}, {pixels}, seed=5).shard(0, {shard_rows})
    seen = 0

    def hook(name, arguments):
        global seen
        if name == event and str(arguments[0]).startswith(path):
            seen += 1
            if seen == stop:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    commit_shard(path, 0, shard)
"""


def _commit_until_killed(path: Path, event: str, stop: int) -> int:
    """Commit shard 0 in another process that SIGKILL ends at the ``stop``-th ``event`` of the file system."""
    program = textwrap.dedent(_CHILD).format(rows=2 * SHARD_ROWS, pixels=PIXELS, shard_rows=SHARD_ROWS)
    command = [sys.executable, "-c", program, str(path), event, str(stop)]
    return subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True).returncode


# One rename publishes one file: 13 arrays, the row table, the commit record. Each file is opened for writing, to be
# synced, and its directory to be synced; the lock is opened first.
@pytest.mark.parametrize(("event", "stop"), [("open", 21), ("os.rename", 14), ("os.rename", 15)])
def test_a_killed_commit_leaves_no_shard_and_is_made_again_byte_for_byte(
    tmp_path: Path, shards: tuple[ShardData, ShardData], event: str, stop: int
) -> None:
    undisturbed, killed = _empty(tmp_path / "undisturbed"), _empty(tmp_path / "killed")
    assert _commit_until_killed(killed, event, stop) == -signal.SIGKILL
    assert committed(killed) == set()
    assert {finding.problem for finding in verify(killed)} == {"uncommitted"}
    with pytest.raises(StoreError, match=r"shard 0 of .* is not committed"):
        committed_table(killed, 0)
    for store in (undisturbed, killed):
        commit_shard(store, 0, shards[0])
        commit_shard(store, 1, shards[1])
        consolidate(store)
    assert committed(killed) == {0, 1}
    assert verify(killed) == []
    assert _content(killed) == _content(undisturbed)


def test_a_committed_shard_is_never_rewritten(path: Path, shards: tuple[ShardData, ShardData]) -> None:
    commit_shard(path, 0, shards[0])
    before = _content(path)
    with pytest.raises(StoreError, match="never rewritten"):
        commit_shard(path, 0, shards[0])
    assert _content(path) == before


def test_a_second_writer_is_refused_and_told_who_has_the_shard(path: Path, shards: tuple[ShardData, ShardData]) -> None:
    program = """
        import sys
        from mmearth_data.store.shards import lock
        with lock(sys.argv[1], 0):
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ShardLocked, match=f"shard 0 of .* is being written by process {holder.pid}"):
            commit_shard(path, 0, shards[0])
        assert committed(path) == set()
        commit_shard(path, 1, shards[1])
        holder.kill()
    commit_shard(path, 0, shards[0])
    assert committed(path) == {0, 1}


def test_a_lock_is_for_one_holder_even_within_a_process(path: Path, shards: tuple[ShardData, ShardData]) -> None:
    with lock(path, 0):
        with pytest.raises(ShardLocked), lock(path, 0):
            pytest.fail("the shard was locked twice")
        commit_shard(path, 0, shards[0])
    with lock(path, 0):
        assert committed(path) == {0}


def test_a_refused_write_leaves_the_shard_uncommitted_and_says_what_to_do(
    path: Path, shards: tuple[ShardData, ShardData]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*sentinel2.*File too large; raise the file size limit"):
            commit_shard(path, 0, shards[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert committed(path) == set()
    commit_shard(path, 0, shards[0])
    assert verify(path) == []


def test_an_unwritable_store_is_refused(path: Path, shards: tuple[ShardData, ShardData]) -> None:
    (path / "sentinel1" / "c").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*sentinel1/c"):
        commit_shard(path, 0, shards[0])
    assert committed(path) == set()


def test_rows_that_were_not_committed_are_an_error_where_plain_zarr_reads_fill(
    path: Path, shards: tuple[ShardData, ShardData]
) -> None:
    commit_shard(path, 0, shards[0])
    with pytest.raises(StoreError, match="not consolidated; run: mmearth finalize"):
        open_store(path)
    consolidate(path)
    store = open_store(path)
    np.testing.assert_array_equal(store.read("era5", 0, SHARD_ROWS), shards[0].arrays["era5"])
    with pytest.raises(StoreError, match=r"rows 28 to 56 of .* are not committed"):
        store.read("sentinel2", SHARD_ROWS - 1, SHARD_ROWS + 1)
    assert not xr.open_zarr(path, mask_and_scale=False)["sentinel2"][SHARD_ROWS:].values.any()
    assert set(store.split[SHARD_ROWS:]) == {255}
    assert not store.status[SHARD_ROWS:].any()
    assert store.select().max() < SHARD_ROWS


def test_a_shard_committed_after_consolidating_is_readable_but_not_selected(
    path: Path, shards: tuple[ShardData, ShardData], caplog: pytest.LogCaptureFixture
) -> None:
    commit_shard(path, 0, shards[0])
    consolidate(path)
    commit_shard(path, 1, shards[1])
    store = open_store(path)
    assert "28 committed rows" in caplog.text
    np.testing.assert_array_equal(store.read("biome", SHARD_ROWS, 2 * SHARD_ROWS), shards[1].arrays["biome"])
    assert store.select().max() < SHARD_ROWS
    consolidate(path)
    assert open_store(path).select().max() >= SHARD_ROWS


def test_a_shard_without_any_tile_still_has_every_file(path: Path) -> None:
    records = [{"row": row} for row in range(SHARD_ROWS)]
    status = np.zeros((SHARD_ROWS, len(STORED)), dtype=np.uint8)
    commit_shard(path, 0, ShardData(no_data(PIXELS, SHARD_ROWS), status, row_table(records)))
    consolidate(path)
    store = open_store(path)
    for name, expected in no_data(PIXELS, SHARD_ROWS).items():
        np.testing.assert_array_equal(store.read(name, 0, SHARD_ROWS), expected)
    assert not store.location_id.any()


def _status(row: int, name: str, value: int) -> Callable[[ShardData], ShardData]:
    def change(data: ShardData) -> ShardData:
        status = data.status.copy()
        status[row, INDEX[name]] = value
        return replace(data, status=status)

    return change


def _array(name: str, make: Callable[[Any], Any]) -> Callable[[ShardData], ShardData]:
    return lambda data: replace(data, arrays={**data.arrays, name: make(data.arrays[name].copy())})


def _cell(row: int, column: str, value: object) -> Callable[[ShardData], ShardData]:
    def change(data: ShardData) -> ShardData:
        records = data.table.to_pylist()
        records[row][column] = value
        return replace(data, table=row_table(records))

    return change


def _erase(array: Any) -> Any:
    array[3] = 255
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_array("sentinel2", lambda a: a.astype(np.int32)), r"sentinel2 of a shard must be uint16"),
        (_array("aster", lambda a: a[:-1]), r"aster of a shard must be int16 \(28, 2, 16, 16\)"),
        (lambda d: replace(d, arrays={k: v for k, v in d.arrays.items() if k != "era5"}), "check era5"),
        (lambda d: replace(d, status=d.status[:, 1:]), r"status of a shard must be uint8 \(28, 13\)"),
        (lambda d: replace(d, table=d.table.drop_columns(["country"])), "must have row_schema"),
        (lambda d: replace(d, table=pa.concat_tables([d.table[1:], d.table[:1]])), "must list rows 0 to 27 in order"),
        (_cell(3, "outcome", "lost"), r"outcome must be .*; row 3 does"),
        (_cell(3, "location_id", 0), r"must have a location_id; row 3 does"),
        (_cell(3, "reason", "cloudy"), r"must give a reason where its location gave way, and only there; row 3"),
        (_cell(3, "time", None), r"must have the time of its acquisition; row 3 does"),
        (_status(3, "sentinel2", 3), r"a stored row must have sentinel2; row 3 does"),
        (_status(3, "aster", 0), r"aster must have status vacant in vacant rows, and only there; row 3"),
        (_status(3, "aster", 7), r"status of aster must be a value of Status; row 3"),
        (
            _status(3, "aster", 3),
            r"aster must have data where its status is complete or partial, and only there; row 3",
        ),
        (
            _array("biome", _erase),
            r"biome must have data where its status is complete or partial, and only there; row 3",
        ),
        (_cell(3, "absent_aster", "masked"), r"absent_aster must give a reason where the status is absent, and only"),
    ],
)
def test_a_shard_that_contradicts_itself_is_refused(
    unused: Path, shards: tuple[ShardData, ShardData], change: Callable[[ShardData], ShardData], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        commit_shard(unused, 0, change(shards[0]))
    assert committed(unused) == set()
    assert verify(unused) == [], "nothing of it may be written"


def test_a_shard_beyond_the_stores_size_is_refused(path: Path, shards: tuple[ShardData, ShardData]) -> None:
    with pytest.raises(StoreError, match="has room for shards 0 to 1, not 2"):
        commit_shard(path, 2, shards[0])


def test_a_row_table_takes_only_columns_and_types_it_knows() -> None:
    with pytest.raises(StoreError, match="no column 'biom'"):
        row_table([{"row": 0, "biom": "Tundra"}])
    with pytest.raises(StoreError, match="does not fit the row table"):
        row_table([{"row": 0, "year": "last year"}])
