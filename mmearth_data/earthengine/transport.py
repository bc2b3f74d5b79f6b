"""The HTTP transport under the Earth Engine client: one pooled session with a deadline and a pace, without retries.

The client accepts any object with httplib2's ``request``. Its default one has ten pooled connections, no deadline, and
honours HTTP_PROXY even for a loopback emulator; this one does not. Every request waits here for its turn at its
endpoint and holds its place only until the answer has arrived. Retries happen in one place only, in
``mmearth_data.collection``.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import httplib2  # type: ignore[import-untyped]
import requests
from requests import Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import DecodeError, NewConnectionError, ProtocolError, ReadTimeoutError, SSLError

from mmearth_data.pace import Pacers, repeating
from mmearth_data.traffic import Meter, kind_of

POOL_CONNECTIONS = 64
"""Connections kept open: above Earth Engine's documented 40 concurrent requests per project and endpoint."""
CONNECT_SECONDS = 10.0
STANDARD_URL = "https://earthengine.googleapis.com"
HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"
_PIXELS_VERB = ":computePixels"
_PIECE_BYTES = 1 << 18
_RATE_WORDS = (b"rateLimitExceeded", b"RateLimitExceeded")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Transport:
    """Sends the client's requests; pixels of the real service go through its high-volume endpoint.

    ``deadline`` bounds the whole of an answer, in seconds; ``slots`` the requests under way at each endpoint. Raises
    Interrupted where the run ends before a request had its turn, ConnectionRefusedError where nothing answers,
    ConnectionError where an answer breaks off and TimeoutError past the deadline: types that the client lets through.
    """

    def __init__(self, base_url: str, deadline: float, slots: int) -> None:
        self._deadline = deadline
        self._pacers = Pacers(slots)
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=POOL_CONNECTIONS))
        self._session.mount("https://", HTTPAdapter(pool_maxsize=POOL_CONNECTIONS))
        if urlsplit(base_url).hostname in _LOOPBACK:
            self._session.trust_env = False
        self.meter = Meter()

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
        redirections: int | None = None,
        connection_type: type | None = None,
    ) -> tuple[httplib2.Response, bytes]:
        """One request, as httplib2.Http.request: the response's status and headers, and its bytes."""
        del redirections, connection_type  # httplib2's; a requests session follows redirects by itself
        if uri.startswith(STANDARD_URL) and _PIXELS_VERB in uri:
            uri = HIGH_VOLUME_URL + uri[len(STANDARD_URL) :]
        with self._pacers.of(urlsplit(uri).netloc).turn() as turn:
            kind = kind_of(uri)
            self.meter.sent(kind, len(body or b""), repeated=repeating())
            response, content = self._exchange(uri, method, body, headers)
            self.meter.received(kind, len(content))
            too_many = response.status_code == 403 and any(words in content for words in _RATE_WORDS)
            turn.refused = response.status_code == 429 or too_many
        return httplib2.Response({**response.headers, "status": response.status_code}), content

    def _exchange(
        self, uri: str, method: str, body: str | bytes | None, headers: dict[str, str] | None
    ) -> tuple[Response, bytes]:
        """The response and all of its bytes, within the deadline: the library's own one starts anew at every read."""
        host = urlsplit(uri).netloc
        try:
            response = self._session.request(
                method, uri, data=body, headers=headers, timeout=(CONNECT_SECONDS, self._deadline), stream=True
            )
            return response, self._read(response.raw)
        except (requests.exceptions.Timeout, ReadTimeoutError) as error:
            raise TimeoutError(f"no answer within {self._deadline:g} s") from error
        except requests.exceptions.ConnectionError as error:
            cause = getattr(error.args[0], "reason", None) if error.args else None
            if isinstance(cause, NewConnectionError):
                raise ConnectionRefusedError(f"no connection to {host}") from error
            raise ConnectionError(f"the connection to {host} broke off") from error
        except (ProtocolError, DecodeError, SSLError) as error:
            raise ConnectionError(f"the answer of {host} broke off") from error

    def _read(self, raw: HTTPResponse) -> bytes:
        """The whole body; a connection is used again only after its answer was read to the end."""
        ends = time.monotonic() + self._deadline
        pieces = []
        try:
            while piece := raw.read1(_PIECE_BYTES, decode_content=True):
                pieces.append(piece)
                if time.monotonic() > ends:
                    raise TimeoutError(f"no whole answer within {self._deadline:g} s")
        except BaseException:
            raw.close()
            raise
        return b"".join(pieces)
