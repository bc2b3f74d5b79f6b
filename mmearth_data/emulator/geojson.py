"""Geometries in and out: Earth Engine's coordinate lists and GeoJSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import known_crs
from mmearth_data.emulator.values import DEGREES, Geometry


def geometry_of(value: Mapping[str, Any]) -> Geometry:
    """The geometry that a GeoJSON object describes, with Earth Engine's optional named ``crs``."""
    kind = value.get("type")
    crs = DEGREES
    if isinstance(value.get("crs"), Mapping):
        crs = crs_named(str(value["crs"].get("properties", {}).get("name", "")))
    if kind == "GeometryCollection":
        parts = [geometry_of(part).shape for part in value.get("geometries", [])]
        return Geometry(shapely.geometrycollections(parts), crs)
    builders = {
        "Point": point,
        "MultiPoint": lambda c: shapely.multipoints([point(p) for p in c]),
        "LineString": lambda c: shapely.linestrings(_positions(c)),
        "Polygon": polygon,
        "MultiPolygon": multipolygon,
    }
    if kind not in builders:
        raise ServiceError(f"Geometry: the emulator does not know the GeoJSON type {kind!r}.")
    return Geometry(builders[kind](value.get("coordinates", [])), crs)


def crs_named(code: str) -> str:
    """The CRS as "EPSG:n" where it has such a code; a 400 if there is no such CRS."""
    crs = known_crs(code)
    number = crs.to_epsg()
    return code if number is None else f"EPSG:{number}"


def point(coordinates: Any) -> BaseGeometry:
    """A point of [x, y]."""
    ((x, y),) = _positions([coordinates])
    return shapely.Point(x, y)


def rectangle(coordinates: Any) -> BaseGeometry:
    """A rectangle of [west, south, east, north] or two opposite corners."""
    (x0, y0), (x1, y1) = _corners(coordinates)
    return shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def polygon(coordinates: Any) -> BaseGeometry:
    """A polygon of rings, of one ring, or of a flat list of numbers."""
    if coordinates and _is_number(coordinates[0]):
        rings = [_pairs(coordinates)]
    elif coordinates and _is_number(coordinates[0][0]):
        rings = [coordinates]
    else:
        rings = list(coordinates)
    if not rings:
        return shapely.Polygon()
    outer, *holes = (_positions(ring) for ring in rings)
    if len(outer) < 3:
        raise ServiceError("GeometryConstructors.Polygon: a ring needs at least three positions.")
    return shapely.Polygon(outer, holes)


def multipolygon(coordinates: Any) -> BaseGeometry:
    """A multipolygon of polygons."""
    return shapely.multipolygons([polygon(part) for part in coordinates])


def geojson(shape: BaseGeometry) -> dict[str, Any]:
    """A geometry in degrees as GeoJSON."""
    result: dict[str, Any] = _lists(mapping(shape))
    return result


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _corners(coordinates: Any) -> list[tuple[float, float]]:
    corners = _positions(_pairs(coordinates) if coordinates and _is_number(coordinates[0]) else coordinates)
    if len(corners) != 2:
        raise ServiceError("GeometryConstructors.Rectangle: needs two corners or [west, south, east, north].")
    return corners


def _pairs(flat: list[float]) -> list[list[float]]:
    if len(flat) % 2:
        raise ServiceError(f"A flat list of coordinates must have an even length; got {len(flat)} numbers.")
    return [flat[i : i + 2] for i in range(0, len(flat), 2)]


def _positions(values: Any) -> list[tuple[float, float]]:
    result = []
    for value in values:
        if isinstance(value, list | tuple) and len(value) >= 2 and _is_number(value[0]) and _is_number(value[1]):
            result.append((float(value[0]), float(value[1])))
        else:
            raise ServiceError(f"A position must be two numbers; got {str(value)[:60]}.")
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
