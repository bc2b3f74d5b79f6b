"""Masks: filling masked pixels, masking more of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.algorithms.arithmetic import paired, union
from mmearth_data.emulator.bands import Band, Pixels, cast, constant
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Image


@algorithm("Image.unmask")
def unmask(input: Image, value: Image | None, sameFootprint: bool) -> Image:
    """Masked pixels take value and mask of another image (0 by default).

    With ``sameFootprint``, pixels whose centre is outside the input's footprint stay masked.
    """
    filling = Image((constant("constant", 0),)) if value is None else value
    if len(filling.bands) not in (1, len(input.bands)):
        raise ServiceError(
            f"Image.unmask: 'value' has {len(filling.bands)} bands; it must have 1 or as many as 'input', "
            f"which has {len(input.bands)}."
        )
    inside = input.footprint if sameFootprint else None
    bands = tuple(_filled(band, other, inside) for band, other in paired(input, filling, "Image.unmask"))
    return replace(input, bands=bands, footprint=input.footprint if sameFootprint else None)


def _filled(band: Band, filling: Band, footprint: BaseGeometry | None) -> Band:
    dtype = union(band.dtype, filling.dtype)

    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = band.pixels(grid, frames)
        values = cast(values, dtype)
        if valid.all():
            return Pixels(values, valid)
        other = filling.pixels(grid, frames)
        wanted = ~valid & other.valid
        if footprint is not None:
            wanted &= frames.covered(footprint, grid)
        return Pixels(np.where(wanted, cast(other.values, dtype), values), valid | wanted)

    return Band(band.name, dtype, band.grid, pixels)


@algorithm("Image.updateMask", transparent="image")
def update_mask(image: Image, mask: Image) -> Image:
    """The image with pixels masked where the mask is 0 or masked itself."""
    if len(mask.bands) not in (1, len(image.bands)):
        raise ServiceError(f"Image.updateMask: 'mask' has {len(mask.bands)} bands, 'image' {len(image.bands)}.")
    return image.with_bands(tuple(_masked(band, by) for band, by in paired(image, mask, "Image.updateMask")))


def _masked(band: Band, by: Band) -> Band:
    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = band.pixels(grid, frames)
        mask = by.pixels(grid, frames)
        return Pixels(values, valid & mask.valid & (mask.values != 0))

    return replace(band, pixels=pixels, grid=None if band.tiles else band.grid, tiles=())


@algorithm("Image.mask")
def mask(image: Image, mask: Image | None) -> Image:
    """The mask as an image of 0 and 1; or, with one given, the image with that mask instead of its own.

    Pixels that were masked and no longer are have the value 0.
    """
    if mask is None:
        return image.with_bands(tuple(_mask_of(band) for band in image.bands))
    if len(mask.bands) not in (1, len(image.bands)):
        raise ServiceError(f"Image.mask: 'mask' has {len(mask.bands)} bands, 'image' {len(image.bands)}.")
    return image.with_bands(tuple(_remasked(band, by) for band, by in paired(image, mask, "Image.mask")))


def _mask_of(band: Band) -> Band:
    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        _, valid = band.pixels(grid, frames)
        return Pixels(valid.astype(np.float32), np.ones(grid.shape, dtype=np.bool_))

    return replace(band, dtype="float32", pixels=pixels, extent=None, tiles=())


def _remasked(band: Band, by: Band) -> Band:
    def pixels(grid: PixelGrid, frames: Frames) -> Pixels:
        values, valid = band.pixels(grid, frames)
        chosen = by.pixels(grid, frames)
        return Pixels(np.where(valid, values, 0).astype(values.dtype), chosen.valid & (chosen.values != 0))

    return replace(band, pixels=pixels, extent=None, tiles=())


@algorithm("Image.selfMask", transparent="image")
def self_mask(image: Image) -> Image:
    """The image masked where it is 0."""
    return image.with_bands(tuple(_masked(band, band) for band in image.bands))


@algorithm("Image.blend")
def blend(bottom: Image, top: Image) -> Image:
    """The top image where it is valid, else the bottom one."""
    if len(top.bands) not in (1, len(bottom.bands)):
        raise ServiceError(f"Image.blend: 'top' has {len(top.bands)} bands, 'bottom' {len(bottom.bands)}.")
    pairs = paired(bottom, top, "Image.blend")
    return replace(bottom, bands=tuple(_filled(over, under, None) for under, over in pairs), footprint=None)
