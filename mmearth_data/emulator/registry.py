"""The algorithms that the emulator knows, each a function checked against Earth Engine's own signature of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mmearth_data.emulator.assets import Archive
from mmearth_data.emulator.frames import Frames
from mmearth_data.emulator.limits import Budget
from mmearth_data.emulator.wheel import Signature, signatures

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Context:
    """What an algorithm may need besides its arguments: the archive, the request's cache of grids and its budget."""

    archive: Archive
    frames: Frames
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Algorithm:
    """A handler, the parameters that it takes and Earth Engine's signature.

    ``aggregates`` says that it enumerates a collection or a region for a number, which must not be nested too often.
    ``spelled`` gives the handler's names of parameters that Python cannot spell. ``transparent`` names the parameter
    whose element comes back with its footprint and time unchanged, if there is one: filters may then be applied
    before the algorithm instead of after it.
    """

    signature: Signature
    handler: Callable[..., Any]
    takes: frozenset[str]
    wants_context: bool
    transparent: str | None
    spelled: Mapping[str, str]
    aggregates: bool


ALGORITHMS: dict[str, Algorithm] = {}


def algorithm(*names: str, transparent: str | None = None, aggregates: bool = False) -> Callable[[F], F]:
    """Register a function under one or more algorithm names.

    Its parameters are those of the signature by name, with an underscore behind those that Python cannot spell
    (``from_``); ``context`` may come first, and parameters left out are not emulated. Raises TypeError at import if
    a name or parameter does not exist in Earth Engine.
    """

    def register(function: F) -> F:
        parameters = list(inspect.signature(function).parameters)
        wants_context = parameters[:1] == ["context"]
        own = parameters[1:] if wants_context else parameters
        spelled = {name.removesuffix("_"): name for name in own if name.endswith("_")}
        takes = frozenset(name.removesuffix("_") for name in own)
        for name in names:
            signature = signatures().get(name)
            if signature is None:
                raise TypeError(f"Earth Engine has no algorithm {name!r}; correct the name at {function.__qualname__}")
            unknown = (takes | ({transparent} if transparent else set())) - signature.parameters.keys()
            if unknown:
                raise TypeError(
                    f"{name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(signature.parameters)}"
                )
            required = {p.name for p in signature.parameters.values() if not p.optional}
            if not required <= takes:
                raise TypeError(f"{name} requires {', '.join(sorted(required - takes))}, which its handler lacks")
            ALGORITHMS[name] = Algorithm(signature, function, takes, wants_context, transparent, spelled, aggregates)
        return function

    return register
