"""Statistics of pixels in regions: of one geometry, or of every feature of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mmearth_data.emulator import limits
from mmearth_data.emulator.algorithms.projecting import lattice
from mmearth_data.emulator.bands import Band
from mmearth_data.emulator.collections import Collection, Element, Query, single
from mmearth_data.emulator.coverage import Cover, coarsened, cover, pixels_within
from mmearth_data.emulator.edges import DEGREES
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames
from mmearth_data.emulator.reducers import Reducer, Sample
from mmearth_data.emulator.registry import Context, algorithm
from mmearth_data.emulator.values import Feature, Geometry, Image, Projection

MAX_OBJECT_PIXELS = 1_000_000
"""Pixels that reducers of anything but numbers take: lists and histograms of more are refused."""
_OF_ONE = ("first", "last", "mean", "sum", "min", "max", "median", "mode")


def lattice_of(
    image: Image, crs: Projection | None, crs_transform: list[float] | None, scale: float | None, where: str
) -> Projection:
    """The pixel grid to work on: as asked, by default that of the image's first band."""
    native = image.bands[0].grid if image.bands else None
    base = crs or (Projection(DEGREES) if native is None else Projection(native.crs, native.transform))
    return lattice(base, crs_transform, scale, where)


def named_outputs(bands: Sequence[Band], reducer: Reducer, where: str, alone: bool) -> list[list[str]]:
    """What the outputs are called: one list per use of the reducer.

    A reducer of one input is used for every band, and its outputs carry the band's name unless they are ``alone`` of
    a single band; one of as many inputs as there are bands is used once.
    """
    if reducer.inputs == 1:
        if alone and len(bands) == 1:
            return [list(reducer.outputs)]
        single_output = len(reducer.outputs) == 1
        return [[b.name] if single_output else [f"{b.name}_{o}" for o in reducer.outputs] for b in bands]
    if reducer.inputs != len(bands):
        raise ServiceError(
            f"{where}: Need {reducer.inputs} bands for Reducer.{reducer.name}; the image has {len(bands)}."
        )
    return [list(reducer.outputs)]


class _Place(NamedTuple):
    """A region on a lattice, how many pixels it may have at most, and which algorithm asks."""

    region: Geometry
    lattice: Projection
    most: float
    where: str


def measured(
    bands: Sequence[Band], reducer: Reducer, names: list[list[str]], place: _Place, frames: Frames
) -> dict[str, Any]:
    """The reducer's outputs over the pixels that it takes of a region."""
    result: dict[str, Any] = {}
    covers: dict[bool, Cover] = {}
    for use, called in enumerate(names):
        own = bands[use : use + 1] if reducer.inputs == 1 else bands
        result.update(zip(called, _outputs(own, reducer, place, covers, frames), strict=True))
    return result


def _outputs(
    bands: Sequence[Band], reducer: Reducer, place: _Place, covers: dict[bool, Cover], frames: Frames
) -> list[Any]:
    """The outputs for as many bands as it takes; ``covers`` keeps the pixels of weighted and of unweighted reducers."""
    if reducer.halves:
        return reducer.put(
            [_outputs([bands[i] for i in half.inputs], half.reducer, place, covers, frames) for half in reducer.halves]
        )
    if reducer.weighted not in covers:
        covers[reducer.weighted] = cover(place.region, place.lattice, reducer.weighted, place.most, place.where)
    region = covers[reducer.weighted]
    if region.grid.shape == (1, 1) and region.weights[0, 0] == 1 and reducer.name in _OF_ONE and reducer.inputs == 1:
        return [_only_pixel(bands[0], region, frames, 0 if reducer.name == "sum" else None)]
    inside = region.weights > 0
    limits.check_memory(int(inside.sum()) * 16 * max(1, reducer.inputs))
    samples = []
    for band in bands:
        values, valid = band.pixels(region.grid, frames)
        weights = np.where(valid, region.weights if reducer.weighted else inside, 0.0)[inside]
        samples.append(Sample(values[inside], weights))
    return _reduced(reducer, samples)


def _only_pixel(band: Band, region: Cover, frames: Frames, empty: float | None) -> Any:
    """What reducers that give a lone value back give of one pixel."""
    values, valid = band.pixels(region.grid, frames)
    lone: np.generic = values[0, 0]
    return lone.item() if valid[0, 0] else empty


def _reduced(reducer: Reducer, samples: list[Sample]) -> list[Any]:
    """The outputs for pixels: as arrays where the reducer can, so that large regions stay fast."""
    if len(samples[0].values) > MAX_OBJECT_PIXELS and reducer.pixels is None:
        raise ServiceError(
            f"Reducer.{reducer.name}: {len(samples[0].values)} pixels; the emulator lists at most {MAX_OBJECT_PIXELS}."
        )
    if reducer.pixels is not None and all(sample.weights.any() for sample in samples):
        with np.errstate(all="ignore"):
            results = reducer.pixels(samples)
        return [np.asarray(value).item() if np.all(known) else None for value, known in results]
    columns = [
        [value if weight > 0 else None for value, weight in zip(*map(np.ndarray.tolist, sample), strict=True)]
        for sample in samples
    ]
    return reducer.rows(columns, [sample.weights.tolist() for sample in samples])


@algorithm("Image.reduceRegion", aggregates=True)
def reduce_region(
    context: Context,
    image: Image,
    reducer: Reducer,
    geometry: Geometry | None,
    scale: float | None,
    crs: Projection | None,
    crsTransform: list[float] | None,
    bestEffort: bool,
    maxPixels: int,
    tileScale: float,
) -> dict[str, Any]:
    """The statistics of all bands over a region: the image's footprint unless a geometry is given."""
    where = "Image.reduceRegion"
    names = named_outputs(image.bands, reducer, where, alone=False)
    lattice = lattice_of(image, crs, crsTransform, scale, where)
    region = geometry if geometry is not None else _footprint(image, where)
    if bestEffort and (found := pixels_within(region, lattice)) > maxPixels:
        lattice = coarsened(lattice, 1.01 * (found / max(1, maxPixels)) ** 0.5)
    return measured(image.bands, reducer, names, _Place(region, lattice, maxPixels, where), context.frames)


def _footprint(image: Image, where: str) -> Geometry:
    if image.footprint is None:
        raise ServiceError(f"{where}: Unbounded image; provide an explicit 'geometry'.")
    return Geometry(image.footprint)


@algorithm("Image.reduceRegions")
def reduce_regions(
    context: Context,
    image: Image,
    collection: Collection,
    reducer: Reducer,
    scale: float | None,
    crs: Projection | None,
    crsTransform: list[float] | None,
    tileScale: float,
) -> Collection:
    """The features with the statistics of their regions; one band's are called what the outputs are."""
    lattice = lattice_of(image, crs, crsTransform, scale, "Image.reduceRegions")
    names = named_outputs(image.bands, reducer, "Image.reduceRegions", alone=True)
    return _Measured(collection, image, reducer, lattice, names, context.frames)


@dataclass(frozen=True)
class _Measured:
    """Features of a collection with statistics of an image in their regions."""

    parent: Collection
    image: Image
    reducer: Reducer
    lattice: Projection
    names: list[list[str]]
    frames: Frames

    def elements(self, query: Query) -> Any:
        """The parent's elements, measured."""
        for element in self.parent.elements(query):
            yield self._measure(element)

    def _measure(self, element: Element) -> Feature:
        feature = single(element, "Image.reduceRegions")
        if not isinstance(feature, Feature):
            raise ServiceError("Image.reduceRegions: the collection holds an image; it must hold features.")
        if feature.geometry is None:
            return feature
        place = _Place(feature.geometry, self.lattice, np.inf, "Image.reduceRegions")
        values = measured(self.image.bands, self.reducer, self.names, place, self.frames)
        return replace(feature, properties={**feature.properties, **values})
