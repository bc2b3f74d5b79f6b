"""Elements: features and the properties of anything in a collection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmearth_data.emulator import patterns
from mmearth_data.emulator.algorithms import geometries
from mmearth_data.emulator.binding import promoted
from mmearth_data.emulator.collections import Element, index_of, is_collection, single
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Date, ErrorMargin, Feature, Geometry, Image, shape_of

_OWN_GEOMETRY = "system:footprint"


@algorithm("Feature")
def feature(geometry: Geometry | None, metadata: dict[str, Any]) -> Feature:
    """A feature of a geometry (or none) with properties."""
    return Feature(geometry, dict(metadata))


@algorithm("Element.get")
def get(object: Element, property: str) -> Any:
    """A property's value, null if there is none."""
    if property == "system:index":
        return index_of(object)
    return single(object, "Element.get").properties.get(property)


def _stored(value: Any) -> Any:
    """Dates become numbers when they are kept as properties."""
    return value.ms if isinstance(value, Date) else value


@algorithm("Element.set", transparent="object")
def set_property(object: Element, key: str, value: Any) -> Feature | Image:
    """The element with one property changed."""
    return set_properties(object, {key: value})


@algorithm("Element.setMulti")
def set_properties(object: Element, properties: dict[str, Any]) -> Feature | Image:
    """The element with several properties changed."""
    if _OWN_GEOMETRY in properties:
        raise ServiceError("Element.set: the emulator does not implement changing 'system:footprint'.")
    item = single(object, "Element.set")
    return replace(item, properties={**item.properties, **{key: _stored(v) for key, v in properties.items()}})


@algorithm("Image.id", "Feature.id")
def identifier(element: Element) -> str | None:
    """What the element is called within its collection."""
    return index_of(element)


@algorithm("Feature.select")
def select(
    input: Element, propertySelectors: list[str], newProperties: list[str] | None, retainGeometry: bool
) -> Feature:
    """A feature with chosen properties, by name or regular expression, optionally renamed."""
    item = single(input, "Feature.select")
    if not isinstance(item, Feature):
        raise ServiceError("Feature.select: the element is not a feature.")
    chosen: dict[str, Any] = {}
    for selector in propertySelectors:
        found = [name for name in item.properties if patterns.matches(selector, name, "Feature.select")]
        chosen.update({name: item.properties[name] for name in found})
    if newProperties is not None:
        if len(newProperties) != len(chosen):
            raise ServiceError(f"Feature.select: {len(newProperties)} new names for {len(chosen)} properties.")
        chosen = dict(zip(newProperties, chosen.values(), strict=True))
    index = {key: value for key, value in item.properties.items() if key == "system:index"}
    return Feature(item.geometry if retainGeometry else None, {**index, **chosen})


@algorithm("Feature.geometry", "Image.geometry", "Element.geometry")
def geometry(feature: Element, maxError: ErrorMargin | None) -> Geometry | None:
    """A feature's geometry, an image's footprint."""
    item = single(feature, "Feature.geometry")
    if isinstance(item, Feature):
        return item.geometry
    shape = shape_of(item)
    return None if shape is None else Geometry(shape)


@algorithm("Feature.simplify")
def simplified(feature: Element, maxError: ErrorMargin) -> Feature:
    """A feature with its geometry simplified to within the error."""
    item = single(feature, "Feature.simplify")
    if not isinstance(item, Feature):
        raise ServiceError("Feature.simplify: the element is not a feature.")
    return item if item.geometry is None else replace(item, geometry=geometries.simplify(item.geometry, maxError))


@algorithm("Element.propertyNames")
def property_names(element: Element) -> list[str]:
    """The names of the properties; an image with an edge has a footprint among them."""
    if is_collection(element):
        return []
    item = single(element, "Element.propertyNames")
    footprint = [_OWN_GEOMETRY] if isinstance(item, Image) and item.footprint is not None else []
    return [*item.properties, *footprint]


@algorithm("Element.toDictionary")
def to_dictionary(element: Element, properties: list[str] | None) -> dict[str, Any]:
    """The properties, all of the element's own or those that are named; collections have none here."""
    if is_collection(element):
        return {}
    known = single(element, "Element.toDictionary").properties
    if properties is None:
        return {name: value for name, value in known.items() if not name.startswith("system:")}
    return {name: known[name] for name in _matching(list(known), properties)}


def _matching(names: list[str], selectors: list[str]) -> list[str]:
    """Names that are given, or that match, in the selectors' order."""
    found: dict[str, None] = {}
    for selector in selectors:
        found.update(dict.fromkeys(n for n in names if patterns.matches(selector, n, "Element")))
    return list(found)


@algorithm("Element.copyProperties", "Image.copyProperties")
def copy_properties(
    destination: Element | None, source: Element | None, properties: list[str] | None, exclude: list[str] | None
) -> Element | None:
    """The element with properties of another, those of the system only where they are named."""
    if destination is None or source is None:
        return destination
    known = single(source, "Element.copyProperties").properties
    own = [name for name in known if not name.startswith("system:")]
    names = own if properties is None else _matching(list(known), properties)
    left_out = set(_matching(names, exclude or []))
    item = single(destination, "Element.copyProperties")
    copied = {name: known[name] for name in names if name not in left_out and name != _OWN_GEOMETRY}
    return replace(item, properties={**item.properties, **copied})


@algorithm("Element.replaceProperties")
def replace_properties(destination: Element, source: Element | None) -> Element:
    """The element with the properties of another alone; its index stays."""
    known = {} if source is None else single(source, "Element.replaceProperties").properties
    item = single(destination, "Element.replaceProperties")
    index = {key: value for key, value in item.properties.items() if key == "system:index"}
    kept = {name: value for name, value in known.items() if not name.startswith("system:")}
    return replace(item, properties={**index, **kept})


def _typed(name: str, wanted: str) -> None:
    @algorithm(name)
    def handler(object: Element, property: str) -> Any:
        """A property as that type."""
        value = get(object, property)
        return None if value is None else promoted(value, wanted, f"{name}: the property '{property}'")


_typed("Element.getNumber", "Number")
_typed("Element.getString", "String")
