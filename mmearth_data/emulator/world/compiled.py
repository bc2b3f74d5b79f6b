"""How loops over pixels are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import TypeVar, cast

import numpy as np
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """A function compiled by numba at its first call and kept on disk; it releases the interpreter lock.

    No liberty is taken with arithmetic: every product and sum is rounded by itself and in the order written, as numpy
    rounds them, so a pixel's value has the same bits whatever window asks for it. Exponentials are left to numpy, whose
    last bit is its own. What a kept function calls must be in its module, or a change of it goes unnoticed. Where
    neither the folder of the source nor the user's can be written, nothing is kept.
    """
    assert isinstance(function, FunctionType)
    # Numba keeps a function until its own source file changes, under its name: so numbers of other files go into that.
    function.__qualname__ += f"_{hashlib.sha256(repr(_numbers(function)).encode()).hexdigest()[:8]}"
    try:
        return cast("_Function", njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast("_Function", njit(nogil=True)(function))


def _numbers(function: FunctionType) -> list[tuple[str, object]]:
    """The numbers that a function takes from its module, or by name from modules that this one imports."""
    names, around = function.__code__.co_names, function.__globals__
    places = [around, *(vars(around[name]) for name in names if isinstance(around.get(name), ModuleType))]
    return [
        (name, place[name])
        for place in places
        for name in names
        if isinstance(place.get(name), int | float | np.number)
    ]
