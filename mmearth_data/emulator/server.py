"""The HTTP face of the emulator: the paths that the earthengine-api client uses, on the loopback interface.

Source of the paths and bodies: the REST reference (v1) and the discovery document in the client's wheel.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mmearth_data.emulator import limits, wheel
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.faults import Faults
from mmearth_data.emulator.metrics import Metrics
from mmearth_data.emulator.page.activity import PAGE
from mmearth_data.emulator.page.site import Page
from mmearth_data.emulator.requestlog import Entry, RequestLog
from mmearth_data.emulator.service import Answer, Service

logger = logging.getLogger(__name__)

_COMPUTE = re.compile(r"^/v1(?:alpha|beta)?/projects/[^/]+/([a-z]+):([A-Za-z]+)$")
_KEEP = re.compile(r"^/v1(?:alpha|beta)?/projects/[^/]+/thumbnails$")
_KEPT = re.compile(r"^/v1(?:alpha|beta)?/projects/[^/]+/thumbnails/([^/:]+):getPixels$")
_ALGORITHMS = re.compile(r"^/v1(?:alpha|beta)?/projects/[^/]+/algorithms$")
_TOKEN = b'{"access_token": "emulated", "expires_in": 3600, "token_type": "Bearer"}'
_IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Backend:
    """What the handler of a request needs: the service and what stands before it."""

    service: Service
    page: Page
    log: RequestLog
    faults: Faults
    latency: float
    """Median seconds that compute requests wait, holding their place, before they are answered."""
    spread: float
    """The standard deviation of the wait's logarithm."""
    gate: limits.Gate
    metrics: Metrics = field(default_factory=Metrics)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "EarthEngineEmulator/1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    timeout = _IDLE_SECONDS
    server: Server

    def do_GET(self) -> None:
        """Discovery, algorithms, and the page for people."""
        path = urlsplit(self.path).path
        if path == "/$discovery/rest":
            self._respond("discovery", lambda: Answer(wheel.discovery_document()))
        elif _ALGORITHMS.match(path):
            self._respond("algorithms", self._algorithms)
        elif match := _KEPT.match(path):
            name = match[1]
            self._respond("getPixels", lambda: self._gated(lambda: self._service.thumbnail(name)), faulty=True)
        elif path == "/metrics":
            self._respond("metrics", self._metrics)
        elif path == "/" or path.startswith("/page/"):
            self._respond(PAGE, self._page)
        else:
            self._respond("unknown", self._not_found)

    def do_POST(self) -> None:
        """The compute verbs and the token of service accounts."""
        path = urlsplit(self.path).path
        match = _COMPUTE.match(path)
        if match:
            self._respond(match[2], lambda: self._compute(f"{match[1]}:{match[2]}"), faulty=True)
        elif _KEEP.match(path):
            self._respond("thumbnails", lambda: self._compute("thumbnails"), faulty=True)
        elif path == "/token":
            self._respond("token", lambda: Answer(_TOKEN))
        else:
            self._respond("unknown", self._not_found)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests go to the request log instead of standard error."""

    def _algorithms(self) -> Answer:
        self.server.backend.faults.check_outage()
        return Answer(wheel.algorithms_document())

    def _metrics(self) -> Answer:
        backend = self.server.backend
        return Answer(backend.metrics.text(backend.gate.inside).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _page(self) -> Answer:
        backend = self.server.backend
        parts = urlsplit(self.path)
        return backend.page.answer(parts.path, parse_qs(parts.query), backend.gate.inside)

    def _not_found(self) -> Answer:
        raise ServiceError(f"The emulator does not serve {self.command} {urlsplit(self.path).path}.", 404)

    def _respond(self, kind: str, make: Callable[[], Answer], faulty: bool = False) -> None:
        """Read the request, make the answer, log it and send it, or fail as drawn."""
        self._began, self._started = datetime.now(UTC), time.perf_counter()
        backend = self.server.backend
        self._tag, fault = "", None
        try:
            self._body = self._read()
            fault = backend.faults.draw(self._asked) if faulty else None
            if fault is not None and fault.isdigit():
                raise ServiceError("Injected failure.", int(fault))
            status, answer = 200, make()
        except ServiceError as error:
            status, answer = error.code, Answer(json.dumps(error.payload()).encode())
        except Exception:  # a server answers 500 for whatever went wrong, and says so in its log
            logger.exception("cannot answer %s %s", self.command, self.path)
            failure = ServiceError("Internal error of the emulator; its log has the traceback.", 500)
            status, answer = 500, Answer(json.dumps(failure.payload()).encode())
        content = self._content(answer, fault)
        # Logged before it is sent: a client that has its answer finds the request in the log.
        self._log(kind, status, len(content), fault)
        try:
            self._send(status, answer, content, fault)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _read(self) -> bytes:
        given = self.headers.get("Content-Length") or "0"
        if not (given.isascii() and given.isdigit() and len(given) < 20):
            self.close_connection = True
            raise ServiceError(f"Content-Length must be a number; got {given[:40]!r}.")
        length = int(given)
        if length > limits.MAX_REQUEST_BYTES:
            self._drain(length)
        limits.check_request_size(length)
        return self.rfile.read(length)

    def _drain(self, length: int) -> None:
        """Swallow a body that is refused, so that the client reads the refusal instead of a reset connection."""
        while length > 0:
            piece = self.rfile.read(min(length, 2**20))
            if not piece:
                return
            length -= len(piece)

    def _compute(self, verb: str) -> Answer:
        try:
            body = json.loads(self._body)
        except ValueError as error:
            raise ServiceError(f"Invalid JSON payload received: {error}.") from None
        if not isinstance(body, dict):
            raise ServiceError("Invalid JSON payload received: it must be an object.")
        self._tag = str(body.get("workloadTag", ""))
        return self._gated(lambda: self._service.answer(verb, body))

    @property
    def _asked(self) -> bytes:
        """What tells this request from others, however often it is sent: its body, or its path where it has none."""
        return self._body or self.path.encode()

    @property
    def _service(self) -> Service:
        return self.server.backend.service

    def _gated(self, make: Callable[[], Answer]) -> Answer:
        """The answer of what needs an account and a place among the requests that are let in."""
        backend = self.server.backend
        backend.faults.check_outage()
        with backend.gate.enter():
            if backend.latency:
                time.sleep(backend.latency * backend.faults.stretch(self._asked, backend.spread))
            with self.server.turns:
                return make()

    def _content(self, answer: Answer, fault: str | None) -> bytes:
        """What of the answer is sent once a fault has struck."""
        match fault:
            case "drop" | "stall":
                return b""
            case "truncate":
                return answer.body[: len(answer.body) // 2]
            case "garbage":
                return random.Random(answer.body).randbytes(len(answer.body))
            case _:
                return answer.body

    def _send(self, status: int, answer: Answer, content: bytes, fault: str | None) -> None:
        """Send the content under the headers of the whole answer; a dropped connection gets neither."""
        if fault in ("drop", "stall", "truncate"):
            self.close_connection = True
        if fault == "stall":
            time.sleep(self.server.backend.faults.stall_seconds)
        if fault in ("drop", "stall"):
            return
        self.send_response(status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _log(self, kind: str, status: int, sent: int, fault: str | None) -> None:
        seconds = time.perf_counter() - self._started
        self.server.backend.metrics.count(kind, status, seconds, sent, fault or "")
        client = self.headers.get("X-Goog-Api-Client") or self.headers.get("User-Agent") or ""
        entry = Entry(
            time=self._began.isoformat(timespec="milliseconds"),
            method=self.command,
            path=self.path,
            kind=kind,
            status=status,
            ms=round(1000 * seconds, 3),
            bytes=sent,
            client=client.partition(" ")[0],
            tag=self._tag,
            fault=fault or "",
        )
        self.server.backend.page.activity.note(entry)
        self.server.backend.log.write(entry)


class Server(ThreadingHTTPServer):
    """Listens on the loopback interface; closing it ends its connections too."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, backend: Backend) -> None:
        self.backend = backend
        # More threads than cores compute less together: they take the interpreter and the caches from each other.
        self.turns = threading.Semaphore(os.cpu_count() or 1)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection and close it."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and end the connections that clients keep alive."""
        super().server_close()
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client has closed it already

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of a request is no error of the server's; anything else is."""
        if isinstance(sys.exception(), ConnectionError | TimeoutError):
            logger.debug("connection from %s ended early", client_address)
        else:
            logger.exception("connection from %s failed", client_address)
