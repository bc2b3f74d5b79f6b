"""A real Prefect server, as operators start one: it schedules, and deployments react to events."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.loopback import comes_up, end, free_port
from flows.server import QUIET, answers

REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to ``log`` and ends with the block."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, cwd=REPOSITORY)
    try:
        yield process
    finally:
        process.terminate()
        end(process)


@contextmanager
def prefect_server_with_services(home: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that report to a server of their own, which schedules."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, **QUIET, "PREFECT_HOME": str(home), "COLUMNS": "200"}
    environment.pop("PREFECT_API_URL", None)
    services = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, {**environment, **services}, home / "server.log") as process:
        assert comes_up(process, lambda: answers(url), 180), (home / "server.log").read_text()
        yield {**environment, "PREFECT_API_URL": url}
