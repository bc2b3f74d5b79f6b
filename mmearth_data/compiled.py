"""How loops over pixels and sites are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function compiled by numba at its first call, with its ``options``; it releases the interpreter lock.

    It is kept on disk, or compiled by every process anew where neither the folder of the sources nor the user's can be
    written: in a container under a number of one's own, say.
    """
    made: Callable[..., Any]
    try:
        made = njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        made = njit(nogil=True, **options)(function)
    return made
