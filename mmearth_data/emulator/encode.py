"""Results on the wire: JSON values, GeoJSON features, NPY pixels."""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.bands import Band, cast, integer_range
from mmearth_data.emulator.collections import EVERYTHING, Collection, Element, is_collection, single
from mmearth_data.emulator.edges import DEGREES
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import Frames, PixelGrid
from mmearth_data.emulator.geojson import geojson
from mmearth_data.emulator.limits import bounded
from mmearth_data.emulator.reducers import Reducer
from mmearth_data.emulator.values import Date, DateRange, ErrorMargin, Feature, Geometry, Image, PixelType, Projection

_INDEX, _ID = "system:index", "system:id"


def value(result: Any) -> Any:
    """A result as value:compute answers it."""
    if result is None or isinstance(result, bool | int | str):
        return result
    if isinstance(result, float):
        return result if math.isfinite(result) else str(result).replace("nan", "NaN").replace("inf", "Infinity")
    if isinstance(result, list | tuple):
        return [value(item) for item in result]
    if isinstance(result, dict):
        return {key: value(item) for key, item in result.items()}
    if isinstance(result, np.generic):
        return value(result.item())
    if isinstance(result, Feature):
        return feature(result)
    if isinstance(result, Image):
        return _image(result)
    if is_collection(result):
        return _collection(result)
    return _typed(result)


def _typed(result: Any) -> dict[str, Any]:
    match result:
        case Date(ms):
            return {"type": "Date", "value": ms}
        case DateRange(start, end):
            return {"type": "DateRange", "dates": [start, end]}
        case Geometry():
            return _drawn(result)
        case Projection(crs, transform):
            return {"type": "Projection", "crs": crs, "transform": value(list(transform))}
        case ErrorMargin(number, unit):
            return {"type": "ErrorMargin", "unit": unit, "value": value(number)}
        case PixelType(dtype):
            return _pixel_type(dtype)
        case Reducer():
            return {"type": f"Reducer.{result.name}"}
        case _:
            raise ServiceError(f"A result of type {type(result).__name__} cannot be sent to the client.")


def _drawn(geometry: Geometry) -> dict[str, Any]:
    """A geometry as GeoJSON in degrees, with its own vertices where it is in degrees."""
    return {**geojson(geometry.shape if geometry.crs == DEGREES else geometry.degrees), "geodesic": geometry.geodesic}


def feature(element: Feature) -> dict[str, Any]:
    """A feature as GeoJSON in degrees; its id is its index."""
    properties = {key: value(item) for key, item in element.properties.items() if key not in (_INDEX, _ID)}
    result = {
        "type": "Feature",
        "geometry": None if element.geometry is None else _drawn(element.geometry),
        "properties": properties,
    }
    index = element.properties.get(_INDEX)
    return result if index is None else {**result, "id": value(index)}


def _pixel_type(dtype: str) -> dict[str, Any]:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return {"type": "PixelType", "precision": "float" if kind.itemsize == 4 else "double"}
    low, high = integer_range(kind)
    return {"type": "PixelType", "precision": "int", "min": low, "max": high}


def _band(band: Band) -> dict[str, Any]:
    grid = band.grid
    result: dict[str, Any] = {
        "id": band.name,
        "data_type": _pixel_type(band.dtype),
        "crs": "EPSG:4326" if grid is None else grid.crs,
        "crs_transform": [1, 0, 0, 0, 1, 0] if grid is None else list(grid.transform),
    }
    part = band.part
    if part is not None:
        result["dimensions"] = [part.width, part.height]
        if (part.row, part.column) != (0, 0):
            result["origin"] = [part.column, part.row]
    return result


def _image(image: Image) -> dict[str, Any]:
    properties = {key: value(item) for key, item in image.properties.items() if key != _ID}
    if image.footprint is not None:
        properties["system:footprint"] = geojson(image.footprint)
    result = {"type": "Image", "bands": [_band(band) for band in image.bands], "properties": properties}
    return {**result, "id": value(image.properties[_ID])} if _ID in image.properties else result


def _collection(collection: Collection) -> dict[str, Any]:
    elements = bounded(collection.elements(EVERYTHING))
    kind = "ImageCollection" if elements and isinstance(elements[0], Image) else "FeatureCollection"
    return {"type": kind, "columns": {}, "features": [value(element) for element in elements]}


def rows(elements: list[Element]) -> list[dict[str, Any]]:
    """Elements of a table as GeoJSON features."""
    result = []
    for element in elements:
        item = single(element, "table:computeFeatures")
        if not isinstance(item, Feature):
            raise ServiceError("table:computeFeatures: the collection holds images; map them to features first.")
        result.append(feature(item))
    return result


def npy(image: Image, grid: PixelGrid, frames: Frames) -> bytes:
    """The image on a grid as .npy: shape (height, width), one field per band in its dtype, masked pixels 0."""
    fields = [(band.name, np.dtype(band.dtype).newbyteorder("<")) for band in image.bands]
    table = np.empty(grid.shape, dtype=fields)
    for band in image.bands:
        values, valid = band.pixels(grid, frames)
        table[band.name] = cast(values, band.dtype) if valid.all() else np.where(valid, cast(values, band.dtype), 0)
    # As plain bytes: a buffer of fields may not have every name that a band may.
    return b"".join((_npy_header(table), table.reshape(-1).view(np.uint8).data))


def _npy_header(table: NDArray[np.void]) -> bytes:
    """What stands before an array in .npy: version 1 where it can name all fields, else 3, with UTF-8 and more room."""
    described = np.lib.format.header_data_from_array_1_0(table)
    header = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(header, described)
    except ValueError:
        text = repr(described).encode()
        text += b" " * (-(len(text) + 13) % 64) + b"\n"
        return np.lib.format.magic(3, 0) + struct.pack("<I", len(text)) + text
    return header.getvalue()
