"""What a failure of the Earth Engine client means: retry, slow down, ask for less, or stop and say why.

The client hides the status code in its exception's context and reports timeouts, refused connections and refused
credentials as exceptions of three other libraries; here they become the types of ``mmearth_data.source``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ee
from google.auth.exceptions import GoogleAuthError, TransportError
from googleapiclient.errors import Error as ApiClientError
from googleapiclient.errors import HttpError

from mmearth_data.source import Quota, Rejected, SourceError, Spent, Transient

_QUOTA_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"})
_TRANSIENT_STATUSES = frozenset({408, 500, 502, 503, 504})
_TOO_MUCH = ("too many concurrent aggregations", "computation timed out", "user memory limit exceeded")
_NO_SERVICE = ("has not been used in project", "is not registered to use earth engine", "it is disabled")
_SPENT = re.compile(
    r"quota exceeded .*\bper (?:day|month|year)\b|\b(?:daily|monthly) (?:quota|limit)|exceeded the custom quota",
    re.IGNORECASE,
)
"""Google's APIs name the metric and the limit, such as "EECU-hours per month", when a quota is spent; of a limit on
EECU-time per day that somebody set for the project Earth Engine says "Your usage exceeded the custom quota for
'earthengine.googleapis.com/daily_eecu_usage_time'" (developers.google.com/earth-engine/guides/cost_controls)."""
_NO_COLLECTION = re.compile(r"\w*Collection asset '([^']+)' not found")
_NO_IMAGE = re.compile(r"Image asset '([^']+)' not found")
_CREDENTIALS_REMEDY = "log in again with: earthengine authenticate"


class TooLarge(Transient):
    """The service could not finish this much in one request: ask for less, or again later."""


class ImageNotFound(Rejected):
    """There is no image ``image_id``, or these credentials may not read it."""

    def __init__(self, message: str, image_id: str) -> None:
        super().__init__(message)
        self.image_id = image_id


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, as messages name it: the base URL, the Cloud project, and whether it is an emulator."""

    url: str
    project: str
    emulator: bool

    @property
    def unreachable(self) -> Rejected:
        """The error of an endpoint that nothing listens at."""
        if self.emulator:
            port = self.url.rpartition(":")[2].strip("/")
            remedy = f"mmearth emulator --port {port}" if port.isdigit() else "mmearth emulator"
            return Rejected(f"no emulator answers at {self.url}; start one with: {remedy}")
        return Rejected(f"Earth Engine cannot be reached at {self.url}; check this machine's network and proxy")


def translate(error: BaseException, endpoint: Endpoint, connected: bool = True) -> SourceError:
    """The typed, one-line form of an exception that the client or its transport raised.

    ``connected`` tells credentials that expired on the way from those that were never any good.
    """
    if isinstance(error, SourceError):
        return error
    http = error if isinstance(error, HttpError) else error.__context__
    if isinstance(http, HttpError):
        return _of_status(http, endpoint, connected)
    if isinstance(error, TimeoutError):
        return TooLarge(f"{endpoint.url}: {error}")
    if isinstance(error, ConnectionError):
        return Transient(f"{endpoint.url}: {error}")
    if isinstance(error, TransportError):
        return Transient(f"credentials could not be refreshed: {_one_line(str(error))}")
    if isinstance(error, GoogleAuthError):
        return _of_credentials(endpoint, connected)
    if isinstance(error, (ApiClientError, UnicodeDecodeError, json.JSONDecodeError)):
        return Transient(f"{endpoint.url} gave an unreadable answer: {_one_line(str(error))}")
    return Rejected(_one_line(str(error)))


@contextmanager
def translated(endpoint: Endpoint, connected: bool = True) -> Iterator[None]:
    """Within it, every failure of the client is raised as a SourceError."""
    try:
        yield
    except (ee.EEException, ApiClientError, GoogleAuthError, OSError, UnicodeDecodeError) as error:
        raise translate(error, endpoint, connected) from error


def _of_credentials(endpoint: Endpoint, connected: bool) -> Rejected:
    if connected:
        said = "no longer takes the credentials that it took at first: they expired or were revoked"
    else:
        said = "refused the credentials"
    return Rejected(f"{endpoint.url} {said}; {_CREDENTIALS_REMEDY}")


def _of_status(error: HttpError, endpoint: Endpoint, connected: bool) -> SourceError:
    status = int(error.status_code)
    message, reasons = _details(error)
    message = message.rstrip(".")
    said = f"{endpoint.url} answered {status}: {message}"
    if status in (403, 429) and _SPENT.search(message):
        return Spent(f"the quota of project {endpoint.project!r} is spent: {message}; run again once it is renewed")
    if status == 429 or (status == 403 and reasons & _QUOTA_REASONS):
        too_much = any(words in message.lower() for words in _TOO_MUCH)
        return TooLarge(said) if too_much else Quota(said)
    if status in _TRANSIENT_STATUSES:
        return Transient(said)
    if any(words in message.lower() for words in _TOO_MUCH):
        return TooLarge(said)
    if status == 401:
        return _of_credentials(endpoint, connected)
    if status in (403, 404) and any(words in message.lower() for words in _NO_SERVICE):
        return Rejected(
            f"project {endpoint.project!r} may not use Earth Engine; register it at "
            "https://code.earthengine.google.com/register or name another with --project"
        )
    if status == 403:
        return Rejected(f"{said}; check that your account may use project {endpoint.project!r}")
    if gone := _NO_COLLECTION.search(message):
        return Rejected(
            f"{endpoint.url} has no collection {gone[1]!r}, or your account may not read it; look it up in the data "
            "catalogue, then run again"
        )
    missing = _NO_IMAGE.search(message)
    return ImageNotFound(said, missing[1]) if missing else Rejected(said)


def _details(error: HttpError) -> tuple[str, frozenset[str]]:
    """The service's message and reasons; the status line's phrase where the body is not the service's JSON."""
    try:
        body = json.loads(error.content)["error"]
        reasons = frozenset(entry.get("reason", "") for entry in body.get("errors", ()))
        return _one_line(str(body["message"])), reasons
    except (ValueError, KeyError, TypeError, AttributeError):
        return _one_line(str(error.resp.reason)), frozenset()


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "no message"
