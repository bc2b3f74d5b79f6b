"""Servers beside a run on this machine: a free port, waiting until one answers, ending it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable

_POLL_SECONDS = 0.1
_END_SECONDS = 10.0


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at present."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def comes_up(process: subprocess.Popen[bytes], answers: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``answers()``; False if the process ends or ``seconds`` pass first."""
    deadline = time.monotonic() + seconds
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to end; kill it if it does not."""
    try:
        process.wait(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
