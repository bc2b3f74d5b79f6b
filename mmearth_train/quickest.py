"""Which ways there are here to compute the same, and which of them is the quickest, found out by trying them."""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found", Tensor, tuple[Tensor, ...])
Way = Callable[..., Found]

ROUNDS = 3
"""The ways take turns; each one's best round counts."""
REPEATS = 5
"""Calls in a round."""
HEAD_START = 10**7
"""Cycles that a GPU idles first, some milliseconds, so that it never waits for its host in what is measured."""
AGREEMENT = 2**-6
"""Of two results' difference to their size: rounding in bfloat16 stays below, anything else hardly does."""
COMPARED = 2**22
"""Numbers of a result, at most: a trial should need no more memory than the run."""

_log = logging.getLogger(__name__)
_quickest: dict[Hashable, Callable[..., Any]] = {}


@cache
def kernels(module: str) -> ModuleType | None:
    """Those of our own for a device; None where their compiler, numba or Triton, is not there.

    Training needs numba anyway, for reading stores. Benchmarks and tests on a machine with a GPU do without.
    """
    try:
        return importlib.import_module(f"mmearth_train.{module}")
    except ImportError as error:
        _log.warning("mmearth_train.%s cannot be used here (%s); carrying on without it", module, error)
        return None


def quickest(ways: Sequence[Way[Found]], *arguments: Any) -> Found:
    """What the quickest of ``ways`` returns, a tensor or several.

    All compute the same of the same arguments and change none of them.

    They are tried at the first call with arguments of a kind: tensors of these shapes, dtypes and devices, and other
    arguments of these values. One that fails then, or finds something else than the first, is named in a warning and
    left alone; if all fail, the first one's error is raised. While a CUDA graph is recorded nothing can be tried: a
    kind not met before goes the first way.
    """
    if len(ways) == 1:
        return ways[0](*arguments)
    kind = tuple(ways), tuple(_kind(argument) for argument in arguments)
    if kind not in _quickest:
        device = next((a.device for a in arguments if isinstance(a, Tensor) and a.is_cuda), None)
        if device is not None and torch.cuda.is_current_stream_capturing():
            return ways[0](*arguments)
        with nullcontext() if device is None else torch.cuda.device(device):
            sound = _sound(ways, arguments, device)
            if not sound:
                return ways[0](*arguments)  # which says why
            _quickest[kind] = sound[0] if len(sound) == 1 else _quickest_of(sound, arguments, device)
    found: Found = _quickest[kind](*arguments)
    return found


def _kind(argument: Any) -> Hashable:
    return (argument.shape, argument.dtype, argument.device) if isinstance(argument, Tensor) else argument


def _sound(ways: Sequence[Way[Found]], arguments: Sequence[Any], device: torch.device | None) -> list[Way[Found]]:
    """Those that work and agree; what a way sets up at its first call is then there."""
    found: dict[Way[Found], list[Tensor]] = {}
    for way in ways:
        try:
            result = way(*arguments)
            _wait(device)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - compilers, linkers and drivers each fail with something else
            _wait(device)  # which raises, with the error above, where not even the device is left
            _say(_name(way), f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            continue
        found[way] = [_some(tensor) for tensor in ((result,) if isinstance(result, Tensor) else result)]
        del result  # before the next way's
        first = next(iter(found))
        if not all(map(_agree, found[first], found[way])):
            _say(_name(way), f"it computes something else than {_name(first)}")
            del found[way]
    return list(found)


def _some(result: Tensor) -> Tensor:
    rows = max(1, COMPARED // max(1, result[:1].numel()))
    return result[:rows].to(torch.float32, copy=True)


def _agree(expected: Tensor, found: Tensor) -> bool:
    """Whether two results are the same but for rounding; an expected one that is not finite says nothing."""
    size = expected.norm()
    return not size.isfinite() or bool((found - expected).norm() <= AGREEMENT * size)


@cache
def _say(way: str, why: str) -> None:
    """Once, however many kinds of arguments it is so for."""
    _log.warning("%s cannot be used here (%s); carrying on without it", way, why)


def _quickest_of(ways: Sequence[Way[Found]], arguments: Sequence[Any], device: torch.device | None) -> Way[Found]:
    took = dict.fromkeys(ways, math.inf)
    for _ in range(ROUNDS):
        for way in ways:
            took[way] = min(took[way], seconds(way, arguments, device))
    best = min(took, key=took.__getitem__)
    _log.info("%s is taken: %s", _name(best), {_name(way): f"{1e3 * t / REPEATS:.3f} ms" for way, t in took.items()})
    return best


def seconds(way: Callable[..., object], arguments: Sequence[Any], device: torch.device | None) -> float:
    """Of a round of ``REPEATS`` calls; on a GPU its own, not those of its host."""
    if device is None:
        start = time.perf_counter()
        for _ in range(REPEATS):
            way(*arguments)
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda._sleep(HEAD_START)  # type: ignore[no-untyped-call]  # noqa: SLF001 - there is no other
    begin.record()
    for _ in range(REPEATS):
        way(*arguments)
    end.record()
    _wait(device)
    return float(begin.elapsed_time(end)) / 1e3


def _wait(device: torch.device | None) -> None:
    if device is not None:
        torch.cuda.synchronize(device)


def _name(way: Way[Found]) -> str:
    return f"{way.__module__}.{way.__qualname__}"
