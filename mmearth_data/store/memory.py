"""How much memory there is to keep files in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def memory_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may fill: the machine's, or fewer where a control group has a limit.

    Containers and jobs of a cluster have one of Linux's control groups, versions 1 and 2 (cgroups(7)), and so may
    each group that theirs is in. ``root`` is the folder of ``proc`` and ``sys``.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _limits(root):
        with suppress(OSError, ValueError):  # a group that is not seen from here has no file; "max" is no limit
            memory = min(memory, int(file.read_text()))
    return memory


def _limits(root: Path) -> Iterator[Path]:
    """The files with the limits of this process's groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folder, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = Path(group).relative_to("/")
        yield from (folder / part / name for part in (inner, *inner.parents))
