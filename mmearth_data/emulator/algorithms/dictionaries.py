"""Dictionaries: values by key."""

from __future__ import annotations

from typing import Any

from mmearth_data.emulator import patterns
from mmearth_data.emulator.binding import promoted
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Function

Table = dict[str, Any]


@algorithm("Dictionary")
def dictionary(input: Any) -> Table:
    """A dictionary, or one of a list of keys and values by turns."""
    if input is None:
        return {}
    if isinstance(input, list):
        if len(input) % 2 or not all(isinstance(key, str) for key in input[::2]):
            raise ServiceError("Dictionary: a list must hold keys, which are texts, and values by turns.")
        return dict(zip(input[::2], input[1::2], strict=True))
    if not isinstance(input, dict):
        raise ServiceError(f"Dictionary: cannot make one of {type(input).__name__}.")
    return input


@algorithm("Dictionary.fromLists")
def from_lists(keys: list[str], values: list[Any]) -> Table:
    """Keys of one list with the values of another."""
    if len(keys) != len(values):
        raise ServiceError(f"Dictionary.fromLists: {len(keys)} keys for {len(values)} values.")
    return dict(zip(keys, values, strict=True))


def _value(dictionary: Table, key: str, where: str) -> Any:
    if key not in dictionary:
        raise ServiceError(f"{where}: Dictionary does not contain key: '{key}'.")
    return dictionary[key]


@algorithm("Dictionary.get")
def get(dictionary: Table, key: str, defaultValue: Any) -> Any:
    """The value of a key, or a default where one is given."""
    if key in dictionary and dictionary[key] is not None:
        return dictionary[key]
    return _value(dictionary, key, "Dictionary.get") if defaultValue is None else defaultValue


def _typed(name: str, wanted: str) -> None:
    @algorithm(name)
    def handler(dictionary: Table, key: str) -> Any:
        """The value of a key as that type."""
        value = _value(dictionary, key, name)
        return None if value is None else promoted(value, wanted, f"{name}: the value")


_typed("Dictionary.getNumber", "Number")
_typed("Dictionary.getString", "String")
_typed("Dictionary.getGeometry", "Geometry")


@algorithm("Dictionary.contains")
def contains(dictionary: Table, key: str) -> bool:
    """Whether there is a value for the key."""
    return key in dictionary


@algorithm("Dictionary.keys")
def keys(dictionary: Table) -> list[str]:
    """The keys in order."""
    return sorted(dictionary)


@algorithm("Dictionary.values")
def values(dictionary: Table, keys: list[str] | None) -> list[Any]:
    """The values in the order of their keys, or of keys that are named."""
    return [_value(dictionary, key, "Dictionary.values") for key in (sorted(dictionary) if keys is None else keys)]


@algorithm("Dictionary.size")
def size(dictionary: Table) -> int:
    """The number of keys."""
    return len(dictionary)


@algorithm("Dictionary.set")
def set_value(dictionary: Table, key: str, value: Any) -> Table:
    """The dictionary with one value changed."""
    return {**dictionary, key: value}


@algorithm("Dictionary.combine")
def combine(first: Table, second: Table, overwrite: bool) -> Table:
    """Both dictionaries; of keys in both the second's value, unless it is not to overwrite."""
    return {**first, **second} if overwrite else {**second, **first}


def _chosen(dictionary: Table, selectors: list[str], ignore_missing: bool, where: str) -> list[str]:
    """The keys that are named, or that match, in the selectors' order."""
    found: dict[str, None] = {}
    for selector in selectors:
        matching = [key for key in dictionary if patterns.matches(selector, key, where)]
        if not matching and not ignore_missing:
            raise ServiceError(f"{where}: Dictionary does not contain key: '{selector}'.")
        found.update(dict.fromkeys(matching))
    return list(found)


@algorithm("Dictionary.select")
def select(dictionary: Table, selectors: list[str], ignoreMissing: bool) -> Table:
    """The keys that are named or match."""
    return {key: dictionary[key] for key in _chosen(dictionary, selectors, ignoreMissing, "Dictionary.select")}


@algorithm("Dictionary.remove")
def remove(dictionary: Table, selectors: list[str], ignoreMissing: bool) -> Table:
    """All keys but those that are named or match."""
    gone = set(_chosen(dictionary, selectors, ignoreMissing, "Dictionary.remove"))
    return {key: value for key, value in dictionary.items() if key not in gone}


@algorithm("Dictionary.rename")
def rename(dictionary: Table, from_: list[str], to_: list[str], overwrite: bool) -> Table:
    """Some keys called otherwise."""
    if len(from_) != len(to_):
        raise ServiceError(f"Dictionary.rename: {len(to_)} new names for {len(from_)} keys.")
    moved = {new: _value(dictionary, old, "Dictionary.rename") for old, new in zip(from_, to_, strict=True)}
    kept = {key: value for key, value in dictionary.items() if key not in from_}
    taken = sorted(moved.keys() & kept.keys())
    if taken and not overwrite:
        raise ServiceError(f"Dictionary.rename: the key '{taken[0]}' is there already.")
    return {**kept, **moved}


@algorithm("Dictionary.map")
def mapped(dictionary: Table, baseAlgorithm: Function) -> Table:
    """A function of every key and value."""
    return {key: baseAlgorithm(key, dictionary[key]) for key in sorted(dictionary)}
