"""How loops over pixels and sites are compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

_log = logging.getLogger(__name__)


class _Kept(FunctionCache):
    """What is compiled, on disk; a disk that is full or fails costs the next process the compiling, and no more."""

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            _say_once(self.cache_path, error.strerror or str(error))


@cache
def _say_once(folder: str, why: str) -> None:
    _log.warning(
        "compiled loops cannot be kept in %s (%s); make room or let NUMBA_CACHE_DIR name another folder, "
        "or else every process compiles anew",
        folder,
        why,
    )


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function compiled by numba at its first call, with its ``options``; it releases the interpreter lock.

    It is kept on disk, or compiled by every process anew where neither the folder of the sources nor the user's can be
    written: in a container under a number of one's own, say.
    """
    made: Any = njit(nogil=True, **options)(function)
    with suppress(RuntimeError):
        made._cache = _Kept(function)  # type: ignore[no-untyped-call]  # noqa: SLF001 - where numba keeps its own
    found: Callable[..., Any] = made
    return found
