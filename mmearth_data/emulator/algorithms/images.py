"""Images: loading them, choosing, adding and naming bands, and what they say about themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from mmearth_data.emulator import patterns
from mmearth_data.emulator.assets import ImageAsset
from mmearth_data.emulator.bands import Band, constant, resampled
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import Date, Image, PixelType, Projection, image_of, moment


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
    if not all(isinstance(v, int | float) and math.isfinite(v) and abs(v) < 2**63 for v in values):
        raise ServiceError(f"Image.constant: the value must be a number or a list of numbers; got {value!r}.")
    names = ["constant"] if len(values) == 1 else [f"constant_{i}" for i in range(len(values))]
    return Image(tuple(constant(name, v) for name, v in zip(names, values, strict=True)))


def selected(image: Image, selectors: list[Any], where: str) -> tuple[Band, ...]:
    """Bands by index, exact name or regular expression, in the selectors' order."""
    names = [band.name for band in image.bands]
    chosen: list[Band] = []
    for selector in selectors:
        if isinstance(selector, int | float) and not isinstance(selector, bool):
            if not -len(names) <= selector < len(names):
                raise ServiceError(f"{where}: Band index {selector} is out of range for {len(names)} bands.")
            chosen.append(image.bands[int(selector)])
            continue
        exact = image.band(selector) if isinstance(selector, str) else None
        if exact is not None:
            chosen.append(exact)
            continue
        found = [band for band in image.bands if patterns.matches(str(selector), band.name, where)]
        if not found:
            raise ServiceError(f"{where}: Band pattern '{selector}' did not match any bands. Available bands: {names}")
        chosen.extend(found)
    return tuple(chosen)


def _named(bands: Sequence[Band], names: list[str], where: str) -> tuple[Band, ...]:
    if len(names) != len(bands):
        raise ServiceError(
            f"{where}: The number of names ({len(names)}) must match the number of bands ({len(bands)})."
        )
    if not all(names):
        raise ServiceError(f"{where}: Band names must not be empty; got {names}.")
    if len(set(names)) != len(names):
        raise ServiceError(f"{where}: Band names must be unique; got {names}.")
    return tuple(band.called(name) for band, name in zip(bands, names, strict=True))


@algorithm("Image.select", transparent="input")
def select(input: Image, bandSelectors: list[Any], newNames: list[str] | None) -> Image:
    """Chosen bands, optionally renamed."""
    bands = selected(input, bandSelectors, "Image.select")
    return input.with_bands(bands if newNames is None else _named(bands, newNames, "Image.select"))


@algorithm("Image.rename", transparent="input")
def rename(input: Image, names: list[str]) -> Image:
    """The same bands under other names."""
    return input.with_bands(_named(input.bands, names, "Image.rename"))


@algorithm("Image.addBands", transparent="dstImg")
def add_bands(dstImg: Image, srcImg: Image, names: list[str] | None, overwrite: bool) -> Image:
    """The first image with bands of the second; a name that is taken gets a number unless it is to be overwritten."""
    added = srcImg.bands if names is None else selected(srcImg, names, "Image.addBands")
    bands = {band.name: band for band in dstImg.bands}
    for band in added:
        name, number = band.name, 0
        while name in bands and not overwrite:
            number += 1
            name = f"{band.name}_{number}"
        bands[name] = band.called(name)
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


@algorithm("Image.cat")
def concatenated(images: list[Any]) -> Image:
    """The bands of several images in one."""
    result: Image | None = None
    for item in images:
        image = Image((constant("constant", item),)) if _is_number(item) else item
        if not isinstance(image, Image):
            raise ServiceError(f"Image.cat: a {type(item).__name__} is no image.")
        result = image if result is None else add_bands(result, image, None, False)
    return Image(()) if result is None else result


@algorithm("Image.slice", transparent="image")
def sliced(image: Image, start: int, end: int | None) -> Image:
    """Bands from one place up to another, counted from the end where negative."""
    return image.with_bands(tuple(image.bands)[start:end])


@algorithm("Image.metadata")
def metadata(image: Image, property: str, name: str | None) -> Image:
    """A band of a property that is a number, called as the property unless named."""
    value = image.properties.get(property)
    if not _is_number(value) or not math.isfinite(value):
        raise ServiceError(f"Image.metadata: the property '{property}' is {value!r}, not a number.")
    return Image((constant(name or property, float(value)),))


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@algorithm("Image.regexpRename")
def regexp_rename(input: Image, regex: str, replacement: str, all: bool) -> Image:
    """Bands renamed by replacing what a regular expression finds in their names."""
    where = "Image.regexpRename"
    changed = [patterns.substituted(regex, replacement, band.name, 0 if all else 1, where) for band in input.bands]
    return input.with_bands(_named(input.bands, changed, where))


@algorithm("Image.bandTypes")
def band_types(image: Image) -> dict[str, PixelType]:
    """The pixel type of each band."""
    return {band.name: PixelType(band.dtype) for band in image.bands}


@algorithm("Dictionary.toImage")
def image_of_numbers(dictionary: dict[str, Any], names: list[str] | None) -> Image:
    """A constant band for every number of a dictionary, in the order of their names."""
    wanted = sorted(dictionary) if names is None else names
    for name in wanted:
        if not _is_number(dictionary.get(name)) or not math.isfinite(dictionary[name]):
            raise ServiceError(f"Dictionary.toImage: '{name}' is {dictionary.get(name)!r}, not a number.")
    return Image(tuple(constant(name, dictionary[name]) for name in wanted))
