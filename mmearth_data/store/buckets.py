"""Buckets of object storage: how they are reached, and what they refuse, in one line with the remedy.

Credentials and endpoint come from the environment variables that AWS's and Google's own tools read. What passes by
itself (answers 5xx, broken connections) is repeated below here, up to ten times within three minutes.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from mmearth_data.store.files import StoreError

if TYPE_CHECKING:
    from obstore.store import GCSStore, S3Store

    Bucket = S3Store | GCSStore

SCHEMES = ("s3", "gs")
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they expire, AWS_SESSION_TOKEN anew",
    "gs": "name the key file of a service account in GOOGLE_APPLICATION_CREDENTIALS",
}
_TIMEOUT = "300s"
"""For one request with its content: a whole shard over a slow line takes minutes."""
_ENDPOINTS = {"s3": "the network, AWS_REGION and AWS_ENDPOINT_URL", "gs": "the network"}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NOT_ACCEPTED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthFailure"}
_NO_CREDENTIALS = ("169.254.169.254", "metadata.google.internal")
"""Where credentials are asked for on a machine of the cloud itself, when no variable gives any."""


class Refused(StoreError):  # noqa: N818 - says what is so
    """The storage does not do what it is asked; nothing follows from that about what it holds."""


class Unreachable(Refused):
    """The storage gave no useful answer for now; the same may succeed later."""


@lru_cache(maxsize=64)
def bucket(scheme: str, name: str, prefix: str = "") -> Bucket:
    """A bucket to ask, or what lies below a prefix of it; raises Refused where it cannot be asked at all."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import GCSStore, S3Store
    except ModuleNotFoundError:
        raise Refused(f"{scheme}:// needs the package obstore; install with: pip install 'mmearth[objects]'") from None
    try:
        if scheme == "gs":
            return GCSStore(name, prefix=prefix or None, client_options={"timeout": _TIMEOUT})
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return S3Store(
            name,
            prefix=prefix or None,
            config={"endpoint": endpoint} if endpoint else None,
            client_options={"allow_http": (endpoint or "").startswith("http://"), "timeout": _TIMEOUT},
        )
    except BaseError as error:
        raise Refused(f"{scheme}://{name} cannot be asked: {_brief(error)}; {_CREDENTIALS[scheme]}") from error


@contextmanager
def asking(place: str, scheme: str, doing: str) -> Iterator[None]:
    """Ask a storage to read, list or write ``place``; what it refuses is raised as Refused.

    A missing object is a FileNotFoundError; conditions that do not hold stay obstore's own errors.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _refusal(place, scheme, doing, error) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from error
    except BaseError as error:
        raise _refusal(place, scheme, doing, error) from error


def _refusal(place: str, scheme: str, doing: str, error: Exception) -> Refused:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    said = str(error)
    code = match[1] if (match := _CODE.search(said)) else ""
    cannot = f"cannot {doing} {place}"
    if code == "NoSuchBucket" or "bucket does not exist" in said:
        return Refused(f"{cannot}: its bucket does not exist; make the bucket, or check the name and the endpoint")
    if any(address in said for address in _NO_CREDENTIALS):
        return Refused(f"{cannot}: no credentials were found; {_CREDENTIALS[scheme]}")
    if code in _NOT_ACCEPTED or isinstance(error, UnauthenticatedError):
        why = f" ({code})" if code else ""
        return Refused(f"{cannot}: the credentials are not accepted{why}; {_CREDENTIALS[scheme]}")
    if isinstance(error, PermissionDeniedError) or "403 Forbidden" in said:
        return Refused(
            f"{cannot}: access is denied{f' ({code})' if code else ''}; let these credentials list, read and write "
            "objects of the bucket, then run again"
        )
    return Unreachable(f"{cannot}: {code or _brief(error)}; check {_ENDPOINTS[scheme]}, then run again")


def _brief(error: Exception) -> str:
    """The end of the first line of what obstore says, without its debugging output."""
    first = str(error).partition("\n")[0]
    return first.rpartition(" - ")[2].strip() or first
