"""Durable files: written whole or not at all, and the error that every part of the store raises."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import threading
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.(\d+)-\d+\.tmp")


class StoreError(Exception):
    """Something about a store does not hold; the message is one line: the rule, what was seen, the remedy."""


_REMEDIES = {
    errno.ENOSPC: "free some space, then run again",
    errno.EDQUOT: "free some of the quota, then run again",
    errno.EFBIG: "raise the file size limit (ulimit -f), then run again",
    errno.EROFS: "choose a directory on a writable disk",
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a directory that you may write to",
}


def unwritable(path: Path, error: OSError) -> StoreError:
    """The StoreError for an operating system's refusal to write ``path``, with its remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "choose a directory that you may write to, then run again")
    return StoreError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def make_directory(path: Path) -> None:
    """Make ``path`` and its parents where they do not exist; raises StoreError where that is refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def temporary_of(path: Path) -> Path:
    """Where this thread writes ``path`` before it takes its name; no other process or thread writes there."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def remove_left_overs(folder: Path) -> None:
    """Remove the temporary files that processes which are gone left in ``folder``, if it exists."""
    if not folder.is_dir():
        return
    for entry in list(folder.iterdir()):
        match = _TEMPORARY.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            entry.unlink(missing_ok=True)


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


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either all of it or what it held before; raises StoreError."""
    make_directory(path.parent)
    temporary = temporary_of(path)
    try:
        temporary.write_bytes(content)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise unwritable(path, error) from error
    publish(temporary, path)


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256, as ``sha256sum`` prints it."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
