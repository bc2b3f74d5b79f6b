"""A Prefect server for one command: started beside it, quiet, and gone with it, even when the command is killed.

Prefect's own temporary server shares the terminal, so that a user sees its tracebacks on Ctrl-C, and outlives a
killed parent. This one writes to a log file and ends as soon as its standard input closes.
"""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from httpx import HTTPError, HTTPStatusError, TransportError

from flows.loopback import comes_up, end, free_port

STARTUP_SECONDS = 120.0
_GRACE_SECONDS = 3.0
_ANSWER_SECONDS = 30.0

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,mmearth_data,mmearth_train,sampling",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
"""Set before Prefect is imported, where the user has not: the command itself says on the terminal what went wrong.

Our own warnings go to the run's page too, where they come from a thread of the flow or of a task. Leases lie beside the
server's database, since slots that were taken when it was killed would else stay taken for ever.
"""


class ServerError(RuntimeError):
    """The temporary Prefect server did not come up, or the one that was named does not answer, or no longer."""


def answers(url: str) -> bool:
    """Whether a Prefect server is up at this API URL."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _nobody_there(url: str) -> bool:
    """Whether no server answers at this API URL: whatever answers, Prefect's client knows how to talk to it."""
    try:
        urllib.request.urlopen(f"{url}/health", timeout=_ANSWER_SECONDS).close()
    except (urllib.error.HTTPError, http.client.HTTPException):
        return False
    except urllib.error.URLError as error:
        return not isinstance(error.reason, ssl.SSLError)
    except OSError:
        return True
    return False


def _deliver_what_is_queued() -> None:
    """Send the log lines and events that Prefect still holds, if it was imported at all."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)


@contextmanager
def _answering(url: str) -> Iterator[str]:
    """The URL; raises ServerError where the block fails because nobody answers there any more, or only with 5xx."""
    try:
        yield url
    except Exception as error:
        reason = error if isinstance(error, HTTPError) else error.__cause__  # Prefect wraps what ends a wait for slots
        out_of_order = isinstance(reason, HTTPStatusError) and reason.response.is_server_error
        if not (out_of_order or isinstance(reason, TransportError)):
            raise
        said = (str(reason) or type(reason).__name__).splitlines()[0]
        raise ServerError(
            f"the Prefect server at {url} no longer answers ({said}); what is committed stays: see that it is up, "
            "then run the same command again"
        ) from error


@contextmanager
def prefect_server() -> Iterator[str]:
    """The API URL that flows report to: ``PREFECT_API_URL`` where it is set, else a temporary server's.

    Must be entered before Prefect is imported. The temporary server keeps its database in ``PREFECT_HOME``, so runs
    can be looked at later with ``make ui``. Raises ServerError if nobody answers there, at first or later on, or,
    naming its log, if the temporary one is not up after two minutes.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if given := os.environ.get("PREFECT_API_URL"):
        if _nobody_there(given.rstrip("/")):
            raise ServerError(f"no Prefect server answers at PREFECT_API_URL={given}; start it, or unset the variable")
        with _answering(given):
            yield given
        return
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    home.mkdir(parents=True, exist_ok=True)
    log = home / "temporary-server.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, "PREFECT_UI_ENABLED": "0"},
        )
    try:
        if not comes_up(process, lambda: answers(url), STARTUP_SECONDS):
            raise ServerError(f"the temporary Prefect server did not start; see {log}, or set PREFECT_API_URL")
        os.environ["PREFECT_API_URL"] = url
        with _answering(url):
            yield url
    finally:
        _deliver_what_is_queued()
        os.environ.pop("PREFECT_API_URL", None)
        if process.stdin is not None:
            process.stdin.close()
        end(process)


def main() -> None:
    """Serve Prefect's API on the port named by the first argument until standard input closes."""
    import uvicorn

    logging.basicConfig(level=logging.WARNING)
    server = uvicorn.Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app",
            factory=True,
            host="127.0.0.1",
            port=int(sys.argv[1]),
            log_level="error",
            lifespan="on",
        )
    )

    def leave_with_the_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(_GRACE_SECONDS)
        os._exit(0)

    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
