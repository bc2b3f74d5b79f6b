"""Collections: loading, making, filtering, mapping, ordering and joining them, and lists out of them."""

from __future__ import annotations

from typing import Any

from mmearth_data.emulator.assets import FeatureAsset, ImageAsset
from mmearth_data.emulator.collections import (
    EVERYTHING,
    Assets,
    Collection,
    Element,
    Filter,
    Filtered,
    Flattened,
    Listed,
    Mapped,
    Named,
    Ordered,
    Query,
    Shuffled,
    Table,
    single,
)
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.limits import bounded
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import Feature, Function, Image


def _found(context: Context, where: str, kind: str, asset_id: str) -> Any:
    asset = context.archive.lookup(asset_id)
    if asset is None:
        raise ServiceError(
            f"{where}: {kind} asset '{asset_id}' not found (does not exist or caller does not have access)."
        )
    return asset


@algorithm("ImageCollection.load")
def load_images(context: Context, id: str) -> Collection:
    """The image collection of that id."""
    asset = _found(context, "ImageCollection.load", "ImageCollection", id)
    if isinstance(asset, ImageAsset | FeatureAsset):
        raise ServiceError(f"ImageCollection.load: Asset '{id}' is not an ImageCollection.")
    return Assets(asset)


@algorithm("Collection.loadTable")
def load_table(context: Context, tableId: str) -> Collection:
    """The table of that id."""
    asset = _found(context, "Collection.loadTable", "Collection", tableId)
    if not isinstance(asset, FeatureAsset):
        raise ServiceError(f"Collection.loadTable: Asset '{tableId}' is not a FeatureCollection.")
    return Table(asset)


@algorithm("Collection")
def from_elements(features: list[Element]) -> Collection:
    """A collection of the elements given."""
    return Listed(features)


@algorithm("ImageCollection.fromImages")
def from_images(images: list[Image]) -> Collection:
    """A collection of the images given."""
    return Listed(images)


@algorithm("Collection.filter")
def filtered(collection: Collection, filter: Any) -> Collection:
    """The elements that pass the filter."""
    if not isinstance(getattr(filter, "query", None), Query):
        raise ServiceError("Collection.filter: Parameter 'filter' must be a Filter.")
    passed: Filter = filter
    return Filtered(collection, passed)


@algorithm("Collection.map")
def mapped(collection: Collection, baseAlgorithm: Function, dropNulls: bool) -> Collection:
    """The results of a function for each element."""
    return Mapped(collection, baseAlgorithm, dropNulls)


@algorithm("Collection.limit")
def limited(collection: Collection, limit: int | None, key: str | None, ascending: bool) -> Collection:
    """The collection in order of a property, cut after a number of elements."""
    return Ordered(collection, limit, key, ascending)


@algorithm("Collection.flatten")
def flattened(collection: Collection) -> Collection:
    """The elements of the collection's collections."""
    return Flattened(collection)


@algorithm("Collection.merge", "ImageCollection.merge")
def merged(collection1: Collection, collection2: Collection) -> Collection:
    """The elements of both, indices prefixed with 1_ and 2_."""
    return Flattened(Listed([Named(collection1, "1"), Named(collection2, "2")]))


@algorithm("Collection.randomColumn")
def random_column(
    collection: Collection, columnName: str, seed: int, distribution: str, rowKeys: list[str] | None
) -> Collection:
    """A property of pseudorandom numbers that depend on the seed and the row keys alone."""
    if distribution != "uniform":
        raise ServiceError(
            f"Collection.randomColumn: the emulator does not implement the distribution '{distribution}', "
            "only 'uniform'."
        )
    return Shuffled(collection, columnName, int(seed), tuple(rowKeys or ("system:index",)))


@algorithm("Collection.first")
def first(collection: Collection) -> Element | None:
    """The first element, or null."""
    return next(iter(collection.elements(EVERYTHING)), None)


@algorithm("Collection.size")
def size(collection: Collection) -> int:
    """The number of elements."""
    return sum(1 for _ in collection.elements(EVERYTHING))


@algorithm("AggregateFeatureCollection.array")
def aggregate_array(collection: Collection, property: str) -> list[Any]:
    """A property's values, elements without it left out."""
    values = (_property(element, property) for element in collection.elements(EVERYTHING))
    return bounded(value for value in values if value is not None)


def _property(element: Element, name: str) -> Any:
    item: Feature | Image = single(element, "AggregateFeatureCollection.array")
    return item.properties.get(name)
