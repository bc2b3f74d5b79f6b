"""Binding arguments: by Earth Engine's signature table, promoted to the types that it names.

Nothing is guessed: an unknown algorithm, an unknown or missing argument, and a value of the wrong type are each a 400
that says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from mmearth_data.emulator.bands import constant
from mmearth_data.emulator.collections import Query, is_collection
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import affine
from mmearth_data.emulator.geojson import geometry_of
from mmearth_data.emulator.joins import Join
from mmearth_data.emulator.kernels import Kernel
from mmearth_data.emulator.reducers import Reducer
from mmearth_data.emulator.registry import ALGORITHMS, Algorithm, Context
from mmearth_data.emulator.values import (
    Date,
    DateRange,
    ErrorMargin,
    Feature,
    Geometry,
    Image,
    Projection,
    moment,
)
from mmearth_data.emulator.wheel import signatures


def algorithm_named(name: str) -> Algorithm:
    """The algorithm called ``name``; a 400 that tells whether Earth Engine or only the emulator lacks it."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if name in signatures():
        raise ServiceError(f"The emulator does not implement the algorithm '{name}'.")
    raise ServiceError(f"Unknown algorithm: no function called '{name}'.")


def call(algorithm: Algorithm, given: Mapping[str, Any], context: Context) -> Any:
    """The algorithm's result for arguments given by name."""
    name, parameters = algorithm.signature.name, algorithm.signature.parameters
    for argument in given:
        if argument not in parameters:
            raise ServiceError(f"{name}: Unrecognized argument '{argument}'; it takes {', '.join(parameters)}.")
    bound: dict[str, Any] = {}
    for slot in _slots(name):
        value = given.get(slot.name)
        if slot.spelled is None:
            if value is not None and value != slot.default:
                raise ServiceError(f"{name}: the emulator does not implement the argument '{slot.name}'.")
        elif value is not None:
            bound[slot.spelled] = promoted(value, slot.type, slot.where)
        elif slot.required:
            raise ServiceError(f"{name}: Parameter '{slot.name}' is required and may not be null.")
        else:
            bound[slot.spelled] = slot.default if slot.plain else promoted(slot.default, slot.type, name)
    if algorithm.wants_context:
        return algorithm.handler(context, **bound)
    return algorithm.handler(**bound)


class _Slot(NamedTuple):
    """A parameter of an algorithm as its handler takes it; ``spelled`` is None if the handler does not.

    ``where`` names it in messages. A ``plain`` default needs no promotion.
    """

    name: str
    spelled: str | None
    type: str
    where: str
    required: bool
    default: Any
    plain: bool


@cache
def _slots(name: str) -> tuple[_Slot, ...]:
    algorithm = ALGORITHMS[name]
    return tuple(
        _Slot(
            parameter.name,
            algorithm.spelled.get(parameter.name, parameter.name) if parameter.name in algorithm.takes else None,
            parameter.type,
            f"{name}: Parameter '{parameter.name}'",
            not parameter.optional,
            parameter.default,
            parameter.default is None or isinstance(parameter.default, bool | str),
        )
        for parameter in algorithm.signature.parameters.values()
    )


def promoted(value: Any, wanted: str, where: str) -> Any:
    """The value as the type that a signature names (its part before "<"); a 400 if it cannot be one."""
    base, inner = _parts(wanted)
    if base in ("Object", "any", ""):
        return value
    if base not in _PROMOTIONS:
        raise ServiceError(f"{where}: the emulator does not know the type {wanted}.")
    result = _PROMOTIONS[base](value)
    if result is None:
        raise ServiceError(f"{where} has wrong type: expected {wanted}, got {kind_of(value)}.")
    if base == "List" and inner is not None:
        return [promoted(item, inner, f"{where}, item {i},") for i, item in enumerate(result)]
    return result


@cache
def _parts(wanted: str) -> tuple[str, str | None]:
    """A signature's type without what its elements are, and that."""
    base, bracket, rest = wanted.partition("<")
    return base, rest[:-1] if bracket else None


def kind_of(value: Any) -> str:
    """What Earth Engine would call a value."""
    if isinstance(value, bool):
        return "Boolean"
    names: tuple[tuple[type, str], ...] = ((int, "Integer"), (float, "Float"), (str, "String"), (list, "List"))
    for python, name in (*names, (dict, "Dictionary")):
        if isinstance(value, python):
            return name
    return "Collection" if is_collection(value) else type(value).__name__


def _only(*types: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, types) else None


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    whole = _number(value) is not None and math.isfinite(value) and value == int(value)
    return int(value) if whole else None


def _image(value: Any) -> Image | None:
    if _number(value) is not None:
        return Image((constant("constant", value),))
    return value if isinstance(value, Image) else None


def _date(value: Any) -> Date | None:
    return Date(moment(value)) if isinstance(value, Date | int | float | str) else None


def _geometry(value: Any) -> Geometry | None:
    if isinstance(value, Feature):
        return value.geometry
    if isinstance(value, dict) and "type" in value:
        return geometry_of(value)
    return value if isinstance(value, Geometry) else None


def _projection(value: Any) -> Projection | None:
    if isinstance(value, str):
        return Projection(value)
    if isinstance(value, dict) and value.get("type") == "Projection":
        return Projection(str(value.get("crs")), affine(value.get("transform") or [1, 0, 0, 0, 1, 0], "Projection"))
    return value if isinstance(value, Projection) else None


def _margin(value: Any) -> ErrorMargin | None:
    if _number(value) is not None:
        return ErrorMargin(value, "meters")
    if isinstance(value, dict) and value.get("type") == "ErrorMargin":
        return ErrorMargin(_number(value.get("value")), str(value.get("unit")))
    return value if isinstance(value, ErrorMargin) else None


def _collection(value: Any) -> Any:
    return value if is_collection(value) else None


_PROMOTIONS: dict[str, Callable[[Any], Any]] = {
    "Number": _number,
    "Float": _number,
    "Integer": _integer,
    "Long": _integer,
    "String": _only(str),
    "Boolean": lambda value: value if isinstance(value, bool) else None if _number(value) is None else value != 0,
    "List": _only(list),
    "Dictionary": _only(dict),
    "Date": _date,
    "DateRange": _only(DateRange),
    "Geometry": _geometry,
    "Feature": _only(Feature),
    "Element": lambda value: value if isinstance(value, Feature | Image) or is_collection(value) else None,
    "Image": _image,
    "ImageCollection": _collection,
    "FeatureCollection": _collection,
    "Filter": lambda value: value if isinstance(getattr(value, "query", None), Query) else None,
    "Projection": _projection,
    "ErrorMargin": _margin,
    "Reducer": _only(Reducer),
    "Kernel": _only(Kernel),
    "Join": _only(Join),
    "Algorithm": lambda value: value if hasattr(value, "keeps_element") else None,
}
