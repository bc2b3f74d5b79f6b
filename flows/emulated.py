"""The emulator as a process beside a run, for those who have no Earth Engine account."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.loopback import comes_up, end, free_port

STARTUP_SECONDS = 60.0


class EmulatorError(RuntimeError):
    """The emulator did not come up."""


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def emulator_beside(seed: int, log: Path) -> Iterator[str]:
    """The URL of an emulator of world ``seed`` in a process of its own, which ends with the block.

    Requests are logged to ``log`` as JSON lines. Raises EmulatorError if it does not answer within a minute.
    """
    port = free_port()
    command = [sys.executable, "-m", "flows", "emulator", "--port", str(port), "--seed", str(seed), "--log", str(log)]
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "MMEARTH_LOG": "WARNING"})
    try:
        if not comes_up(process, lambda: _accepts(port), STARTUP_SECONDS):
            raise EmulatorError("the emulator did not start; run mmearth emulator to see why")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        end(process)
