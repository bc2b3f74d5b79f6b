"""Disks that refuse: read-only ones can be read, full ones keep what was committed, and each is named in one line.

Real mounts in a mount namespace of the child's own, for root may write where permissions forbid it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from mmearth_data.store import layout, open_store
from mmearth_data.store.shards import committed, verify
from tests.synthetic import make_store

CHECKOUT = Path(__file__).resolve().parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
ROWS, SHARD_ROWS, PIXELS = 28, 28, 16

_READ_ONLY = """
    import json, sys
    from mmearth_data.statistics import finalize
    from mmearth_data.store import StoreError, consolidate, layout, open_store
    from mmearth_data.store.shards import commit_shard, verify
    from tests.synthetic import ShardMaker

    path, said = sys.argv[1], {}
    store = open_store(path)
    said["read"] = int(sum(int(store.read(name, 0, store.rows).nbytes > 0) for name in store.modalities))
    said["findings"] = [str(finding) for finding in verify(path)]
    for name, work in {
        "commit": lambda: commit_shard(path, 1, ShardMaker(56, 16, 0).shard(1, 28)),
        "consolidate": lambda: consolidate(path),
        "finalize": lambda: finalize(path),
        "resize": lambda: layout.resize(path, 84),
        "create": lambda: layout.create(path + "/other", tile_pixels=8, shard_rows=4, attrs={}),
    }.items():
        try:
            work()
        except StoreError as error:
            said[name] = str(error)
    print(json.dumps(said))
"""

_FULL = """
    import json, sys
    from mmearth_data.store import StoreError
    from mmearth_data.store.shards import commit_shard, committed, verify
    from tests.synthetic import ShardMaker

    path, said = sys.argv[1], {}
    try:
        commit_shard(path, 1, ShardMaker(56, 16, 0).shard(1, 28))
    except StoreError as error:
        said["commit"] = str(error)
    said["committed"] = sorted(committed(path))
    said["problems"] = sorted({finding.problem for finding in verify(path)})
    print(json.dumps(said))
"""


def _in_namespace(mounts: str, program: str, *arguments: str) -> dict[str, Any]:
    """What ``program`` prints where ``mounts`` were made; skips where the kernel allows no mount."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("the kernel gives this user no mount namespace (unshare --user --mount)")
    command = [*NAMESPACE, "sh", "-ec", mounts + '\nexec "$@"', "sh", sys.executable, "-c", textwrap.dedent(program)]
    ran = subprocess.run([*command, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    if "mount:" in ran.stderr:
        pytest.skip(f"the kernel refuses the mount: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One committed shard, and room for another."""
    store = make_store(tmp_path / "s", rows=ROWS, tile_pixels=PIXELS, shard_rows=SHARD_ROWS)
    layout.resize(store, 2 * ROWS)
    return store


def test_a_read_only_disk_is_read_and_never_written(path: Path) -> None:
    read_only = f"mount --bind '{path}' '{path}'\nmount -o remount,ro,bind '{path}'"
    # The second shard is not committed, so only the first is read.
    said = _in_namespace(read_only, _READ_ONLY.replace("0, store.rows", "0, 28"), str(path))
    assert said.pop("read") == len(open_store(path).modalities)
    assert said.pop("findings") == []
    assert set(said) == {"commit", "consolidate", "finalize", "resize", "create"}
    for message in said.values():
        assert "Read-only file system; choose a directory on a writable disk" in str(message)
        assert str(message).startswith("cannot write ")
        assert "\n" not in str(message)
    assert committed(path) == {0}
    assert verify(path) == []


def test_a_full_disk_leaves_the_shard_uncommitted_and_says_so(path: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # All but 200 KiB taken: the first files of the shard fit, the others do not.
    small = f"""
        mount -t tmpfs -o size=8m tmpfs '{disk}'
        cp -r '{path}' '{disk}/s'
        dd if=/dev/zero of='{disk}/taken' bs=4k 2> /dev/null || true
        truncate -s -200K '{disk}/taken'
    """
    said = _in_namespace(small, _FULL, f"{disk}/s")
    assert "No space left on device; free some space, then run again" in str(said["commit"])
    assert str(said["commit"]).startswith("cannot write ")
    assert "\n" not in str(said["commit"])
    assert said["committed"] == [0]
    assert said["problems"] == ["uncommitted"]
