"""Collections as plans: elements are listed only when something needs them, and only those a query may hit.

Date and bounds filters travel down the plan to the asset (``Query``), past steps that leave an element's footprint
and time as they are; every filter is still applied where it stands, so what travels down need only be a superset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key
from typing import Any, Protocol, TypeGuard

from mmearth_data.emulator.assets import CollectionAsset, FeatureAsset
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.values import Feature, Function, Geometry, Image, hashable, image_of, shape_of

Bounds = tuple[float, float, float, float]
INDEX = "system:index"


@dataclass(frozen=True)
class Query:
    """What an element must at least satisfy to matter: touch ``bounds`` (degrees), start in [start, end) ms."""

    bounds: Bounds | None = None
    start: int | None = None
    end: int | None = None

    def both(self, other: Query) -> Query:
        """The query of elements that satisfy this one and another."""
        bounds = self.bounds or other.bounds
        if self.bounds and other.bounds:
            west, south, east, north = zip(self.bounds, other.bounds, strict=True)
            bounds = (max(west), max(south), min(east), min(north))
        starts = [s for s in (self.start, other.start) if s is not None]
        ends = [e for e in (self.end, other.end) if e is not None]
        return Query(bounds, max(starts, default=None), min(ends, default=None))

    @property
    def impossible(self) -> bool:
        """Whether nothing can satisfy it."""
        if self.start is not None and self.end is not None and self.start >= self.end:
            return True
        return self.bounds is not None and (self.bounds[0] > self.bounds[2] or self.bounds[1] > self.bounds[3])


EVERYTHING = Query()


class Collection(Protocol):
    """A plan that lists elements: images, features, or collections of them."""

    def elements(self, query: Query) -> Iterator[Element]:
        """The elements in order; those that do not satisfy ``query`` may be left out."""
        ...


Element = Feature | Image | Collection


class Filter(Protocol):
    """A test of elements that can say what it asks at least."""

    @property
    def query(self) -> Query:
        """What every passing element satisfies."""
        ...

    def accepts(self, element: Feature | Image) -> bool:
        """Whether the element passes."""
        ...

    def between(self, left: Feature | Image, right: Feature | Image) -> float | None:
        """How far apart two elements are that are to be joined; None if they are not."""
        ...


@dataclass(frozen=True)
class Assets:
    """The images of a collection asset."""

    asset: CollectionAsset

    def elements(self, query: Query) -> Iterator[Element]:
        """The asset's own listing."""
        if not query.impossible:
            yield from map(image_of, self.asset.query(query.bounds, query.start, query.end))


@dataclass(frozen=True)
class Table:
    """The features of a table asset."""

    asset: FeatureAsset

    def elements(self, query: Query) -> Iterator[Element]:
        """Every feature whose bounds touch the query's."""
        for row, (shape, properties) in enumerate(self.asset.features):
            if query.bounds is not None:
                west, south, east, north = query.bounds
                bounds = shape.bounds
                if not (bounds[0] <= east and bounds[2] >= west and bounds[1] <= north and bounds[3] >= south):
                    continue
            yield Feature(Geometry(shape), {**properties, INDEX: f"{row:020x}"})


@dataclass(frozen=True)
class Listed:
    """Elements given one by one; those without an index are numbered from 0."""

    items: Sequence[Element]

    def elements(self, query: Query) -> Iterator[Element]:
        """All of them."""
        for number, item in enumerate(self.items):
            unnamed = isinstance(item, Feature | Image) and item.properties.get(INDEX) is None
            yield with_index(item, str(number)) if unnamed else item


@dataclass(frozen=True)
class Filtered:
    """The elements that pass a filter."""

    parent: Collection
    filter: Filter

    def elements(self, query: Query) -> Iterator[Element]:
        """The parent's elements, asked with the filter's query beside ``query``."""
        for element in self.parent.elements(query.both(self.filter.query)):
            if self.filter.accepts(single(element, "Collection.filter")):
                yield element


@dataclass(frozen=True)
class Mapped:
    """Each element as a function makes it."""

    parent: Collection
    function: Function
    drop_nulls: bool

    def elements(self, query: Query) -> Iterator[Element]:
        """The results, named as their inputs are; errors say which element they arose at."""
        for element in self.parent.elements(query if self.function.keeps_element else EVERYTHING):
            index = index_of(element)
            try:
                result = self.function(element)
            except ServiceError as error:
                raise ServiceError(f"Error in map(ID={index}):\n{error.message}", error.code) from error
            if result is None and self.drop_nulls:
                continue
            if not isinstance(result, Feature | Image) and not is_collection(result):
                raise ServiceError(
                    f"Collection.map: A mapped algorithm must return a Feature or Image, not {type(result).__name__}."
                )
            yield result if index is None else with_index(result, index)


@dataclass(frozen=True)
class Ordered:
    """The first ``count`` elements (all if None) by a property's value; elements without it come last."""

    parent: Collection
    count: int | None
    key: str | None
    ascending: bool

    def elements(self, query: Query) -> Iterator[Element]:
        """Sorted and cut; only a plan without a cut may leave elements out beforehand."""
        elements: Iterable[Element] = self.parent.elements(query if self.count is None else EVERYTHING)
        if self.key is not None:
            elements = _sorted([single(element, "Collection.limit") for element in elements], self.key, self.ascending)
        for position, element in enumerate(elements):
            if self.count is not None and position >= self.count:
                return
            yield element


@dataclass(frozen=True)
class Flattened:
    """The elements of a collection's collections, their indices prefixed with that of the collection they are from."""

    parent: Collection

    def elements(self, query: Query) -> Iterator[Element]:
        """The inner elements; ``query`` is about them, not about the collections."""
        for number, outer in enumerate(self.parent.elements(EVERYTHING)):
            if not is_collection(outer):
                raise ServiceError(
                    f"Collection.flatten: element {number} is a {type(outer).__name__}, not a collection."
                )
            prefix = index_of(outer) or str(number)
            for element in outer.elements(query):
                yield with_index(element, f"{prefix}_{index_of(element)}")


@dataclass(frozen=True)
class Named:
    """A collection with an index of its own, as an element of another one."""

    parent: Collection
    index: str

    def elements(self, query: Query) -> Iterator[Element]:
        """The collection's elements."""
        return self.parent.elements(query)


@dataclass(frozen=True)
class Shuffled:
    """Elements with a pseudorandom property in [0, 1) that depends on the seed and on their row keys alone."""

    parent: Collection
    column: str
    seed: int
    row_keys: tuple[str, ...]

    def elements(self, query: Query) -> Iterator[Element]:
        """The parent's elements with the new property."""
        for element in self.parent.elements(query):
            item = single(element, "Collection.randomColumn")
            keys = repr((self.seed, [item.properties.get(key) for key in self.row_keys])).encode()
            bits = int.from_bytes(hashlib.blake2b(keys, digest_size=8).digest(), "big") >> 11
            yield replace(item, properties={**item.properties, self.column: bits / 2**53})


@dataclass(frozen=True)
class Distinct:
    """The first element of each combination of properties' values."""

    parent: Collection
    names: tuple[str, ...]

    def elements(self, query: Query) -> Iterator[Element]:
        """The elements in order; all are compared, whatever is asked."""
        seen: set[str] = set()
        for element in self.parent.elements(EVERYTHING):
            item = single(element, "Collection.distinct")
            key = repr([_compared_value(item, name) for name in self.names])
            if key not in seen:
                seen.add(key)
                yield element


def _compared_value(item: Feature | Image, name: str) -> Any:
    if name not in (".geo", ".all"):
        return item.properties.get(name)
    shape = shape_of(item)
    known = {key: value for key, value in item.properties.items() if key != INDEX}
    return (None if shape is None else shape.wkb_hex, sorted(known.items(), key=repr) if name == ".all" else None)


@dataclass(frozen=True)
class Remapped:
    """The elements whose property is a key of a table, with the table's value in its place."""

    parent: Collection
    table: Mapping[Any, int]
    name: str

    def elements(self, query: Query) -> Iterator[Element]:
        """Those of the parent's elements."""
        for element in self.parent.elements(query):
            item = single(element, "Collection.remap")
            value = hashable(item.properties.get(self.name))
            if value in self.table:
                yield replace(item, properties={**item.properties, self.name: self.table[value]})


@dataclass(frozen=True)
class Combined:
    """Images with the bands of those of another collection that have the same index."""

    first: Collection
    second: Collection
    overwrite: bool

    def elements(self, query: Query) -> Iterator[Element]:
        """The images that both have, in the first one's order."""
        others = {index_of(element): element for element in self.second.elements(EVERYTHING)}
        for element in self.first.elements(query):
            match = others.get(index_of(element))
            if not isinstance(element, Image) or (match is not None and not isinstance(match, Image)):
                raise ServiceError("ImageCollection.combine: the collections must hold images.")
            if match is None:
                continue
            bands = {band.name: band for band in element.bands}
            for band in match.bands:
                name, number = band.name, 0
                while name in bands and not self.overwrite:
                    number += 1
                    name = f"{band.name}_{number}"
                bands[name] = band.called(name)
            yield element.with_bands(tuple(bands.values()))


def is_collection(value: object) -> TypeGuard[Collection]:
    """Whether a value is a plan."""
    return hasattr(value, "elements")


def single(element: Element, algorithm: str) -> Feature | Image:
    """The element, refused if it is a collection."""
    if isinstance(element, Feature | Image):
        return element
    raise ServiceError(f"{algorithm}: the elements are collections; flatten them first.")


def index_of(element: Element) -> str | None:
    """What an element is called within its collection."""
    if isinstance(element, Named):
        return element.index
    return element.properties.get(INDEX) if isinstance(element, Feature | Image) else None


def with_index(element: Element, index: str) -> Element:
    """The element under another name."""
    if isinstance(element, Feature | Image):
        if element.properties.get(INDEX) == index:
            return element
        properties = {**element.properties, INDEX: index}
        if isinstance(element, Image):
            return Image(element.bands, properties, element.footprint)
        return Feature(element.geometry, properties)
    return Named(element.parent if isinstance(element, Named) else element, index)


def _sorted(elements: list[Feature | Image], key: str, ascending: bool) -> list[Feature | Image]:
    known = [element for element in elements if element.properties.get(key) is not None]
    unknown = [element for element in elements if element.properties.get(key) is None]

    def compare(left: Feature | Image, right: Feature | Image) -> int:
        order = compared(left.properties[key], right.properties[key])
        if order is None:
            raise ServiceError(f"Collection.limit: Can't compare the values of property '{key}' with each other.")
        return order if ascending else -order

    return sorted(known, key=cmp_to_key(compare)) + unknown


def compared(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 as ``left`` is less than, equal to or greater than ``right``; None if they cannot be compared."""
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if numbers or (isinstance(left, str) and isinstance(right, str)):
        return int(left > right) - int(left < right)
    return None
