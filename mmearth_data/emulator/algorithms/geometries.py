"""Geometries, projections and error margins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator import geojson
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import known_crs
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import DEGREES, ErrorMargin, Geometry, Projection

METRES_PER_DEGREE = 111_319.490_793_273_57
"""Of the equator: what a scale in metres is divided by in geographic CRS (WGS 84's semi-major axis · π / 180)."""


def _placed(shape: BaseGeometry, crs: Projection | None) -> Geometry:
    return Geometry(shape, DEGREES if crs is None else geojson.crs_named(crs.crs))


def _register_areal(name: str, build: Callable[[Any], BaseGeometry]) -> None:
    @algorithm(name)
    def handler(
        coordinates: list[Any], crs: Projection | None, geodesic: bool | None, maxError: Any, evenOdd: bool
    ) -> Geometry:
        return _placed(build(coordinates), crs)


_register_areal("GeometryConstructors.Polygon", geojson.polygon)
_register_areal("GeometryConstructors.MultiPolygon", geojson.multipolygon)


@algorithm("GeometryConstructors.Rectangle")
def rectangle(coordinates: list[Any], crs: Projection | None, geodesic: bool | None, evenOdd: bool) -> Geometry:
    """A rectangle of two opposite corners."""
    return _placed(geojson.rectangle(coordinates), crs)


@algorithm("GeometryConstructors.Point")
def point(coordinates: list[float], crs: Projection | None) -> Geometry:
    """A point."""
    return _placed(geojson.point(coordinates), crs)


@algorithm("Geometry.centroid")
def centroid(geometry: Geometry, maxError: ErrorMargin | None) -> Geometry:
    """The centroid, computed in the geometry's own CRS, in degrees."""
    return Geometry(Geometry(shapely.centroid(geometry.shape), geometry.crs).degrees)


@algorithm("Geometry.simplify")
def simplify(geometry: Geometry, maxError: ErrorMargin) -> Geometry:
    """The geometry with fewer vertices, nowhere further off than the error; metres in degrees are the equator's."""
    if maxError.unit not in ("meters", "projected"):
        raise ServiceError(f"Geometry.simplify: Unknown unit '{maxError.unit}' of the error margin.")
    margin = maxError.value
    if margin is None or margin < 0:
        raise ServiceError(f"Geometry.simplify: The error margin must be a number from 0; got {margin}.")
    units = margin if maxError.unit == "projected" else margin / metres_per_unit(geometry.crs)
    # GEOS drops the end of a ring after the rest, so that its tolerance may count twice.
    return Geometry(shapely.simplify(geometry.shape, units / 2, preserve_topology=True), geometry.crs)


@algorithm("Geometry.bounds")
def bounds(geometry: Geometry, maxError: ErrorMargin | None) -> Geometry:
    """The bounding rectangle in degrees."""
    return Geometry(shapely.envelope(geometry.degrees))


@algorithm("Geometry.coordinates")
def coordinates(geometry: Geometry) -> Any:
    """The coordinates in degrees, nested as in GeoJSON."""
    return geojson.geojson(geometry.degrees)["coordinates"]


@algorithm("ErrorMargin")
def error_margin(value: float | None, unit: str) -> ErrorMargin:
    """How far geometry may be off."""
    return ErrorMargin(value, unit)


@algorithm("Projection")
def projection(crs: Any, transform: list[Any] | None) -> Projection:
    """A CRS with an affine, the identity by default."""
    code = crs.crs if isinstance(crs, Projection) else crs
    if not isinstance(code, str):
        raise ServiceError(f"Projection: 'crs' must be a code such as 'EPSG:4326'; got {crs!r}.")
    name = geojson.crs_named(code)
    if transform is None:
        return Projection(name, crs.transform) if isinstance(crs, Projection) else Projection(name)
    if len(transform) != 6:
        raise ServiceError(f"Projection: 'transform' must have 6 numbers; got {len(transform)}.")
    a, b, c, d, e, f = map(float, transform)
    return Projection(name, (a, b, c, d, e, f))


@algorithm("Projection.crs")
def crs(projection: Projection) -> str:
    """The CRS's code."""
    return projection.crs


@algorithm("Projection.nominalScale")
def nominal_scale(proj: Projection) -> float:
    """Metres per pixel: of the equator for geographic CRS."""
    return abs(proj.transform[0]) * metres_per_unit(proj.crs)


def metres_per_unit(code: str) -> float:
    """Metres of one unit of a CRS's axes."""
    system = known_crs(code)
    return METRES_PER_DEGREE if system.is_geographic else float(system.axis_info[0].unit_conversion_factor)
