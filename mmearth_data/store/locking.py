"""One writer at a time: flocks, which the operating system drops when their holder dies; leases in object storage."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmearth_data.store.files import StoreError, make_directory, unwritable
from mmearth_data.store.layout import COMMITS
from mmearth_data.store.leases import Lease, LeaseTaken, take, waiting
from mmearth_data.store.objects import ObjectPath, Place, at

_held: dict[tuple[Place, int], Lease | None] = {}
"""The shards that this process holds; of those in object storage, by which lease."""


class ShardLocked(StoreError):  # noqa: N818 - says what is so, as the source's errors do
    """Another writer holds the shard."""


def lock_file(path: str | Place, shard: int) -> Place:
    """What a shard's writer locks; it stays, for removing it would let two writers lock different files."""
    return at(path) / COMMITS / f"{shard:06d}.lock"


@contextmanager
def exclusive(file: Place) -> Iterator[Callable[[], None]]:
    """Hold a lock on ``file``, waiting for whoever holds it; raises StoreError where no lock can be had at all.

    What it gives is to be called before each write: it makes sure that the lock is still held. A lock cannot be lost;
    where a lease ran out and somebody else took it, it raises LeaseLost.
    """
    if isinstance(file, ObjectPath):
        with waiting(file) as lease:
            yield lease.renew
        return
    descriptor = _opened(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise _unlockable(file, error) from error
        yield lambda: None
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


def held(path: str | Place, shard: int) -> bool:
    """Whether this process holds the shard."""
    return (at(path).resolve(), shard) in _held


def renew(path: str | Place, shard: int) -> None:
    """Make sure that the shard, held by this process, stays so while its next file is written.

    A lock cannot be lost; of a lease, raises LeaseLost where another writer has the shard by now.
    """
    lease = _held[at(path).resolve(), shard]
    if lease is not None:
        lease.renew()


@contextmanager
def lock(path: str | Place, shard: int) -> Iterator[None]:
    """Hold shard ``shard`` of the store at ``path`` against every other writer: of this machine, or of a bucket.

    Raises ShardLocked, naming the holder's process where it is known, and StoreError where no lock can be had at all.
    """
    file, key = lock_file(path, shard), (at(path).resolve(), shard)
    with _leased(path, shard, file) if isinstance(file, ObjectPath) else _flocked(path, shard, file) as lease:
        _held[key] = lease
        try:
            yield
        finally:
            del _held[key]


def _locked(path: str | Place, shard: int, holder: str) -> ShardLocked:
    return ShardLocked(f"shard {shard} of {path} is being written by {holder}; wait for it, or stop it and run again")


@contextmanager
def _leased(path: str | Place, shard: int, file: ObjectPath) -> Iterator[Lease]:
    try:
        lease = take(file)
    except LeaseTaken as taken:
        raise _locked(path, shard, taken.holder) from None
    try:
        yield lease
    finally:
        lease.give_back()


@contextmanager
def _flocked(path: str | Place, shard: int, file: Path) -> Iterator[None]:
    descriptor = _opened(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise _locked(path, shard, f"process {pid}" if pid else "another process") from None
        except OSError as error:
            raise _unlockable(file, error) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise unwritable(file, error) from error
        yield
    finally:
        os.close(descriptor)
