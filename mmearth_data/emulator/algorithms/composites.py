"""Composites: one image of a collection's images, pixel by pixel on the grid that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.bands import Band, Pixels, cast, nothing
from mmearth_data.emulator.collections import EVERYTHING, Collection, index_of
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image

Array = NDArray[Any]
Statistic = Callable[[Array, NDArray[np.bool_]], Array]
"""Values and masks, each (images, height, width), to one value per pixel that has any valid image."""

MAX_DISTINCT_VALUES = 256
MAX_STACKED_BANDS = 5000


def images_of(collection: Collection, algorithm_name: str) -> list[Image]:
    """The collection's images; a 400 if it has anything else."""
    images = []
    for element in collection.elements(EVERYTHING):
        if not isinstance(element, Image):
            raise ServiceError(f"{algorithm_name}: the collection holds a {type(element).__name__}, not only images.")
        images.append(element)
    return images


def _footprint(images: Sequence[Image]) -> BaseGeometry | None:
    footprints = [image.footprint for image in images]
    if not footprints or any(footprint is None for footprint in footprints):
        return None
    return shapely.union_all(footprints)


def _mode(values: Array, valid: NDArray[np.bool_]) -> Array:
    """The most frequent value; of several the smallest."""
    distinct = np.unique(values[valid])
    if len(distinct) > MAX_DISTINCT_VALUES:
        raise ServiceError(
            f"reduce.mode: {len(distinct)} distinct values; the emulator finds the mode of at most "
            f"{MAX_DISTINCT_VALUES}, as in classifications."
        )
    counts = np.stack([((values == value) & valid).sum(axis=0) for value in distinct])
    return np.asarray(distinct[counts.argmax(axis=0)])


def _mean(values: Array, valid: NDArray[np.bool_]) -> Array:
    return np.asarray(_sum(values, valid) / np.maximum(valid.sum(axis=0), 1))


def _sum(values: Array, valid: NDArray[np.bool_]) -> Array:
    return np.asarray(np.where(valid, values, 0).sum(axis=0, dtype=np.float64))


def _extreme(select: Callable[..., Array], worst: Callable[[np.dtype[Any]], Any]) -> Statistic:
    def statistic(values: Array, valid: NDArray[np.bool_]) -> Array:
        return select(np.where(valid, values, worst(values.dtype)), axis=0)

    return statistic


def _lowest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _highest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _composite(images: Sequence[Image], statistic: Statistic, dtype: str | None) -> Image:
    """Bands are matched by name; ``dtype`` None keeps the union of the inputs' types. No images, no bands."""
    names = dict.fromkeys(band.name for image in images for band in image.bands)
    members = {name: [band for image in images if (band := image.band(name)) is not None] for name in names}
    bands = tuple(_reduced(name, members[name], statistic, dtype) for name in names)
    return Image(bands, {}, _footprint(images))


def _reduced(name: str, members: Sequence[Band], statistic: Statistic, dtype: str | None) -> Band:
    union = str(np.result_type(*(np.dtype(member.dtype) for member in members)))
    result = union if dtype is None else dtype

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        near = [member for member in members if member.extent is None or not frames.far(member.extent, grid)]
        parts = [part for member in near if (part := member.pixels(grid, frames)).valid.any()]
        if not parts:
            return nothing(grid, result)
        values = np.stack([part.values.astype(union, copy=False) for part in parts])
        valid = np.stack([part.valid for part in parts])
        any_valid = np.asarray(valid.any(axis=0))
        reduced = np.where(any_valid, statistic(values, valid), 0)
        return Pixels(cast(reduced, result), any_valid)

    return Band(name, result, None, pixels)


def _register(name: str, statistic: Statistic, dtype: str | None) -> None:
    @algorithm(name)
    def handler(collection: Collection) -> Image:
        return _composite(images_of(collection, name), statistic, dtype)


for _name, _statistic, _dtype in (
    ("reduce.mode", _mode, None),
    ("reduce.min", _extreme(np.min, _highest), None),
    ("reduce.max", _extreme(np.max, _lowest), None),
    ("reduce.mean", _mean, "float64"),
    ("reduce.sum", _sum, "float64"),
):
    _register(_name, _statistic, _dtype)


@algorithm("ImageCollection.toBands")
def to_bands(collection: Collection) -> Image:
    """All bands of all images, named by image index and band."""
    images = images_of(collection, "ImageCollection.toBands")
    bands = tuple(
        Band(f"{index_of(image)}_{band.name}", band.dtype, band.grid, band.pixels, band.extent, band.tiles)
        for image in images
        for band in image.bands
    )
    if len(bands) > MAX_STACKED_BANDS:
        raise ServiceError(f"ImageCollection.toBands: {len(bands)} bands; the maximum is {MAX_STACKED_BANDS}.")
    return Image(bands, {}, _footprint(images))
