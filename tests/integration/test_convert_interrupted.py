"""A conversion that is killed carries on when it is asked again, and ends with the bytes of one that was not."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from resource import RLIMIT_FSIZE

import pytest
import tyro

from flows.convert import ConvertSettings, run
from mmearth_data.convert.journal import ConversionError
from mmearth_data.store import StoreError
from tests.commands import command
from tests.published import write_published
from tests.synthetic import make_store

_SLOWED = """
import os, sys, time
from mmearth_data.store import files
publish = files.publish
def slow(temporary, path):
    time.sleep(0.01)
    publish(temporary, path)
files.publish = slow
import flows.convert
from flows.cli import main
import mmearth_data.convert.to_published as h, mmearth_data.convert.to_webdataset as w
h.publish = w.publish = slow
main(sys.argv[1:])
"""
"""``mmearth`` whose files take their names slowly, so that kills meet every stage of so small a conversion."""


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file but locks, which hold their last writer's process id."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _convert(*arguments: object) -> None:
    run(tyro.cli(ConvertSettings, args=[str(argument) for argument in arguments]))


def _killed(arguments: list[object], kills: int, output: Path) -> int:
    """Start and kill the conversion ``kills`` times, at random moments of its writing; how many kills met it."""
    rng, met = random.Random(str(arguments)), 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", _SLOWED, "convert", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        begun = len(_contents(output)) if output.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if output.exists() and len(_contents(output)) > begun:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            met += 1
        process.wait()
    return met


@pytest.mark.parametrize("to", ["hdf5", "webdataset", "store64", "published"])
def test_a_killed_conversion_ends_with_the_same_bytes(tmp_path: Path, to: str) -> None:
    if to == "published":
        source = write_published(tmp_path / "data_x", tiles=500, side=8).folder

        def arguments(output: Path) -> list[object]:
            return ["--from", "published", "--source", source, "--store", output]
    else:
        pixels = 66 if to == "store64" else 16
        store = make_store(tmp_path / "store", rows=84, tile_pixels=pixels, shard_rows=14)

        def arguments(output: Path) -> list[object]:
            return ["--store", store, "--to", to, "--out", output]

    (tmp_path / "straight").mkdir()
    (tmp_path / "killed").mkdir()
    straight, killed = tmp_path / "straight" / "data_o", tmp_path / "killed" / "data_o"
    _convert(*arguments(straight))
    assert _killed(arguments(killed), 2, killed) >= 1
    _convert(*arguments(killed))
    ours, theirs = _contents(killed), _contents(straight)
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_full_disk_is_one_line_with_a_remedy_and_the_next_run_carries_on(tmp_path: Path) -> None:
    """HDF5 tells of it as it closes a part, which is smaller than the first limit, or the whole, than the second."""
    store = make_store(tmp_path / "store", rows=28, tile_pixels=32, shard_rows=14)
    arguments, limits = ("--store", store, "--to", "hdf5", "--out", tmp_path / "o"), resource.getrlimit(RLIMIT_FSIZE)
    _convert(*arguments[:-1], tmp_path / "straight")
    whole = next((tmp_path / "straight").glob("*.h5")).stat().st_size
    for limit, file in ((whole // 4, "000000.h5"), (whole * 3 // 4, "o.h5")):
        resource.setrlimit(RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(StoreError, match=rf"cannot write .*{file}: File too large; raise the file size limit"):
                _convert(*arguments)
        finally:
            resource.setrlimit(RLIMIT_FSIZE, limits)
        assert not [file for file in (tmp_path / "o").rglob("*") if file.suffix == ".tmp"]
    _convert(*arguments)
    assert (tmp_path / "o" / "o.h5").read_bytes() == (tmp_path / "straight" / "straight.h5").read_bytes()


def test_what_does_not_fit_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", rows=14, tile_pixels=16, shard_rows=14)
    for arguments, says in (
        (["--store", store], "one direction at a time"),
        (["--store", store, "--to", "hdf5"], "give these two"),
        (["--store", store, "--to", "hdf5", "--out", store], "another directory"),
        (["--store", tmp_path / "new", "--from", "published", "--source", tmp_path / "no"], "is no folder"),
        (["--store", tmp_path / "no", "--to", "webdataset", "--out", tmp_path / "o"], "does not exist"),
    ):
        with pytest.raises((ConversionError, StoreError), match=says) as error:
            _convert(*arguments)
        assert "\n" not in str(error.value)
    refused = subprocess.run(
        command("convert", "--store", store, "--to", "store64", "--out", tmp_path / "o"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("mmearth convert: tiles of 64 px have no place")
    assert not (tmp_path / "o").exists()


def test_converting_needs_no_prefect(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", rows=14, tile_pixels=16, shard_rows=14)
    script = (
        "import sys; sys.modules['prefect'] = None\n"
        "from flows.cli import main\n"
        f"main(['convert', '--store', {str(store)!r}, '--to', 'webdataset', '--out', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "14 samples" in done.stdout
