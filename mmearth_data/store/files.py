"""Durable files: written whole or not at all, and the error that every part of the store raises.

Functions that take a Place do the same for objects in object storage (``objects.py``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import platform
import re
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mmearth_data.store.objects import Place

_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d+)-\d+\.tmp")
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""What tells this machine's, or this container's, processes from those of others with the same numbers."""
_FORGOTTEN_SECONDS = 86400.0
"""Age of a temporary file of another host, whose processes cannot be asked for, at which nobody can be writing it."""


class StoreError(Exception):
    """Something about a store does not hold; the message is one line: the rule, what was seen, the remedy."""


class Unreadable(StoreError):  # noqa: N818 - says what is so
    """The operating system does not give a file's bytes; nothing follows from that about what they are."""


_REMEDIES = {
    errno.ENOSPC: "free some space, then run again",
    errno.EDQUOT: "free some of the quota, then run again",
    errno.EFBIG: "raise the file size limit (ulimit -f), then run again",
    errno.EROFS: "choose a directory on a writable disk",
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a directory that you may write to",
}


def unwritable(path: Place, error: OSError) -> StoreError:
    """The StoreError for an operating system's refusal to write ``path``, with its remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "choose a directory that you may write to, then run again")
    return StoreError(f"cannot write {path}: {error.strerror or error}; {remedy}")


_READING_REMEDIES = {
    errno.EACCES: "let this user read it",
    errno.EPERM: "let this user read it",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run again",
    errno.ENFILE: "end other processes that keep files open, then run again",
    errno.EIO: "check the disk, or restore it from a copy",
}


def unreadable(path: Place | str, error: OSError) -> Unreadable:
    """The StoreError for an operating system's refusal to read ``path``, with its remedy."""
    remedy = _READING_REMEDIES.get(error.errno or 0, "check the disk and the file's permissions, then run again")
    return Unreadable(f"cannot read {path}: {error.strerror or error}; {remedy}")


def make_directory(path: Place) -> None:
    """Make ``path`` and its parents where they do not exist; raises StoreError where that is refused."""
    if not isinstance(path, Path):
        return  # a folder of objects is no more than the beginning of their names
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def temporary_of(path: Path) -> Path:
    """Where this thread writes ``path`` before it takes its name; no other process or thread writes there."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{threading.get_ident()}.tmp")


def remove_left_overs(folder: Place, own: Container[str] = ()) -> None:
    """Remove the temporary files that processes which are gone left in ``folder``, if it exists.

    Of other hosts, which may be writing into the same folder, only those that are a day old, and those of the files
    called ``own``, which nobody but the caller may write.
    """
    if not isinstance(folder, Path) or not folder.is_dir():
        return
    for entry in list(folder.iterdir()):
        if match := _TEMPORARY.fullmatch(entry.name):
            file, host, process = match.groups()
            gone = not _alive(int(process)) if host == _HOST else _forgotten(entry)
            if gone or file in own:
                entry.unlink(missing_ok=True)


def _forgotten(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > _FORGOTTEN_SECONDS
    except FileNotFoundError:
        return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def publish(temporary: Path, path: Path) -> None:
    """Give a fully written ``temporary`` the name ``path``, durably; raises StoreError where that is refused."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise unwritable(path, error) from error


def write_atomic(path: Place, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either all of it or what it held before; raises StoreError."""
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    make_directory(path.parent)
    temporary = temporary_of(path)
    try:
        temporary.write_bytes(content)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise unwritable(path, error) from error
    publish(temporary, path)


@contextlib.contextmanager
def writing(path: Place) -> Iterator[Path]:
    """A local file to write; it becomes ``path`` at the end, whole, unless an error ends the work before."""
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / path.name
            yield local
            path.upload(local)
        return
    temporary = temporary_of(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def asking(path: Place, doing: str) -> contextlib.AbstractContextManager[None]:
    """Where a library reads or writes ``path`` by itself: what object storage refuses is raised as Refused."""
    return contextlib.nullcontext() if isinstance(path, Path) else path.asking(doing)


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256, as ``sha256sum`` prints it."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Place) -> str:
    """Hexadecimal SHA-256 of a file's content, read piece by piece."""
    if not isinstance(path, Path):
        digest = hashlib.sha256()
        for piece in path.pieces():
            digest.update(piece)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable(path: Place) -> Any:
    """What Parquet reads a file by: its path, or an object's whole content."""
    return path if isinstance(path, Path) else io.BytesIO(path.read_bytes())


def zarr_store(path: Place) -> Any:
    """What Zarr opens the group at ``path`` by."""
    return path if isinstance(path, Path) else path.zarr_store()


def files_below(folder: Place) -> Iterator[tuple[str, int]]:
    """Every file below ``folder``, if it exists: its path from there, with slashes, and its size in bytes.

    A file that goes while we look is left out; links are not followed.
    """
    if not isinstance(folder, Path):
        for place, size in folder.below():
            yield place.relative_to(folder).as_posix(), size
    elif folder.is_dir():
        for name, size in _entries(str(folder)):
            yield name[len(str(folder)) + 1 :], size


def _entries(folder: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)
                continue
            try:
                yield entry.path, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AT_ONCE = 32


def each(folder: Place, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """``work`` on each item, in order, where it reads small files below ``folder``: of objects many at once.

    An object takes tens of milliseconds to arrive however small it is; results are not computed far ahead.
    """
    if isinstance(folder, Path):
        yield from map(work, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ahead: list[Future[_Result]] = [pool.submit(work, item) for item in islice(rest, 2 * _AT_ONCE)]
        while ahead:
            result = ahead.pop(0).result()
            ahead += [pool.submit(work, item) for item in islice(rest, 1)]
            yield result
