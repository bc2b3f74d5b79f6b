"""Images: loading them, choosing, adding and naming bands, and what they say about themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmearth_data.emulator.assets import ImageAsset
from mmearth_data.emulator.bands import Band, constant, masked, resampled
from mmearth_data.emulator.collections import EVERYTHING, Assets, Collection
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import Date, Image, Projection, image_of, moment


@algorithm("Image.load")
def load(context: Context, id: str) -> Image:
    """The image asset of that id."""
    asset = context.archive.lookup(id)
    if asset is None:
        raise ServiceError(f"Image.load: Image asset '{id}' not found (does not exist or caller does not have access).")
    if not isinstance(asset, ImageAsset):
        raise ServiceError(f"Image.load: Asset '{id}' is not an Image.")
    return image_of(asset)


@algorithm("Image.constant")
def constants(value: Any) -> Image:
    """An image of one number, or of one band per number of a list."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, int | float) for v in values):
        raise ServiceError(f"Image.constant: the value must be a number or a list of numbers; got {value!r}.")
    names = ["constant"] if len(values) == 1 else [f"constant_{i}" for i in range(len(values))]
    return Image(tuple(constant(name, v) for name, v in zip(names, values, strict=True)))


def _selected(image: Image, selectors: list[Any], where: str) -> tuple[Band, ...]:
    """Bands by index, exact name or regular expression, in the selectors' order."""
    names = [band.name for band in image.bands]
    chosen: list[Band] = []
    for selector in selectors:
        if isinstance(selector, int | float) and not isinstance(selector, bool):
            if not -len(names) <= selector < len(names):
                raise ServiceError(f"{where}: Band index {selector} is out of range for {len(names)} bands.")
            chosen.append(image.bands[int(selector)])
            continue
        exact = [band for band in image.bands if band.name == selector]
        try:
            found = exact or [band for band in image.bands if re.fullmatch(str(selector), band.name)]
        except re.error as error:
            raise ServiceError(f"{where}: Band pattern '{selector}' is no regular expression ({error}).") from None
        if not found:
            raise ServiceError(f"{where}: Band pattern '{selector}' did not match any bands. Available bands: {names}")
        chosen.extend(found)
    return tuple(chosen)


def _named(bands: Sequence[Band], names: list[str], where: str) -> tuple[Band, ...]:
    if len(names) != len(bands):
        raise ServiceError(
            f"{where}: The number of names ({len(names)}) must match the number of bands ({len(bands)})."
        )
    if len(set(names)) != len(names):
        raise ServiceError(f"{where}: Band names must be unique; got {names}.")
    return tuple(replace(band, name=name) for band, name in zip(bands, names, strict=True))


@algorithm("Image.select", transparent="input")
def select(input: Image, bandSelectors: list[Any], newNames: list[str] | None) -> Image:
    """Chosen bands, optionally renamed."""
    bands = _selected(input, bandSelectors, "Image.select")
    return input.with_bands(bands if newNames is None else _named(bands, newNames, "Image.select"))


@algorithm("Image.rename", transparent="input")
def rename(input: Image, names: list[str]) -> Image:
    """The same bands under other names."""
    return input.with_bands(_named(input.bands, names, "Image.rename"))


@algorithm("Image.addBands", transparent="dstImg")
def add_bands(dstImg: Image, srcImg: Image, names: list[str] | None, overwrite: bool) -> Image:
    """The first image with bands of the second; a name that is taken gets a number unless it is to be overwritten."""
    added = srcImg.bands if names is None else _selected(srcImg, names, "Image.addBands")
    bands = {band.name: band for band in dstImg.bands}
    for band in added:
        name, number = band.name, 0
        while name in bands and not overwrite:
            number += 1
            name = f"{band.name}_{number}"
        bands[name] = replace(band, name=name)
    return dstImg.with_bands(tuple(bands.values()))


@algorithm("Image.resample", transparent="image")
def resample(image: Image, mode: str) -> Image:
    """The image, interpolated where it is asked for on another grid."""
    if mode != "bilinear":
        raise ServiceError(f"Image.resample: the emulator does not implement the mode '{mode}', only 'bilinear'.")
    return image.with_bands(tuple(resampled(band) for band in image.bands))


@algorithm("Image.bandNames")
def band_names(image: Image) -> list[str]:
    """The names of the bands in order."""
    return [band.name for band in image.bands]


@algorithm("Image.date")
def date(image: Image) -> Date:
    """When the image was taken: its system:time_start."""
    start = image.properties.get("system:time_start")
    if start is None:
        raise ServiceError("Image.date: the image has no 'system:time_start'.")
    return Date(moment(start))


@algorithm("Image.projection")
def projection(image: Image) -> Projection:
    """The native projection that all bands share; of a constant or composite, degrees."""
    grids = {band.grid for band in image.bands}
    if not grids:
        raise ServiceError("Image.projection: the image has no bands.")
    if len(grids) > 1:
        raise ServiceError(
            "Image.projection: The bands of the specified image contains different projections. "
            "Use Image.select to pick a single band."
        )
    (grid,) = grids
    return Projection("EPSG:4326") if grid is None else Projection(grid.crs, grid.transform)


def _twin(collection: Collection, key: str, value: Any) -> Image | None:
    """The first image whose property ``key`` is ``value``; asked of the asset directly where that is its index."""
    if isinstance(collection, Assets) and key == "system:index" and isinstance(value, str):
        asset = collection.asset.image(value)
        return None if asset is None else image_of(asset)
    for element in collection.elements(EVERYTHING):
        if isinstance(element, Image) and element.properties.get(key) == value:
            return element
    return None


@algorithm("Image.linkCollection")
def link_collection(
    input: Image, imageCollection: Collection, linkedBands: Any, linkedProperties: Any, matchPropertyName: str
) -> Image:
    """The image with bands and properties of its match in a collection: masked bands and nulls if it has none."""
    bands = [linkedBands] if isinstance(linkedBands, str) else list(linkedBands or [])
    properties = [linkedProperties] if isinstance(linkedProperties, str) else list(linkedProperties or [])
    value = input.properties.get(matchPropertyName)
    match = None if value is None else _twin(imageCollection, matchPropertyName, value)
    if match is None:
        linked = Image(tuple(masked(str(name), "float64") for name in bands))
    else:
        linked = Image(_selected(match, bands, "Image.linkCollection"))
    found = {} if match is None else match.properties
    image = add_bands(input, linked, None, True)
    return replace(image, properties={**image.properties, **{name: found.get(name) for name in properties}})
