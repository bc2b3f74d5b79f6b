"""A Prefect server that is gone or out of order while slots are waited for: one line, whatever Prefect wraps it in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.loopback import free_port
from flows.server import ServerError, _answering


class _OutOfOrder(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["gone", "out of order"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    port = free_port()
    if request.param == "gone":
        yield f"http://127.0.0.1:{port}/api"
        return
    with ThreadingHTTPServer(("127.0.0.1", port), _OutOfOrder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{port}/api"
        server.shutdown()


def test_a_server_that_cannot_give_slots_is_named_with_the_remedy(url: str) -> None:
    said = f"at {url} no longer answers .* then run the same command again"
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(ServerError, match=said) as seen,
        _answering(url),
        concurrency("quota", occupy=1, timeout_seconds=5, strict=True),
    ):
        raise AssertionError("there are no slots")
    assert "\n" not in str(seen.value)


def test_what_is_no_fault_of_the_server_passes() -> None:
    with pytest.raises(KeyError), _answering("http://127.0.0.1:1/api"):
        raise KeyError("ours")
