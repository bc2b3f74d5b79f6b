"""Which of several ways to compute the same is the quickest here, found out by trying them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

ROUNDS = 3
"""The ways take turns; each one's best round counts."""
REPEATS = 5
"""Calls in a round: a GPU is measured at work, not at its first launch."""

_log = logging.getLogger(__name__)
_quickest: dict[Hashable, Callable[..., Any]] = {}


def quickest(ways: Sequence[Callable[..., T]], *arguments: Any) -> T:
    """What the quickest of ``ways`` returns; all compute the same of the same arguments and change none of them.

    They are tried at the first call with arguments of a kind: tensors of these shapes, dtypes and devices, and other
    arguments of these values. One that fails then is named in a warning and left alone; if all do, the first one's
    error is raised. While a CUDA graph is recorded nothing can be tried: a kind not met before goes the first way.
    """
    if len(ways) == 1:
        return ways[0](*arguments)
    kind = tuple(ways), tuple(_kind(argument) for argument in arguments)
    if kind not in _quickest:
        on_gpu = any(isinstance(argument, Tensor) and argument.is_cuda for argument in arguments)
        if on_gpu and torch.cuda.is_current_stream_capturing():
            return ways[0](*arguments)
        _quickest[kind] = _tried(ways, arguments, torch.cuda.synchronize if on_gpu else _wait_for_nothing)
    found: T = _quickest[kind](*arguments)
    return found


def _kind(argument: Any) -> Hashable:
    return (argument.shape, argument.dtype, argument.device) if isinstance(argument, Tensor) else argument


def _tried(ways: Sequence[Callable[..., T]], arguments: Sequence[Any], wait: Callable[[], None]) -> Callable[..., T]:
    """The quickest of those that work; a first call that is not measured sets up what is set up once."""
    errors: dict[Callable[..., T], Exception] = {}
    for way in ways:
        try:
            way(*arguments)
            wait()
        except torch.OutOfMemoryError:
            raise
        except Exception as why:  # noqa: BLE001 - compilers, linkers and drivers each fail with something else
            errors[way] = why
    if len(errors) == len(ways):
        raise errors[ways[0]]
    for way, error in errors.items():
        said = str(error).strip().partition("\n")[0]
        _log.warning(
            "%s cannot be used here (%s: %s); carrying on without it",
            f"{way.__module__}.{way.__qualname__}",
            type(error).__name__,
            said,
        )
    took = dict.fromkeys((way for way in ways if way not in errors), float("inf"))
    for _ in range(ROUNDS):
        for way in took:
            start = time.perf_counter()
            for _ in range(REPEATS):
                way(*arguments)
            wait()
            took[way] = min(took[way], time.perf_counter() - start)
    return min(took, key=took.__getitem__)


def _wait_for_nothing() -> None:
    """A CPU has done what it was told when a call returns."""
