"""Images linked to their matches in another collection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmearth_data.emulator.algorithms.images import add_bands, selected
from mmearth_data.emulator.bands import masked
from mmearth_data.emulator.collections import EVERYTHING, Assets, Collection
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image, image_of


def _twin(collection: Collection, key: str, value: Any) -> Image | None:
    """The first image whose property ``key`` is ``value``; asked of the asset directly where that is its index."""
    if isinstance(collection, Assets) and key == "system:index" and isinstance(value, str):
        asset = collection.asset.image(value)
        return None if asset is None else image_of(asset)
    for element in collection.elements(EVERYTHING):
        if isinstance(element, Image) and element.properties.get(key) == value:
            return element
    return None


def _names(value: Any) -> list[str]:
    """Names given one by one or as a list."""
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ServiceError(f"Image.linkCollection: names must be texts; got {str(value)[:60]}.")
    return names


@algorithm("Image.linkCollection")
def link_collection(
    input: Image, imageCollection: Collection, linkedBands: Any, linkedProperties: Any, matchPropertyName: str
) -> Image:
    """The image with bands and properties of its match in a collection: masked bands and nulls if it has none."""
    bands, properties = (_names(value) for value in (linkedBands, linkedProperties))
    value = input.properties.get(matchPropertyName)
    match = None if value is None else _twin(imageCollection, matchPropertyName, value)
    if match is None:
        linked = Image(tuple(masked(str(name), "float64") for name in bands))
    else:
        linked = Image(selected(match, bands, "Image.linkCollection"))
    found = {} if match is None else match.properties
    image = add_bands(input, linked, None, True)
    return replace(image, properties={**image.properties, **{name: found.get(name) for name in properties}})
