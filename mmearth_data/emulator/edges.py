"""How the edges of a shape run in another CRS: straight where they were drawn straight, or along great circles.

Shapes are split finely enough before their vertices are moved. Great circles are those of a sphere, as Earth Engine's.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import known_crs, transformer

DEGREES = "EPSG:4326"
_METRES = 1500.0
"""Edges in projected CRS are split to this length before they are unprojected: they bow by under 0.1 m then."""
_DEGREES = 0.05
"""Edges in degrees are split to this length before they are bent or projected."""
_MAX_VERTICES = 2_000_000


def moved(shape: BaseGeometry, source: str, target: str) -> BaseGeometry:
    """The shape of one CRS in another, its edges straight in the first; a 400 outside of either's domain."""
    if source == target or shape.is_empty:
        return shape
    change = transformer(source, target)
    length = _DEGREES if known_crs(source).is_geographic else _METRES
    result = shapely.transform(_split(shape, length), lambda xy: np.column_stack(change.transform(xy[:, 0], xy[:, 1])))
    if not np.isfinite(shapely.get_coordinates(result)).all():
        raise ServiceError(f"Geometry: the shape reaches outside the domain of {target}.")
    return result


def bent(shape: BaseGeometry) -> BaseGeometry:
    """A shape in degrees whose edges run along great circles, split where they are long."""
    coordinates = shapely.get_coordinates(shape)
    if len(coordinates) < 2 or np.abs(np.diff(coordinates, axis=0)).max() <= _DEGREES:
        return shape
    if not np.isfinite(coordinates).all() or np.abs(coordinates[:, 1]).max() > 90:
        raise ServiceError("Geometry: latitudes must be between -90 and 90.")
    return _rebuilt(shape)


def split(shape: BaseGeometry) -> BaseGeometry:
    """A shape in degrees with vertices enough on straight edges that great circles between them are as good."""
    return _split(shape, _DEGREES)


def _split(shape: BaseGeometry, length: float) -> BaseGeometry:
    if shape.is_empty:
        return shape
    west, south, east, north = shape.bounds
    if (abs(east - west) + abs(north - south)) / length * max(1, shapely.get_num_coordinates(shape)) > _MAX_VERTICES:
        length = (abs(east - west) + abs(north - south)) / 1000
    return shapely.segmentize(shape, length)


def _rebuilt(shape: BaseGeometry) -> BaseGeometry:
    match shape.geom_type:
        case "Polygon":
            rings = [_arc(np.asarray(ring.coords)) for ring in (shape.exterior, *shape.interiors)]
            return shapely.Polygon(rings[0], rings[1:])
        case "LineString" | "LinearRing":
            return type(shape)(_arc(np.asarray(shape.coords)))
        case "Point" | "MultiPoint":
            return shape
        case _:
            return type(shape)([_rebuilt(part) for part in shape.geoms])


def _arc(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vertices of a line with those of the great circles between them; meridians and short edges stay as they are."""
    pieces = [vertices[:1]]
    for start, end in zip(vertices[:-1, :2], vertices[1:, :2], strict=True):
        across = abs(end[0] - start[0])
        steps = int(np.ceil(np.abs(end - start).max() / _DEGREES))
        if steps > 1 and 0 < across < 180:
            pieces.append(_between(start, end, steps))
        pieces.append(end[None])
    return np.concatenate([piece[:, :2] for piece in pieces])


def _between(start: NDArray[np.float64], end: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    first, second = _unit(start), _unit(end)
    angle = np.arctan2(np.linalg.norm(np.cross(first, second)), first @ second)
    t = np.arange(1, steps)[:, None] / steps
    x, y, z = ((np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)).T
    lon = np.degrees(np.arctan2(y, x))
    lon += 360 * np.round((start[0] - lon) / 360)  # on the start's side of the antimeridian
    return np.column_stack([lon, np.degrees(np.arctan2(z, np.hypot(x, y)))])


def _unit(place: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = np.radians(place)
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
