"""Joins of two collections by what a filter says of pairs of their elements."""

from __future__ import annotations

from mmearth_data.emulator.collections import Collection, Filter
from mmearth_data.emulator.joins import Join, Joined
from mmearth_data.emulator.registry import algorithm


@algorithm("Join.apply")
def apply(join: Join, primary: Collection, secondary: Collection, condition: Filter) -> Collection:
    """The primary elements joined with the secondary ones that satisfy the condition with them."""
    return Joined(join, primary, secondary, condition)


@algorithm("Join.simple")
def simple() -> Join:
    """The primary elements that have a match."""
    return Join("simple")


@algorithm("Join.inverted")
def inverted() -> Join:
    """The primary elements that have none."""
    return Join("inverted")


@algorithm("Join.inner")
def inner(primaryKey: str, secondaryKey: str, measureKey: str | None) -> Join:
    """A feature for each pair, with both elements as properties."""
    return Join("inner", primaryKey, secondaryKey, measureKey)


@algorithm("Join.saveAll")
def save_all(matchesKey: str, ordering: str | None, ascending: bool, measureKey: str | None, outer: bool) -> Join:
    """The primary elements with a list of their matches."""
    return Join("saveAll", matchesKey, "", measureKey, ordering, ascending, outer)


@algorithm("Join.saveFirst")
def save_first(matchKey: str, ordering: str | None, ascending: bool, measureKey: str | None, outer: bool) -> Join:
    """The primary elements with their first match."""
    return Join("saveFirst", matchKey, "", measureKey, ordering, ascending, outer)


@algorithm("Join.saveBest")
def save_best(matchKey: str, measureKey: str, outer: bool) -> Join:
    """The primary elements with the match that the condition measures as nearest."""
    return Join("saveBest", matchKey, "", measureKey, outer=outer)
