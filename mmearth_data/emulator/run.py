"""Running the emulator: in this process for tests and demos, or until a signal for the command line."""

from __future__ import annotations

import errno
import logging
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal

from mmearth_data.emulator import faults, process, world
from mmearth_data.emulator.assets import Archive
from mmearth_data.emulator.errors import EmulatorError
from mmearth_data.emulator.limits import MAX_REQUESTS_PER_SECOND, Gate
from mmearth_data.emulator.mounts import Mounted, read_mounts
from mmearth_data.emulator.page.site import Page
from mmearth_data.emulator.requestlog import RequestLog
from mmearth_data.emulator.server import Backend, Server
from mmearth_data.emulator.service import Service

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmulatorConfig:
    """An Earth Engine to run against offline."""

    port: int = 8017
    """Port of the loopback interface; 0 takes a free one."""
    world: Literal["earth", "flat"] = "earth"
    """The procedural Earth, or a flat one for benchmarks."""
    seed: int = 0
    """Which procedural Earth."""
    latency: int = 0
    """Milliseconds that compute requests wait, the median if they differ."""
    latency_spread: float = 0.0
    """How much they differ: the standard deviation of the wait's logarithm."""
    faults: str = ""
    """Injected failures, e.g. 429=0.05,500=0.02,drop=0.01,stall=0.01,truncate=0.01,seed=7, or spent@300."""
    requests_per_second: int = MAX_REQUESTS_PER_SECOND
    """Compute requests let in per second; 0 for any number."""
    mount: tuple[str, ...] = ()
    """ASSET=PATH: serve a folder of GeoTIFFs with JSON sidecars, or a vector file, as that asset."""
    log: Path | None = None
    """File to append one JSON line per request to."""


class Emulator:
    """A running emulator: a context manager with a ``url``.

    ``archive`` replaces the world and mounts of the configuration. Raises EmulatorError where it cannot start.
    """

    def __init__(self, config: EmulatorConfig | None = None, archive: Archive | None = None) -> None:
        self.config = config or EmulatorConfig(port=0)
        self._archive = archive
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._log: RequestLog | None = None

    @property
    def url(self) -> str:
        """What ``ee.Initialize(url=…)`` takes."""
        if self._server is None:
            raise EmulatorError("the emulator is not running; start it first")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Emulator:
        """Listen and answer in background threads."""
        config = self.config
        rates = faults.parse(config.faults)
        if config.latency < 0:
            raise EmulatorError(f"--latency: {config.latency} ms is negative; use 0 or more")
        if not 0 <= config.latency_spread <= 5:
            raise EmulatorError(f"--latency-spread: {config.latency_spread} is not between 0 and 5; use e.g. 0.5")
        if config.requests_per_second < 0:
            raise EmulatorError(f"--requests-per-second: {config.requests_per_second} is negative; use 0 or more")
        archive, page = self._opened()
        self._log = RequestLog(config.log)
        gate = Gate(config.requests_per_second)
        wait = config.latency / 1000
        backend = Backend(Service(archive), page, self._log, faults.Faults(rates), wait, config.latency_spread, gate)
        try:
            self._server = Server(config.port, backend)
        except OSError as error:
            self._log.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise EmulatorError(
                f"port {config.port} is not free ({error.strerror}); choose another with --port, 0 for any"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="emulator", daemon=True)
        self._thread.start()
        return self

    def _opened(self) -> tuple[Archive, Page]:
        """What is served, and the page that shows it."""
        config = self.config
        if self._archive is not None:
            return self._archive, Page(self._archive)
        built, mounts = world.build(config.world, config.seed), read_mounts(config.mount)
        archive = Mounted(built, mounts)
        return archive, Page(archive, dict.fromkeys((*mounts, *built.ids)), world.seen(config.world, config.seed))

    def stop(self) -> None:
        """Stop answering and close every connection."""
        if self._server is not None and self._thread is not None and self._log is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._log.close()
        self._server = self._thread = self._log = None

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(config: EmulatorConfig) -> None:
    """Run the emulator until SIGINT or SIGTERM, then end it cleanly; for the main thread."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    process.share_heap()
    try:
        with Emulator(config) as emulator:
            process.settle()
            logger.info(
                "Earth Engine emulator at %s (world %s, seed %d); end it with Ctrl-C",
                emulator.url,
                config.world,
                config.seed,
            )
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
