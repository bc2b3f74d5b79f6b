"""What memory a store may fill is the least of the machine's and of what each control group around the process has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmearth_data.store.memory import memory_bytes

GROUPS_1 = "11:cpu,cpuacct:/jobs/7\n4:memory:/jobs/7\n1:name=systemd:/"
MEMORY = re.search(r"MemTotal: *(\d+) kB", Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else "")
MACHINE = int(MEMORY[1]) * 1024 if MEMORY else 0

pytestmark = pytest.mark.skipif(not MEMORY, reason="this system has no /proc/meminfo")


def made(root: Path, groups: str | None, limits: dict[str, str]) -> Path:
    if groups is not None:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(f"{groups}\n")
    for name, limit in limits.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        (None, {}, MACHINE),
        ("0::/", {}, MACHINE),
        ("0::/", {"memory.max": "max"}, MACHINE),
        ("0::/", {"memory.max": str(2**50)}, MACHINE),
        ("0::/", {"memory.max": "65536"}, 65536),
        ("0::/user/job:7", {"user/job:7/memory.max": "max", "user/memory.max": "4096"}, 4096),
        ("0::/user/job", {"user/job/memory.max": "8192", "other/memory.max": "1"}, 8192),
        (GROUPS_1, {"memory/jobs/7/memory.limit_in_bytes": "70000", "memory/memory.limit_in_bytes": "9" * 18}, 70000),
        (GROUPS_1, {"memory/jobs/memory.limit_in_bytes": "5000"}, 5000),
        (GROUPS_1, {"cpu/jobs/7/memory.limit_in_bytes": "1", "memory.max": "1"}, MACHINE),
    ],
)
def test_the_least_limit_counts(tmp_path: Path, groups: str | None, limits: dict[str, str], expected: int) -> None:
    assert memory_bytes(made(tmp_path, groups, limits)) == expected


def test_this_machine_has_some() -> None:
    assert 0 < memory_bytes() <= MACHINE
