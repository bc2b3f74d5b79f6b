"""One trainer per run folder: an flock that the operating system drops when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmearth_train.config import RunError

FILE_NAME = ".lock"
"""It stays when the run ends, for removing it would let two trainers lock different files."""


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Make the folder ``out`` and hold it against every other trainer; RunError where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / FILE_NAME).open("ab")
    except OSError as error:
        raise _unusable(out, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{out} is being trained by another process; wait for it or stop it") from None
        except OSError as error:
            raise _unusable(out, error) from error
        yield


def used(out: Path) -> bool:
    """Whether anything but the lock lies in the folder."""
    return any(path.name != FILE_NAME for path in out.iterdir())


def _unusable(out: Path, error: OSError) -> RunError:
    return RunError(f"{out} cannot be used ({error.strerror}); choose another --out")
