"""Fetching one tile: the single computePixels request, its answer read strictly, and why what is absent is absent."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mmearth_data import grid
from mmearth_data.earthengine.images import NOTHING_THERE, TOLD_APART, Cell
from mmearth_data.earthengine.templates import tile_expression
from mmearth_data.modalities import PIXEL, Modality
from mmearth_data.source import Absence, Acquisition, Corrupt, Tile

ComputePixels = Callable[[dict[str, Any]], bytes]
_SCL_NODATA_CLASS = 0
"""Class 0 of SCL is itself called no-data."""


def requested(acquisition: Acquisition, wanted: Sequence[Modality] = PIXEL) -> dict[str, tuple[str, ...]]:
    """The bands to ask for of each of the pixel modalities ``wanted``; empty where the acquisition can have none."""
    return {modality.name: acquisition.available(modality) for modality in wanted}


def cell_of(acquisition: Acquisition) -> Cell:
    """The acquisition's cell of the tile grid."""
    cells = grid.decode(acquisition.location_id)
    return Cell(f"EPSG:{int(cells.epsg[0])}", int(cells.x0[0]), int(cells.y0[0]), int(cells.pixels[0]))


def request_body(acquisition: Acquisition, wanted: Sequence[Modality] = PIXEL) -> dict[str, Any]:
    """The computePixels request of one tile, on its cell's own 10 m grid."""
    cell = cell_of(acquisition)
    return {
        "expression": tile_expression(acquisition, cell, requested(acquisition, wanted)),
        "fileFormat": "NPY",
        "grid": {
            "dimensions": {"width": cell.pixels, "height": cell.pixels},
            "crsCode": cell.crs,
            "affineTransform": {
                "scaleX": grid.PIXEL_METRES,
                "shearX": 0,
                "translateX": cell.x0,
                "shearY": 0,
                "scaleY": -grid.PIXEL_METRES,
                "translateY": cell.y0,
            },
        },
    }


def fetch(compute_pixels: ComputePixels, acquisition: Acquisition, wanted: Sequence[Modality] = PIXEL) -> Tile:
    """The pixel modalities of one tile in one request; raises Corrupt, with the bytes, for an unreadable answer."""
    return parse(compute_pixels(request_body(acquisition, wanted)), acquisition, wanted)


def parse(payload: bytes, acquisition: Acquisition, wanted: Sequence[Modality] = PIXEL) -> Tile:
    """The tile in an NPY answer: one structured field per requested band, each in its stored dtype.

    Raises Corrupt where the bytes are no such array or its shape, bands or dtypes are not those asked for.
    """
    side = int(grid.decode(acquisition.location_id).pixels[0])
    bands_of = requested(acquisition, wanted)
    fields = [(band, np.dtype(m.dtype)) for m in wanted for band in bands_of[m.name]]
    array = _structured(payload)
    seen = [(name, array.dtype[name]) for name in array.dtype.names or ()]
    if array.shape != (side, side) or seen != fields:
        raise Corrupt(
            f"a tile of {len(fields)} bands and {side}×{side} pixels was asked for; "
            f"{len(seen)} bands and shape {array.shape} arrived",
            payload,
        )
    pixels: dict[str, NDArray[np.generic]] = {}
    absent: dict[str, Absence] = {}
    for modality in wanted:
        bands = bands_of[modality.name]
        stored = np.full((len(modality.bands), side, side), modality.nodata, dtype=modality.dtype)
        for index, band in enumerate(modality.bands):
            if band in bands:
                stored[index] = array[band]
        nothing_there = False
        if modality.name in TOLD_APART:
            nothing_there = bool((stored == NOTHING_THERE).all())
            if nothing_there:
                stored[:] = modality.nodata
        elif modality.name == "sentinel2_scl":
            stored[stored == _SCL_NODATA_CLASS] = modality.nodata
        pixels[modality.name] = stored
        if not modality.valid(stored).any():
            absent[modality.name] = _reason(modality, acquisition, nothing_there)
    return Tile(acquisition, pixels, absent)


def _structured(payload: bytes) -> NDArray[np.void]:
    buffer = io.BytesIO(payload)
    try:
        version = npy.read_magic(buffer)
        if version != (1, 0):
            raise ValueError(f"NPY version {version}")
        shape, fortran_order, dtype = npy.read_array_header_1_0(buffer)
    except ValueError as error:
        raise Corrupt(f"the pixels are not an NPY array: {' '.join(str(error).split())}", payload) from error
    expected = int(np.prod(shape)) * dtype.itemsize
    start = buffer.tell()
    if dtype.hasobject or fortran_order or len(payload) - start != expected:
        raise Corrupt(f"the pixels are cut short or malformed: {len(payload) - start} bytes of {expected}", payload)
    array: NDArray[np.void] = np.frombuffer(payload, dtype=dtype, offset=start).reshape(shape)
    return array


def _reason(modality: Modality, acquisition: Acquisition, nothing_there: bool) -> Absence:
    """The fact that explains a modality without one valid pixel."""
    if nothing_there:
        return Absence.NO_SCENE
    if acquisition.available(modality):
        return Absence.MASKED
    if modality.name == "sentinel1":
        return Absence.NO_PASS
    published = acquisition.level == "L2A" or "COPERNICUS/S2_HARMONIZED" in modality.assets
    return Absence.NOT_IN_PRODUCT if published else Absence.NOT_AT_LEVEL
