"""Composites: one image of a collection's images, pixel by pixel on the grid that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator import limits, reducers
from mmearth_data.emulator.bands import Band, Pixels, cast, nothing
from mmearth_data.emulator.collections import EVERYTHING, Collection, index_of
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.reducers import Reducer, Sample, Statistic
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image

Array = NDArray[Any]
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
    # Images of one pass and tile share their footprint: most of a year's are the same few.
    return shapely.union_all(list({id(footprint): footprint for footprint in footprints}.values()))


def _members(images: Sequence[Image]) -> dict[str, list[Band]]:
    """The bands of all images by name."""
    names = dict.fromkeys(band.name for image in images for band in image.bands)
    return {name: [band for image in images if (band := image.band(name)) is not None] for name in names}


def union_type(bands: Sequence[Band]) -> str:
    """The type that holds the values of all bands."""
    return str(np.result_type(*map(np.dtype, dict.fromkeys(band.dtype for band in bands))))


def _stack(members: Sequence[Band], grid: PixelGrid, frames: Frames) -> tuple[Array, NDArray[np.bool_]] | None:
    """Values and masks, each (images, height, width), of those that have a valid pixel on the grid."""
    union = union_type(members)
    near = [member for member in members if member.extent is None or not frames.far(member.extent, grid)]
    limits.check_memory(len(near) * grid.height * grid.width * (np.dtype(union).itemsize + 1))
    parts = [part for member in near if (part := member.pixels(grid, frames)).valid.any()]
    if not parts:
        return None
    return (
        np.stack([part.values.astype(union, copy=False) for part in parts]),
        np.stack([part.valid for part in parts]),
    )


def _single(name: str, members: Sequence[Band], statistic: Statistic, dtype: str | None) -> Band:
    """One band of bands, masked where none is valid; ``dtype`` None keeps the union of their types."""
    result = union_type(members) if dtype is None else dtype

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        stack = _stack(members, grid, frames)
        if stack is None:
            return nothing(grid, result)
        with np.errstate(all="ignore"):
            ((reduced, known),) = statistic([Sample(*stack)])
        return Pixels(cast(np.where(known, reduced, 0), result), np.asarray(known))

    return Band(name, result, None, pixels)


def _register(name: str, statistic: Statistic, dtype: str | None) -> None:
    @algorithm(name)
    def handler(collection: Collection) -> Image:
        """Statistic of all valid images, band by band, masked where there is none; of several modes the least."""
        images = images_of(collection, name)
        bands = tuple(_single(band, members, statistic, dtype) for band, members in _members(images).items())
        return Image(bands, {}, _footprint(images))


for _name, _statistic, _dtype in (
    ("reduce.mode", reducers.mode, None),
    ("reduce.min", reducers.smallest, None),
    ("reduce.max", reducers.largest, None),
    ("reduce.mean", reducers.mean, "float64"),
    ("reduce.sum", reducers.summed, "float64"),
    ("reduce.median", reducers.percentiles([50]), "float64"),
    ("reduce.count", reducers.count, "int32"),
    ("reduce.product", reducers.product, "float64"),
    ("reduce.and", reducers.all_nonzero, "uint8"),
    ("reduce.or", reducers.any_nonzero, "uint8"),
):
    _register(_name, _statistic, _dtype)


def reduced_bands(
    stacks: Sequence[Sequence[Band]], reducer: Reducer, names: Sequence[str], where: str
) -> tuple[Band, ...]:
    """The outputs of a reducer as bands; ``stacks`` has one list of bands per input."""
    statistic = reducer.statistic(where)
    union = union_type([band for stack in stacks for band in stack])

    def output(place: int) -> Band:
        kept = reducer.types[place]
        dtype = union if kept is None else kept

        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            samples = []
            for stack in stacks:
                parts = [band.pixels(grid, frames) for band in stack]
                limits.check_memory(len(parts) * grid.height * grid.width * (np.dtype(union).itemsize + 1))
                values = np.stack([part.values.astype(union, copy=False) for part in parts])
                samples.append(Sample(values, np.stack([part.valid for part in parts])))
            with np.errstate(all="ignore"):
                value, known = statistic(samples)[place]
            return Pixels(cast(np.where(known, value, 0), dtype), np.asarray(known))

        return Band(names[place], dtype, None, pixels)

    return tuple(output(place) for place in range(len(reducer.outputs)))


@algorithm("ImageCollection.reduce")
def reduce_collection(collection: Collection, reducer: Reducer, parallelScale: float) -> Image:
    """Every band reduced over the images, its name followed by the output's; several inputs take several bands."""
    images = images_of(collection, "ImageCollection.reduce")
    members = _members(images)
    if reducer.inputs > 1:
        if len(members) != reducer.inputs:
            raise ServiceError(
                f"ImageCollection.reduce: the reducer takes {reducer.inputs} inputs, the images have "
                f"{len(members)} bands."
            )
        if len({len(bands) for bands in members.values()}) > 1:
            raise ServiceError("ImageCollection.reduce: some images lack a band that the reducer takes.")
        bands = reduced_bands(list(members.values()), reducer, reducer.outputs, "ImageCollection.reduce")
        return Image(bands, {}, _footprint(images))
    bands = tuple(
        band
        for name, own in members.items()
        for band in reduced_bands([own], reducer, [f"{name}_{o}" for o in reducer.outputs], "ImageCollection.reduce")
    )
    return Image(bands, {}, _footprint(images))


@algorithm("Image.reduce")
def reduce_bands(image: Image, reducer: Reducer) -> Image:
    """One band per output: the image's bands reduced pixel by pixel."""
    if not image.bands or reducer.inputs != 1:
        raise ServiceError(
            f"Image.reduce: needs a reducer of one input and an image with bands; got {reducer.inputs} inputs and "
            f"{len(image.bands)} bands."
        )
    bands = reduced_bands([image.bands], reducer, reducer.outputs, "Image.reduce")
    return image.with_bands(tuple(replace(band, grid=image.bands[0].grid) for band in bands))


@algorithm("ImageCollection.mosaic")
def mosaic(collection: Collection) -> Image:
    """The last image that is valid shows, band by band."""
    images = images_of(collection, "ImageCollection.mosaic")
    last = reducers.at_end(last=True)
    bands = tuple(_single(name, members, last, None) for name, members in _members(images).items())
    return Image(bands, {}, _footprint(images))


@algorithm("ImageCollection.qualityMosaic")
def quality_mosaic(collection: Collection, qualityBand: str) -> Image:
    """All bands of the image whose quality band is greatest; of equals the first."""
    images = [image for image in images_of(collection, "ImageCollection.qualityMosaic") if image.band(qualityBand)]
    if not images:
        raise ServiceError(f"ImageCollection.qualityMosaic: no image has the band '{qualityBand}'.")
    members = _members(images)
    if len({len(bands) for bands in members.values()}) > 1:
        raise ServiceError("ImageCollection.qualityMosaic: the images have different bands.")
    quality = members[qualityBand]

    def best(name: str) -> Band:
        dtype = union_type(members[name])

        def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
            limits.check_memory(2 * len(images) * grid.height * grid.width * 9)
            marks = [band.pixels(grid, frames) for band in quality]
            order = np.stack([np.where(mark.valid, mark.values.astype(np.float64), -np.inf) for mark in marks])
            chosen = order.argmax(axis=0)
            parts = [band.pixels(grid, frames) for band in members[name]]
            values = np.stack([part.values.astype(dtype, copy=False) for part in parts])
            valid = np.stack([part.valid & mark.valid for part, mark in zip(parts, marks, strict=True)])
            return Pixels(*(np.take_along_axis(own, chosen[None], axis=0)[0] for own in (values, valid)))

        return Band(name, dtype, None, pixels)

    return Image(tuple(best(name) for name in members), {}, _footprint(images))


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
