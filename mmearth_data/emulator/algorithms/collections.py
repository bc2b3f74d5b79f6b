"""Collections: loading, making, filtering, mapping and ordering them, and lists and shapes out of them."""

from __future__ import annotations

from itertools import islice
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import FeatureAsset, ImageAsset
from mmearth_data.emulator.collections import (
    EVERYTHING,
    Assets,
    Collection,
    Combined,
    Distinct,
    Element,
    Filter,
    Filtered,
    Flattened,
    Listed,
    Mapped,
    Named,
    Ordered,
    Query,
    Remapped,
    Shuffled,
    Table,
    single,
)
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.geojson import crs_named
from mmearth_data.emulator.limits import bounded
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import Feature, Function, Geometry, Image, Projection, hashable, shape_of


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


@algorithm("Collection.toList")
def to_list(collection: Collection, count: int, offset: int) -> list[Element]:
    """So many elements, from a place on."""
    if count < 0 or offset < 0:
        raise ServiceError(f"Collection.toList: 'count' and 'offset' must not be negative; got {count} and {offset}.")
    return bounded(islice(collection.elements(EVERYTHING), offset, offset + count))


@algorithm("Collection.iterate")
def iterate(collection: Collection, function: Function, first: Any) -> Any:
    """A function of each element and of its result for the element before."""
    result = first
    for element in bounded(collection.elements(EVERYTHING)):
        result = function(element, result)
    return result


def _union(collection: Collection, where: str) -> BaseGeometry:
    shapes = (shape_of(single(element, where)) for element in collection.elements(EVERYTHING))
    return shapely.union_all([shape for shape in shapes if shape is not None])


@algorithm("Collection.geometry")
def geometry(collection: Collection, maxError: Any) -> Geometry:
    """All geometries and footprints as one."""
    return Geometry(_union(collection, "Collection.geometry"))


@algorithm("Collection.bounds")
def bounds(collection: Collection, maxError: Any, proj: Projection) -> Geometry:
    """The bounding rectangle of all elements in a projection's CRS."""
    code = crs_named(proj.crs)
    return Geometry(shapely.envelope(Geometry(_union(collection, "Collection.bounds")).within(code)), code)


@algorithm("Collection.union")
def union(collection: Collection, maxError: Any) -> Collection:
    """One feature of all geometries."""
    return Listed([Feature(Geometry(_union(collection, "Collection.union")))])


@algorithm("Collection.distinct")
def distinct(collection: Collection, properties: Any) -> Collection:
    """The first element of each combination of properties' values; .geo and .all are the geometry and everything."""
    names = [properties] if isinstance(properties, str) else properties
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ServiceError("Collection.distinct: 'properties' must be a property's name or a list of them.")
    return Distinct(collection, tuple(names))


@algorithm("Collection.remap")
def remap(collection: Collection, lookupIn: list[Any], lookupOut: list[int], columnName: str) -> Collection:
    """The elements whose property is in one list, with the value of the other in its place."""
    if len(lookupIn) != len(lookupOut):
        raise ServiceError(f"Collection.remap: {len(lookupOut)} values for {len(lookupIn)}.")
    table = {hashable(value): new for value, new in zip(lookupIn, lookupOut, strict=True)}
    return Remapped(collection, table, columnName)


@algorithm("ImageCollection.combine")
def combined(primary: Collection, secondary: Collection, overwrite: bool) -> Collection:
    """The images of the first collection with the bands of those of the second that have the same index."""
    return Combined(primary, secondary, overwrite)
