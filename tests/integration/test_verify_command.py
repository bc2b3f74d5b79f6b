"""``mmearth verify``: silent about an intact store, one line and the remedy for everything else, and its exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmearth_data.store.shards import verify
from tests.commands import command
from tests.synthetic import make_store

WITHOUT_PREFECT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("verify") / "s", rows=56, tile_pixels=16, shard_rows=28)


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "s"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("verify", *arguments), env=WITHOUT_PREFECT, capture_output=True, text=True, timeout=120, check=False
    )


def damage(store: Path) -> dict[str, str]:
    """Six files as they should not be, and the problem of each."""
    torn, missing, damaged = store / "aster/c/0/0/0/0", store / "era5/c/1/0", store / "sentinel2/c/1/0/0/0"
    torn.write_bytes(torn.read_bytes()[:-7])
    missing.unlink()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    (store / "_commits" / "000000.parquet").write_bytes(b"")
    (store / "aster" / "notes.txt").write_text("mine")
    (store / "_commits" / ".000002.json.1-2.tmp").write_text("half")
    return {
        "aster/c/0/0/0/0": "torn",
        "era5/c/1/0": "missing",
        "sentinel2/c/1/0/0/0": "damaged",
        "_commits/000000.parquet": "torn",
        "aster/notes.txt": "foreign",
        "_commits/.000002.json.1-2.tmp": "uncommitted",
    }


def test_an_intact_store_is_said_to_be_and_what_is_harmless_is_no_failure(store: Path) -> None:
    result = run("--store", store)
    assert (result.returncode, result.stdout) == (0, f"{store}: 2 shards, every file as it was committed\n")
    (store / "_commits" / ".000002.json.1-2.tmp").write_text("half")
    result = run("--store", store)
    assert result.returncode == 0
    assert "uncommitted: _commits/.000002.json.1-2.tmp; nothing to do" in result.stdout


def test_every_finding_is_a_line_with_its_remedy(store: Path) -> None:
    expected = damage(store)
    result = run("--store", store)
    assert result.returncode == 1, result.stderr
    *lines, verdict = result.stdout.splitlines()
    found = {line.partition(": ")[2].partition("; ")[0]: line.partition(": ")[0] for line in lines}
    assert found == expected
    remedies = {line.partition(": ")[2].partition("; ")[0]: line.partition("; ")[2] for line in lines}
    for name, record in (
        ("aster/c/0/0/0/0", "_commits/000000.json"),
        ("era5/c/1/0", "_commits/000001.json"),
        ("sentinel2/c/1/0/0/0", "_commits/000001.json"),
        ("_commits/000000.parquet", "_commits/000000.json"),
    ):
        assert f"restore it from a copy of the store; or remove {record} and collect again" in remedies[name]
    assert "remove it" in remedies["aster/notes.txt"]
    assert verdict == f"{store}: 2 shards, 5 findings"


def test_json_says_the_same(store: Path) -> None:
    expected = damage(store)
    result = run("--store", store, "--json")
    document = json.loads(result.stdout)
    assert result.returncode == 1
    assert {entry["file"]: entry["problem"] for entry in document["findings"]} == expected
    assert {entry["file"] for entry in document["findings"] if entry["harmless"]} == {"_commits/.000002.json.1-2.tmp"}
    assert (document["path"], document["committed"]) == (str(store), 2)


def test_a_folder_that_is_no_store_is_bad_input(tmp_path: Path) -> None:
    result = run("--store", tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert str(tmp_path) in result.stderr


def test_it_counts_shards_as_it_goes(store: Path) -> None:
    told: list[tuple[int, int]] = []
    verify(store, lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_it_does_not_need_prefect() -> None:
    code = "import sys; sys.modules['prefect'] = None; from flows.cli import main; main(['verify', '--help'])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=WITHOUT_PREFECT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
