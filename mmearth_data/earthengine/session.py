"""Connecting to Earth Engine, real or emulated, and the source that collection works with.

The client library keeps its state per process, so there is one connection at a time: connecting again closes the
earlier one. Aggregations go to the standard endpoint, pixels to the high-volume one (see ``transport``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import ee
import stamina
from google.auth.credentials import AnonymousCredentials

from mmearth_data.earthengine import pixels, resolve
from mmearth_data.earthengine.errors import Endpoint, ImageNotFound, translated
from mmearth_data.earthengine.transport import STANDARD_URL, Transport
from mmearth_data.modalities import STORED, Modality
from mmearth_data.pace import CONCURRENT_REQUESTS
from mmearth_data.source import Acquisition, Corrupt, Location, Rejected, Resolved, Tile, Transient, Unavailable
from mmearth_data.traffic import Traffic, total

logger = logging.getLogger(__name__)
logging.getLogger("stamina").addHandler(logging.NullHandler())  # a handled failure is no news for a terminal

DEADLINE_SECONDS = 330.0
"""Longest wait for an answer: Earth Engine ends interactive computations after 5 minutes by itself."""
WORKLOAD_TAG = "mmearth"
"""Tag of requests that name none of their own; Earth Engine's monitoring attributes their cost by it."""
_CONNECT_ATTEMPTS = 5
_EMULATOR_PROJECT = "emulator"
_PAGE_ROWS = 1000
_current: Transport | None = None


class EarthEngineSource:
    """A ``Source`` over one connection; every method may be called from many threads at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        tag: str = WORKLOAD_TAG,
        modalities: Sequence[Modality] = STORED,
    ) -> None:
        self.endpoint = endpoint
        self.tag = tag
        self._pixel = tuple(modality for modality in modalities if modality.scope == "pixel")
        self._transport = transport
        self._project = ee.data._get_projects_path()  # noqa: SLF001 - the client has no public way to either
        self._images = ee.data._get_cloud_projects_raw().image()  # noqa: SLF001

    @property
    def requests(self) -> int:
        """HTTP requests sent over this connection so far, those of connecting included."""
        return total(self.read_traffic()).sent

    def read_traffic(self) -> Traffic:
        """The same by kind, with repetitions and bytes."""
        return self._transport.meter.read()

    def resolve(self, locations: Sequence[Location]) -> list[Resolved]:
        """The acquisitions of each location, in the order given, in two requests.

        Halves the batch where the service cannot finish it at once.
        """
        return resolve.resolve(self.features, locations)

    def fetch(self, acquisition: Acquisition) -> Tile:
        """Every pixel modality of one tile, in one request.

        Raises Unavailable where a product that was resolved is in the archive no more.
        """
        try:
            return pixels.fetch(self.compute_pixels, acquisition, self._pixel)
        except ImageNotFound as error:
            if error.image_id in acquisition.image_ids:
                raise Unavailable(f"{error.image_id} is in the archive no more") from error
            raise

    def features(
        self,
        collection: ee.FeatureCollection,
        page_rows: int = _PAGE_ROWS,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """The GeoJSON features of a computed collection, page by page; one request per ``page_rows`` rows.

        ``on_rows`` is told after every page how many rows have arrived.
        """
        rows: list[dict[str, Any]] = []
        body: dict[str, Any] = {"expression": collection, "pageSize": page_rows, "workloadTag": self.tag}
        while True:
            self._check_current()
            with translated(self.endpoint):
                answer = ee.data.computeFeatures(body)
            if not isinstance(answer, dict) or not isinstance(answer.get("features", []), list):
                raise Corrupt(f"{self.endpoint.url} sent a table that is not GeoJSON", str(answer).encode())
            rows.extend(answer.get("features", []))
            if on_rows is not None:
                on_rows(len(rows))
            if not answer.get("nextPageToken"):
                return rows
            body["pageToken"] = answer["nextPageToken"]

    def compute_pixels(self, body: dict[str, Any]) -> bytes:
        """The raw bytes of one computePixels request, whose ``expression`` is an image or what one is encoded as.

        The client's own function encodes every image anew; what is encoded already takes the rest of its way.
        """
        self._check_current()
        with translated(self.endpoint):
            if isinstance(body["expression"], dict):
                call = self._images.computePixels(project=self._project, body={**body, "workloadTag": self.tag})
                answer = ee.data._execute_cloud_call(call)  # noqa: SLF001
            else:
                answer = ee.data.computePixels({**body, "workloadTag": self.tag})
        if not isinstance(answer, bytes):
            raise Corrupt(f"{self.endpoint.url} sent pixels that are not bytes", str(answer).encode())
        return answer

    def _check_current(self) -> None:
        if self._transport is not _current:
            raise Rejected(f"the connection to {self.endpoint.url} was replaced by a later one; connect again")


def connect(
    project: str | None,
    emulator: str | None = None,
    *,
    deadline: float = DEADLINE_SECONDS,
    slots: int = CONCURRENT_REQUESTS,
    tag: str = WORKLOAD_TAG,
    modalities: Sequence[Modality] = STORED,
) -> EarthEngineSource:
    """Connect to Earth Engine with the user's own credentials, or to the emulator at the URL ``emulator``.

    ``deadline`` is the longest wait for an answer in seconds, ``slots`` the number of requests that may be under way at
    each endpoint (fewer once the service refuses some, see ``mmearth_data.pace``), ``tag`` the word under which the
    service's monitoring counts what they cost, ``modalities`` what tiles are made of. Raises Rejected, with the remedy,
    where neither is named, nothing answers, or the credentials or the project are refused.
    """
    if emulator is None and project is None:
        raise Rejected("name a Google Cloud project with --project, or an emulator with --emulator URL")
    if emulator is not None and not emulator.startswith(("http://", "https://")):
        raise Rejected(f"--emulator needs a URL such as http://127.0.0.1:8017, not {emulator!r}")
    url = (emulator or STANDARD_URL).rstrip("/")
    endpoint = Endpoint(url=url, project=project or _EMULATOR_PROJECT, emulator=emulator is not None)
    transport = Transport(url, deadline, slots)
    try:
        for attempt in stamina.retry_context(on=_worth_repeating, attempts=_CONNECT_ATTEMPTS, timeout=None):
            with attempt, translated(endpoint, connected=False):
                _initialise(endpoint, transport)
    except Transient as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            raise endpoint.unreachable from error
        raise
    logger.info("connected to %s as project %s", url, endpoint.project)
    return EarthEngineSource(endpoint, transport, tag, modalities)


def _anonymous() -> AnonymousCredentials:
    return AnonymousCredentials()  # type: ignore[no-untyped-call]


def _worth_repeating(error: Exception) -> bool:
    return isinstance(error, Transient) and not isinstance(error.__cause__, ConnectionRefusedError)


def _initialise(endpoint: Endpoint, transport: Transport) -> None:
    global _current
    ee.Reset()
    ee.data.setMaxRetries(0)
    # Initialize fetches a catalogue of deprecated assets from another host, without a timeout, unless it has one.
    placeholder = ee.deprecation.DeprecatedAsset("", None, None, None)
    ee.deprecation.deprecated_assets[placeholder.id] = placeholder
    _current = transport
    ee.Initialize(
        credentials=_anonymous() if endpoint.emulator else ee.data.get_persistent_credentials(),
        url=endpoint.url,
        project=endpoint.project,
        http_transport=transport,
    )
