"""Joins: how the elements of two collections that match each other come together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from mmearth_data.emulator.collections import EVERYTHING, Collection, Element, Filter, Query, compared, single
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.limits import bounded
from mmearth_data.emulator.values import Feature, Image

Item = Feature | Image
Kind = Literal["simple", "inverted", "inner", "saveAll", "saveFirst", "saveBest"]


@dataclass(frozen=True)
class Join:
    """A kind of join: under which keys matches and their measures are kept, and in which order."""

    kind: Kind
    key: str = ""
    other_key: str = ""
    measure: str | None = None
    ordering: str | None = None
    ascending: bool = True
    outer: bool = False


@dataclass(frozen=True)
class Joined:
    """The primary elements with what of the secondary ones matches them."""

    join: Join
    primary: Collection
    secondary: Collection
    condition: Filter

    def elements(self, query: Query) -> Iterator[Element]:
        """The joined elements in the order of the primary ones."""
        others = [single(element, "Join.apply") for element in bounded(self.secondary.elements(EVERYTHING))]
        for element in bounded(self.primary.elements(EVERYTHING)):
            item = single(element, "Join.apply")
            yield from self._joined(item, list(self._matches(item, others)))

    def _matches(self, item: Item, others: list[Item]) -> Iterator[tuple[Item, float]]:
        for other in others:
            measure = self.condition.between(item, other)
            if measure is not None:
                named = self.join.measure
                yield (other if named is None else _with(other, named, measure)), measure

    def _joined(self, item: Item, found: list[tuple[Item, float]]) -> Iterator[Element]:
        join = self.join
        if join.kind in ("simple", "inverted"):
            if bool(found) == (join.kind == "simple"):
                yield item
        elif join.kind == "inner":
            for other, _ in found:
                yield Feature(None, {join.key: item, join.other_key: other})
        elif found or join.outer:
            yield _with(item, join.key, self._saved(found))

    def _saved(self, found: list[tuple[Item, float]]) -> object:
        if self.join.kind == "saveBest":
            return min(found, key=lambda pair: pair[1])[0] if found else None
        members = [other for other, _ in found]
        if self.join.ordering is not None:
            members = _ordered(members, self.join.ordering, self.join.ascending)
        if self.join.kind == "saveAll":
            return members
        return members[0] if members else None


def _with(item: Item, key: str, value: object) -> Item:
    return replace(item, properties={**item.properties, key: value})


def _ordered(items: list[Item], key: str, ascending: bool) -> list[Item]:
    """Items by a property; those without it last."""
    known = [item for item in items if item.properties.get(key) is not None]
    if any(compared(item.properties[key], known[0].properties[key]) is None for item in known):
        raise ServiceError(f"Join.apply: Can't compare the values of property '{key}' with each other.")
    known.sort(key=lambda item: item.properties[key], reverse=not ascending)
    return known + [item for item in items if item.properties.get(key) is None]
