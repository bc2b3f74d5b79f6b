"""Places in object storage: URLs that speak the part of ``pathlib.Path`` that the store uses.

A store lies in a folder or below an ``s3://`` or ``gs://`` URL; ``at`` tells which. What both can do has one name, so
that most of the store does not know where it is. An object appears whole or not at all; beyond pathlib, one can be
written only if it is still the version that was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmearth_data.store.buckets import SCHEMES, asking, bucket
from mmearth_data.store.files import StoreError, write_atomic

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.store import GCSStore, S3Store
    from zarr.storage import ObjectStore

_URL = re.compile(rf"({'|'.join(SCHEMES)}):/+([^/]+)(/.*)?")
_ANY_URL = re.compile(rf"[A-Za-z][\w+.-]+:/.*|({'|'.join(SCHEMES)}):")
"""What was meant as a URL. A path would make a folder of it, called like the scheme, and the store would lie there."""
_PIECE = 8 << 20


class Superseded(Exception):  # noqa: N818 - says what is so
    """The object is not the version that was read, or is there where none was: nothing was written."""


@dataclass(frozen=True)
class ObjectStat:
    """What ``os.stat_result`` says of a file: its bytes, and seconds since 1970 by the storage's own clock."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True)
class Version:
    """What a storage tells versions of one object apart by; each storage uses one of the two."""

    e_tag: str | None
    version: str | None

    @property
    def named(self) -> UpdateVersion:
        """The version as obstore is told it, which knows no None."""
        named: UpdateVersion = {}
        if self.e_tag is not None:
            named["e_tag"] = self.e_tag
        if self.version is not None:
            named["version"] = self.version
        return named


@dataclass(frozen=True)
class ObjectPath:
    """A place in object storage: scheme, bucket, and a key without slashes at its ends.

    Whatever asks the storage raises Refused, in one line with the remedy, where it refuses or cannot be reached,
    and FileNotFoundError where there is no such object.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, below: str) -> ObjectPath:
        return self._at(f"{self.key}/{below}".strip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """The place that holds this one."""
        return self._at(self.key.rpartition("/")[0])

    def relative_to(self, folder: ObjectPath) -> Path:
        """The way from ``folder``, which must hold this place, to here."""
        return Path(self.key).relative_to(folder.key)

    def resolve(self) -> ObjectPath:
        """The place itself: there is one name for it."""
        return self

    absolute = resolve

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self.read_version()[0]

    def read_version(self) -> tuple[bytes, Version, ObjectStat]:
        """The whole object, which version of it that is, and its size and time."""
        import obstore

        with self.asking("read"):
            got = obstore.get(self._bucket, self.key)
            return bytes(got.bytes()), _version(got.meta), _stat(got.meta)

    def read_range(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop``; fewer where the object ends before."""
        import obstore

        with self.asking("read"):
            return memoryview(obstore.get_range(self._bucket, self.key, start=start, end=stop))

    def pieces(self) -> Iterator[bytes]:
        """The whole object, piece by piece."""
        import obstore

        with self.asking("read"):
            for piece in obstore.get(self._bucket, self.key).stream(min_chunk_size=_PIECE):
                yield bytes(piece)

    def stat(self) -> ObjectStat:
        """Size and time of the object."""
        import obstore

        with self.asking("read"):
            return _stat(obstore.head(self._bucket, self.key))

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether any object lies below."""
        return next(self.below(), None) is not None

    def exists(self) -> bool:
        """Whether any object lies below, or there is one of this name."""
        return self.is_dir() or self.is_file()

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies right below, objects and folders, in order of names."""
        import obstore

        with self.asking("list"):
            listed = obstore.list_with_delimiter(self._bucket, self.key)
        keys = [*listed["common_prefixes"], *(entry["path"] for entry in listed["objects"])]
        return (self._at(key) for key in sorted(keys) if key != self.key)

    def below(self) -> Iterator[tuple[ObjectPath, int]]:
        """Every object below, at any depth, and its size."""
        import obstore

        with self.asking("list"):
            for batch in obstore.list(self._bucket, self.key):
                for entry in batch:
                    # An empty object called like the folder is what a storage's own pages make a folder of.
                    if entry["path"] != self.key:
                        yield self._at(entry["path"]), entry["size"]

    def write_bytes(self, content: bytes) -> None:
        """Put ``content`` in place of whatever is there."""
        import obstore

        with self.asking("write"):
            obstore.put(self._bucket, self.key, content)

    def put_if(self, content: bytes, version: Version | None) -> Version:
        """Put ``content`` if the object still is ``version`` (None: not there); raises Superseded where it is not."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with self.asking("write"):
                if version is None:
                    return _version(obstore.put(self._bucket, self.key, content, mode="create"))
                return _version(obstore.put(self._bucket, self.key, content, mode=version.named))
        except (AlreadyExistsError, PreconditionError) as error:
            raise Superseded(str(self)) from error
        except FileNotFoundError as error:
            raise Superseded(f"{self} is gone") from error

    def upload(self, file: Path) -> None:
        """Put the content of a local file in place of whatever is there."""
        import obstore

        with self.asking("write"):
            obstore.put(self._bucket, self.key, file)

    def zarr_store(self) -> ObjectStore[Any]:
        """What Zarr opens a group at this place with."""
        from zarr.storage import ObjectStore

        return ObjectStore(bucket(self.scheme, self.bucket, self.key))

    def asking(self, doing: str) -> AbstractContextManager[None]:
        """Where this place is asked for by other means: what the storage refuses is raised as Refused."""
        return asking(str(self), self.scheme, doing)

    def _at(self, key: str) -> ObjectPath:
        return ObjectPath(self.scheme, self.bucket, key)

    @property
    def _bucket(self) -> S3Store | GCSStore:
        return bucket(self.scheme, self.bucket)


def _version(answer: ObjectMeta | PutResult) -> Version:
    return Version(answer["e_tag"], answer["version"])


def _stat(meta: ObjectMeta) -> ObjectStat:
    return ObjectStat(meta["size"], meta["last_modified"].timestamp())


Place = Path | ObjectPath
"""Where a store, or a file of it, lies."""


def at(place: str | Path | ObjectPath) -> Place:
    """The place of that name: a URL of object storage, also one whose slashes a Path has merged, or a path.

    Raises StoreError for a URL of anything else.
    """
    if isinstance(place, ObjectPath):
        return place
    if match := _URL.fullmatch(str(place)):
        parts = [part for part in (match[3] or "").split("/") if part]
        if {".", ".."}.intersection(parts):
            raise StoreError(
                f"{place} has . or .. in it, and a bucket has no folders to go through; name the key itself"
            )
        return ObjectPath(match[1], match[2], "/".join(parts))
    if _ANY_URL.fullmatch(str(place)):
        schemes = " or ".join(f"{scheme}://bucket/prefix" for scheme in SCHEMES)
        raise StoreError(f"{place} is not a place to keep anything; name one on a disk, or {schemes}")
    return Path(place)


def write_once(place: Place, content: bytes) -> bool:
    """Write what is never rewritten; False where something else is there already, which only object storage tells.

    On a disk whoever writes holds a lock that cannot run out.
    """
    if not isinstance(place, ObjectPath):
        write_atomic(place, content)
        return True
    try:
        place.put_if(content, None)
    except Superseded:
        return place.read_bytes() == content  # then it is ours: only the answer was lost, and the put repeated
    return True


def on_disk(place: Path) -> Path:
    """``place`` itself. Raises StoreError where it is a URL: what trains and reports writes to disks alone."""
    if isinstance(found := at(place), ObjectPath):
        raise StoreError(f"{found} is in a bucket, and only stores may be there; choose an --out on a disk")
    return place
