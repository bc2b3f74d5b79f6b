"""One writer at a time: flocks, which the operating system drops when their holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmearth_data.store.files import StoreError, make_directory, unwritable
from mmearth_data.store.layout import COMMITS

_held: set[tuple[Path, int]] = set()


class ShardLocked(StoreError):  # noqa: N818 - says what is so, as the source's errors do
    """Another writer holds the shard."""


def lock_file(path: str | Path, shard: int) -> Path:
    """The file that a shard's writer locks; it stays, for removing it would let two writers lock different files."""
    return Path(path) / COMMITS / f"{shard:06d}.lock"


@contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Hold a lock on ``file``, waiting for whoever holds it; raises StoreError where no lock can be had at all."""
    descriptor = _opened(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise _unlockable(file, error) from error
        yield
    finally:
        os.close(descriptor)


def _opened(file: Path) -> int:
    """A descriptor of a file that can be locked, made where there is none."""
    make_directory(file.parent)
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(file, error) from error


def _unlockable(file: Path, error: OSError) -> StoreError:
    return StoreError(f"{file} cannot be locked ({error.strerror}); keep the store on a file system that has flock")


def held(path: str | Path, shard: int) -> bool:
    """Whether this process holds the shard."""
    return (Path(path).resolve(), shard) in _held


@contextmanager
def lock(path: str | Path, shard: int) -> Iterator[None]:
    """Hold shard ``shard`` of the store at ``path`` against every other writer of this machine.

    Raises ShardLocked, naming the holder's process where it is known, and StoreError where no lock can be had at all.
    """
    file, key = lock_file(path, shard), (Path(path).resolve(), shard)
    descriptor = _opened(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            holder = f"process {pid}" if pid else "another process"
            raise ShardLocked(
                f"shard {shard} of {path} is being written by {holder}; wait for it, or stop it and run again"
            ) from None
        except OSError as error:
            raise _unlockable(file, error) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise unwritable(file, error) from error
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
    finally:
        os.close(descriptor)
