"""Running ``mmearth`` as its users do: in a process of its own, with the exit code and what it printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.server import prefect_server


@contextmanager
def shared_server(home: Path) -> Iterator[dict[str, str]]:
    """An environment in which every command reports to one temporary Prefect server with its data in ``home``."""
    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(home)
    try:
        with prefect_server() as url:
            yield {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "COLUMNS": "200"}
    finally:
        if before is None:
            del os.environ["PREFECT_HOME"]
        else:
            os.environ["PREFECT_HOME"] = before


def command(*arguments: object) -> list[str]:
    """The command line of ``mmearth`` with these arguments."""
    return [sys.executable, "-m", "flows", *map(str, arguments)]


def mmearth(environment: dict[str, str], *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run ``mmearth`` to its end."""
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
