"""Geometries: making them, and what they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator import geojson
from mmearth_data.emulator.algorithms.projections import metres_per_unit
from mmearth_data.emulator.edges import DEGREES
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import known_crs
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import ErrorMargin, Geometry, Projection


def _placed(shape: BaseGeometry, crs: Projection | None, geodesic: bool | None) -> Geometry:
    """A shape whose coordinates are those of a projection, whose affine they pass through."""
    if crs is None:
        return Geometry(shape, DEGREES, geodesic is not False)
    code = geojson.crs_named(crs.crs)
    bends = geodesic is not False and known_crs(code).is_geographic
    if bends and code != DEGREES:
        raise ServiceError(f"Geometry: the emulator bends edges in EPSG:4326 only; got {code}.")
    a, b, c, d, e, f = crs.transform
    if (a, b, c, d, e, f) != _IDENTITY:
        shape = shapely.transform(shape, lambda xy: np.column_stack((xy @ (a, b) + c, xy @ (d, e) + f)))
    return Geometry(shape, code, bends)


_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _register_areal(name: str, build: Callable[[Any], BaseGeometry]) -> None:
    @algorithm(name)
    def handler(
        coordinates: list[Any], crs: Projection | None, geodesic: bool | None, maxError: Any, evenOdd: bool
    ) -> Geometry:
        """Polygons of coordinates in a projection; edges bend along great circles in degrees unless they are not to."""
        return _placed(build(coordinates), crs, geodesic)


_register_areal("GeometryConstructors.Polygon", geojson.polygon)
_register_areal("GeometryConstructors.MultiPolygon", geojson.multipolygon)


def _register_linear(name: str, build: Callable[[Any], BaseGeometry]) -> None:
    @algorithm(name)
    def handler(coordinates: list[Any], crs: Projection | None, geodesic: bool | None, maxError: Any) -> Geometry:
        """Lines of coordinates in a projection; edges bend along great circles in degrees unless they are not to."""
        return _placed(build(coordinates), crs, geodesic)


_register_linear("GeometryConstructors.LineString", geojson.line)
_register_linear("GeometryConstructors.MultiLineString", geojson.multiline)
_register_linear("GeometryConstructors.LinearRing", geojson.ring)


def _register_dots(name: str, build: Callable[[Any], BaseGeometry]) -> None:
    @algorithm(name)
    def handler(coordinates: list[Any], crs: Projection | None) -> Geometry:
        """Points of coordinates in a projection."""
        return _placed(build(coordinates), crs, False)


_register_dots("GeometryConstructors.Point", geojson.point)
_register_dots("GeometryConstructors.MultiPoint", geojson.multipoint)


@algorithm("GeometryConstructors.Rectangle")
def rectangle(coordinates: list[Any], crs: Projection | None, geodesic: bool | None, evenOdd: bool) -> Geometry:
    """A rectangle of two opposite corners."""
    return _placed(geojson.rectangle(coordinates), crs, geodesic)


@algorithm("GeometryConstructors.BBox")
def bounding_box(west: float, south: float, east: float, north: float) -> Geometry:
    """A rectangle in degrees, its edges along meridians and parallels; over the antimeridian it goes on past 180°."""
    if not (abs(west) <= 1e6 and abs(east) <= 1e6) or not -90 <= south <= north <= 90:
        raise ServiceError(f"GeometryConstructors.BBox: ({west}, {south}, {east}, {north}) is no box.")
    return Geometry(shapely.box(west, south, east if east >= west else east + 360, north))


@algorithm("GeometryConstructors.MultiGeometry")
def multi_geometry(
    geometries: list[Geometry], crs: Projection | None, geodesic: bool | None, maxError: Any
) -> Geometry:
    """Geometries together, in degrees."""
    if crs is not None:
        raise ServiceError("GeometryConstructors.MultiGeometry: the emulator does not implement the argument 'crs'.")
    return Geometry(shapely.GeometryCollection([part.degrees for part in geometries]))


@algorithm("Geometry.centroid")
def centroid(geometry: Geometry, maxError: ErrorMargin | None) -> Geometry:
    """The centroid, computed in the plane of the geometry's own CRS, in degrees."""
    if geometry.geodesic:
        return Geometry(shapely.centroid(geometry.degrees))
    return Geometry(Geometry(shapely.centroid(geometry.shape), geometry.crs).degrees)


@algorithm("Geometry.simplify")
def simplify(geometry: Geometry, maxError: ErrorMargin) -> Geometry:
    """The geometry with fewer vertices, nowhere further off than the error; metres in degrees are the equator's."""
    if maxError.unit not in ("meters", "projected"):
        raise ServiceError(f"Geometry.simplify: Unknown unit '{maxError.unit}' of the error margin.")
    margin = maxError.value
    if margin is None or not 0 <= margin < math.inf:
        raise ServiceError(f"Geometry.simplify: The error margin must be a number from 0; got {margin}.")
    units = margin if maxError.unit == "projected" else margin / metres_per_unit(geometry.crs)
    # GEOS drops the end of a ring after the rest, so that its tolerance may count twice.
    shape = shapely.simplify(geometry.shape, units / 2, preserve_topology=True)
    return replace(geometry, shape=shape)


@algorithm("Geometry.coordinates")
def coordinates(geometry: Geometry) -> Any:
    """The coordinates in degrees, nested as in GeoJSON; of several geometries, those of each."""
    return _coordinates(geojson.geojson(_shown(geometry)))


def _coordinates(shape: dict[str, Any]) -> Any:
    return [_coordinates(part) for part in shape["geometries"]] if "geometries" in shape else shape["coordinates"]


def _shown(geometry: Geometry) -> BaseGeometry:
    return geometry.shape if geometry.crs == DEGREES else geometry.degrees


@algorithm("Geometry.type")
def kind(geometry: Geometry) -> str:
    """What kind of geometry it is, as GeoJSON calls it."""
    return str(geometry.shape.geom_type)


@algorithm("Geometry.geometries")
def parts(geometry: Geometry) -> list[Geometry]:
    """The parts of a geometry, itself if it is one."""
    return [Geometry(part, geometry.crs, geometry.geodesic) for part in shapely.get_parts(geometry.shape)]


@algorithm("Geometry.projection")
def projection_of(geometry: Geometry) -> Projection:
    """The CRS in which the coordinates are."""
    return Projection(geometry.crs)


@algorithm("Geometry.geodesic", "Geometry.edgesAreGeodesics")
def geodesic_edges(geometry: Geometry) -> bool:
    """Whether edges run along great circles."""
    return geometry.geodesic


@algorithm("Geometry.isUnbounded")
def unbounded(geometry: Geometry) -> bool:
    """Whether the geometry has no edge: never here."""
    return False


@algorithm("Geometry.transform")
def transformed(geometry: Geometry, proj: Projection, maxError: Any, geodesic: bool | None) -> Geometry:
    """The geometry in another projection, whose affine is left out."""
    return _placed(geometry.within(geojson.crs_named(proj.crs)), replace(proj, transform=_IDENTITY), bool(geodesic))


@algorithm("ErrorMargin")
def error_margin(value: float | None, unit: str) -> ErrorMargin:
    """How far geometry may be off."""
    return ErrorMargin(value, unit)
