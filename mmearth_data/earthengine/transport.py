"""The HTTP transport under the Earth Engine client: one pooled session with a deadline, and no retries of its own.

The client accepts any object with httplib2's ``request``. Its default one has ten pooled connections, no deadline, and
honours HTTP_PROXY even for a loopback emulator; this one does not. Retries happen in one place only, in
``mmearth_data.collection``.
"""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

import httplib2  # type: ignore[import-untyped]
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

POOL_CONNECTIONS = 64
"""Connections kept open: above Earth Engine's documented 40 concurrent requests per project and endpoint."""
CONNECT_SECONDS = 10.0
STANDARD_URL = "https://earthengine.googleapis.com"
HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"
_PIXELS_VERB = ":computePixels"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Transport:
    """Sends the client's requests; pixels of the real service go through its high-volume endpoint.

    Raises ConnectionRefusedError where nothing answers, ConnectionError where an answer breaks off and TimeoutError
    past the deadline: the types that the client library lets through.
    """

    def __init__(self, base_url: str, deadline: float) -> None:
        self._deadline = deadline
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=POOL_CONNECTIONS))
        self._session.mount("https://", HTTPAdapter(pool_maxsize=POOL_CONNECTIONS))
        if urlsplit(base_url).hostname in _LOOPBACK:
            self._session.trust_env = False
        self._lock = threading.Lock()
        self._requests = 0

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, repeated ones included."""
        return self._requests

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
        with self._lock:
            self._requests += 1
        try:
            response = self._session.request(
                method, uri, data=body, headers=headers, timeout=(CONNECT_SECONDS, self._deadline)
            )
        except requests.exceptions.Timeout as error:
            raise TimeoutError(f"no answer within {self._deadline:g} s") from error
        except requests.exceptions.ConnectionError as error:
            cause = getattr(error.args[0], "reason", None) if error.args else None
            if isinstance(cause, NewConnectionError):
                raise ConnectionRefusedError(f"no connection to {urlsplit(uri).netloc}") from error
            raise ConnectionError(f"the connection to {urlsplit(uri).netloc} broke off") from error
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise ConnectionError(f"the answer of {urlsplit(uri).netloc} broke off") from error
        return httplib2.Response({**response.headers, "status": response.status_code}), response.content
