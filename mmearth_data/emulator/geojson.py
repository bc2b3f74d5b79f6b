"""Geometries in and out: Earth Engine's coordinate lists and GeoJSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.edges import DEGREES
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import known_crs
from mmearth_data.emulator.values import Geometry


def geometry_of(value: Mapping[str, Any]) -> Geometry:
    """The geometry that a GeoJSON object describes, with Earth Engine's optional named ``crs``."""
    kind = value.get("type")
    crs = DEGREES
    named = value.get("crs")
    if isinstance(named, Mapping) and isinstance(named.get("properties"), Mapping):
        crs = crs_named(str(named["properties"].get("name", "")))
    geodesic = crs == DEGREES and bool(value.get("geodesic", False))
    if kind == "GeometryCollection":
        parts = [geometry_of(part).shape for part in _listed(value.get("geometries", []))]
        return Geometry(shapely.geometrycollections(parts), crs, geodesic)
    if kind not in BUILDERS:
        raise ServiceError(f"Geometry: the emulator does not know the GeoJSON type {kind!r}.")
    return Geometry(BUILDERS[kind](_listed(value.get("coordinates", []))), crs, geodesic)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ServiceError(f"Geometry: coordinates must be a list; got {str(value)[:60]}.")
    return value


def crs_named(code: str) -> str:
    """The CRS as "EPSG:n" where it has such a code; a 400 if there is no such CRS."""
    crs = known_crs(code)
    number = crs.to_epsg()
    return code if number is None else f"EPSG:{number}"


def point(coordinates: Any) -> BaseGeometry:
    """A point of [x, y]."""
    ((x, y),) = _positions([coordinates])
    return shapely.Point(x, y)


def multipoint(coordinates: Any) -> BaseGeometry:
    """Points of positions, or of a flat list of numbers."""
    return shapely.MultiPoint(_positions(_paired(coordinates)))


def line(coordinates: Any) -> BaseGeometry:
    """A line through positions, or through those of a flat list of numbers."""
    positions = _positions(_paired(coordinates))
    if len(positions) < 2:
        raise ServiceError("Geometry: a line needs at least two positions.")
    return shapely.LineString(positions)


def multiline(coordinates: Any) -> BaseGeometry:
    """Lines, or one of a flat list of numbers."""
    lines = [coordinates] if coordinates and _is_number(coordinates[0]) else coordinates
    return shapely.MultiLineString([line(_listed(part)) for part in lines])


def ring(coordinates: Any) -> BaseGeometry:
    """A closed line."""
    positions = _positions(_paired(coordinates))
    if len(positions) < 3:
        raise ServiceError("Geometry: a ring needs at least three positions.")
    return shapely.LinearRing(positions)


def rectangle(coordinates: Any) -> BaseGeometry:
    """A rectangle of [west, south, east, north] or two opposite corners."""
    corners = _positions(_paired(coordinates))
    if len(corners) != 2:
        raise ServiceError("GeometryConstructors.Rectangle: needs two corners or [west, south, east, north].")
    (x0, y0), (x1, y1) = corners
    return shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def polygon(coordinates: Any) -> BaseGeometry:
    """A polygon of rings, of one ring, or of a flat list of numbers."""
    if coordinates and _is_number(coordinates[0]):
        rings = [_paired(coordinates)]
    elif coordinates and _listed(coordinates[0]) and _is_number(coordinates[0][0]):
        rings = [coordinates]
    else:
        rings = list(coordinates)
    if not rings:
        return shapely.Polygon()
    outer, *holes = (_positions(_listed(part)) for part in rings)
    if min(map(len, (outer, *holes))) < 3:
        raise ServiceError("GeometryConstructors.Polygon: a ring needs at least three positions.")
    return shapely.Polygon(outer, holes)


def multipolygon(coordinates: Any) -> BaseGeometry:
    """A multipolygon of polygons."""
    return shapely.MultiPolygon([polygon(_listed(part)) for part in coordinates])


BUILDERS = {
    "Point": point,
    "MultiPoint": multipoint,
    "LineString": line,
    "MultiLineString": multiline,
    "LinearRing": ring,
    "Polygon": polygon,
    "MultiPolygon": multipolygon,
}


def geojson(shape: BaseGeometry) -> dict[str, Any]:
    """A shape as GeoJSON."""
    result: dict[str, Any] = _lists(mapping(shape))
    return result


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _paired(coordinates: list[Any]) -> list[Any]:
    """Positions as they are, or the pairs of a flat list of numbers."""
    if not coordinates or not _is_number(coordinates[0]):
        return coordinates
    if len(coordinates) % 2:
        raise ServiceError(f"A flat list of coordinates must have an even length; got {len(coordinates)} numbers.")
    return [coordinates[i : i + 2] for i in range(0, len(coordinates), 2)]


def _positions(values: Any) -> list[tuple[float, float]]:
    result = []
    for value in values:
        if isinstance(value, list | tuple) and len(value) >= 2 and _is_number(value[0]) and _is_number(value[1]):
            result.append((float(value[0]), float(value[1])))
        elif isinstance(value, Geometry) and value.shape.geom_type == "Point" and not value.shape.is_empty:
            result.append((value.shape.x, value.shape.y))
        else:
            raise ServiceError(f"A position must be two numbers; got {str(value)[:60]}.")
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _FAR


_FAR = 1e12
"""No coordinate of any CRS is as large; NaN and infinity are none either."""
