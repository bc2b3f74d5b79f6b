"""How loops over pixels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """A function compiled by numba at its first call and kept on disk; it releases the interpreter lock.

    No liberty is taken with arithmetic: every product and sum is rounded by itself and in the order written, as numpy
    rounds them, so a pixel's value has the same bits whatever window asks for it. Exponentials are left to numpy, whose
    last bit is its own. What a kept function calls must be in its module, or a change of it goes unnoticed. Where
    neither the folder of the source nor the user's can be written, nothing is kept.
    """
    try:
        return cast("_Function", njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast("_Function", njit(nogil=True)(function))
