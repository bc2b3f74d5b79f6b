"""Leases: how one writer keeps others away in object storage, which has no locks and does not see a holder die.

A lease is an object that names its holder. It is taken, renewed and given back by puts that succeed only if the object
still is the version that was read, so of two who try, one loses. It is never removed: a free lease names nobody. While
its holder lives, a thread renews it; LEASE_SECONDS after the last renewal anyone may take it. All times are by the
storage's clock, so the clocks of machines need not agree.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from mmearth_data.store.files import StoreError
from mmearth_data.store.objects import ObjectPath, ObjectStat, Superseded, Version

_log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""How long a lease outlives its last renewal."""
_GRANULE = 1.0
"""Storages date objects to the second."""
_RENEWALS = 4
"""How often a lease is renewed while it lasts."""
_POLL_SECONDS = 1.0
_PATIENCE = 5
"""How often somebody tries to take a lease before saying that there is a wait."""


class LeaseTaken(StoreError):  # noqa: N818 - says what is so
    """Somebody else holds the lease; ``holder`` says who."""

    def __init__(self, file: ObjectPath, holder: str) -> None:
        super().__init__(f"{file} is held by {holder}; wait for it, or stop it and run again")
        self.holder = holder


class LeaseLost(StoreError):  # noqa: N818 - says what is so
    """The lease ran out, for this process was held up too long, and somebody else took it."""


class Lease:
    """A lease held by this process; made by ``take``. Safe to use from several threads."""

    def __init__(self, file: ObjectPath, version: Version | None) -> None:
        self._file = file
        self._version = version
        self._holder = f"{socket.gethostname()}, process {os.getpid()}"
        self._token = uuid.uuid4().hex
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._put(self._holder)
        threading.Thread(target=self._keep, name=f"lease {file.name}", daemon=True).start()

    def _put(self, holder: str) -> None:
        """Write the lease over the version that was seen; raises Superseded where there is another by now."""
        # Random, so that the content, and with it the e-tag, of each version differs from those of all others.
        content = json.dumps({"holder": holder, "lease": self._token, "version": uuid.uuid4().hex}).encode()
        while True:
            try:
                self._version = self._file.put_if(content, self._version)
                return
            except Superseded:
                # It is still ours where no more than the answer to an earlier put was lost.
                found = _read(self._file)
                if found is None or self._token.encode() not in found[0]:
                    raise
                self._version = found[1]
                if found[0] == content:
                    return

    def renew(self) -> None:
        """Make sure that nobody can take the lease for LEASE_SECONDS; raises LeaseLost where somebody did."""
        with self._writing:
            try:
                self._put(self._holder)
            except Superseded:
                raise LeaseLost(
                    f"{self._file} was not renewed for {LEASE_SECONDS:.0f} s and another process took it; run again"
                ) from None

    def _keep(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / _RENEWALS):
            with self._writing:
                if self._ended.is_set():
                    return
                try:
                    self._put(self._holder)
                except Superseded:
                    return  # whoever writes learns so from renew()
                except StoreError as error:
                    _log.warning("a lease was not renewed, which is tried again: %s", error)

    def give_back(self) -> None:
        """Let others take it at once."""
        self._ended.set()
        with self._writing:
            try:
                self._put("")
            except Superseded:
                _log.warning("%s had run out, and another process took it", self._file)
            except StoreError as error:
                _log.warning("a lease was not given back and runs out in %.0f s: %s", LEASE_SECONDS, error)


def _read(file: ObjectPath) -> tuple[bytes, Version, ObjectStat] | None:
    try:
        return file.read_version()
    except FileNotFoundError:
        return None


def take(file: ObjectPath) -> Lease:
    """Take the lease at ``file``; raises LeaseTaken while somebody else holds it."""
    version = None
    if found := _read(file):
        content, version, stat = found
        holder = _holder(file, content)
        if holder and not _ran_out(file, stat):
            raise LeaseTaken(file, holder)
    try:
        return Lease(file, version)
    except Superseded:
        raise LeaseTaken(file, "another process, which was faster") from None


def _holder(file: ObjectPath, content: bytes) -> str:
    """Who holds the lease with this content; nobody where it is a disk's lock file, which holds nothing once copied."""
    if not content.strip() or content.strip().isdigit():
        return ""
    try:
        return str(json.loads(content)["holder"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{file} is no lease; remove it, then run again") from None


def _ran_out(file: ObjectPath, stat: ObjectStat) -> bool:
    """Whether a lease last renewed at that time has run out, by the storage's clock."""
    clock = file.parent / "clock"
    clock.write_bytes(b"")
    return clock.stat().st_mtime - stat.st_mtime > LEASE_SECONDS + _GRANULE


@contextmanager
def waiting(file: ObjectPath) -> Iterator[Lease]:
    """Hold the lease at ``file``, waiting for whoever holds it; a wait that is no short one is told."""
    for tries in itertools.count(1):
        try:
            lease = take(file)
            break
        except LeaseTaken as taken:
            if tries == _PATIENCE:
                _log.warning("waiting for %s, which %s holds or held", file, taken.holder)
            time.sleep(_POLL_SECONDS)
    try:
        yield lease
    finally:
        lease.give_back()
