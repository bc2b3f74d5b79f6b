"""What is done with shapes: buffers, measures, relations and set operations, of geometries and of features.

Without a projection, measures are metres on WGS 84, and buffers and distances are taken in an azimuthal equidistant
plane around the shape, which is exact along its middle and stretches by 0.2 % at 500 km from it. With a projection,
everything is planar in its CRS, in its units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator import geojson
from mmearth_data.emulator.collections import Element, single
from mmearth_data.emulator.edges import DEGREES, moved, split
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Feature, Geometry, Projection, shape_of

_ELLIPSOID = Geod(ellps="WGS84")
_FARTHEST = 10_000_000.0
"""Metres over which a plane around a place still means something."""
_QUADRANT_SEGMENTS = 32


def geometry_in(element: Element, where: str) -> Geometry:
    """A feature's geometry or an image's footprint; a 400 if it has none."""
    item = single(element, where)
    shape = item.geometry if isinstance(item, Feature) else Geometry(shape_of(item))
    if shape is None:
        raise ServiceError(f"{where}: the feature has no geometry.")
    return shape


def _plane_around(shape: BaseGeometry) -> str:
    """A CRS in metres, equidistant around the middle of a shape in degrees."""
    west, south, east, north = shape.bounds
    lat = min(max((south + north) / 2, -90), 90)
    return f"+proj=aeqd +lat_0={lat:.6f} +lon_0={(west + east) / 2:.6f} +datum=WGS84 +units=m"


def buffered(geometry: Geometry, distance: float, proj: Projection | None, where: str) -> Geometry:
    """Everything within a distance of the shape; a negative one shrinks it."""
    if not math.isfinite(distance):
        raise ServiceError(f"{where}: 'distance' must be finite; got {distance}.")
    if proj is not None:
        code = geojson.crs_named(proj.crs)
        return Geometry(shapely.buffer(geometry.within(code), distance, quad_segs=_QUADRANT_SEGMENTS), code)
    if abs(distance) > _FARTHEST:
        raise ServiceError(f"{where}: the emulator buffers by at most {_FARTHEST:.0f} m; got {distance}.")
    shape = geometry.degrees
    if shape.is_empty:
        return Geometry(shape)
    plane = _plane_around(shape)
    grown = shapely.buffer(moved(shape, DEGREES, plane), distance, quad_segs=_QUADRANT_SEGMENTS)
    return Geometry(moved(grown, plane, DEGREES))


def area(geometry: Geometry, proj: Projection | None) -> float:
    """The area: m² on the ellipsoid, or in the projection's units."""
    if proj is not None:
        return float(shapely.area(geometry.within(geojson.crs_named(proj.crs))))
    parts = [part for part in shapely.get_parts(_flat(split(geometry.degrees))) if part.geom_type == "Polygon"]
    return float(sum(abs(_ELLIPSOID.geometry_area_perimeter(shapely.orient_polygons(part))[0]) for part in parts))


def _flat(shape: BaseGeometry) -> BaseGeometry:
    """Overlapping parts counted once."""
    return shapely.union_all(shapely.get_parts(shape)) if shape.geom_type == "GeometryCollection" else shape


def _length(geometry: Geometry, proj: Projection | None, dimensions: int) -> float:
    shape = split(geometry.degrees) if proj is None else geometry.within(geojson.crs_named(proj.crs))
    parts = [part for part in shapely.get_parts(shape) if shapely.get_dimensions(part) == dimensions]
    if proj is not None:
        return float(sum(map(shapely.length, parts)))
    return float(sum(abs(_ELLIPSOID.geometry_length(part)) for part in parts))


def _planes(left: Geometry, right: Geometry, proj: Projection | None) -> tuple[BaseGeometry, BaseGeometry, str]:
    """Both shapes in one plane, and the plane's CRS."""
    if proj is None:
        return left.degrees, right.degrees, DEGREES
    code = geojson.crs_named(proj.crs)
    return left.within(code), right.within(code), code


def distance(left: Geometry, right: Geometry, proj: Projection | None, where: str) -> float:
    """The shortest way between two shapes; metres on the ellipsoid unless a projection is given."""
    first, second, _ = _planes(left, right, proj)
    if first.is_empty or second.is_empty:
        return math.inf
    if proj is not None:
        return float(shapely.distance(first, second))
    plane = _plane_around(shapely.GeometryCollection([first, second]))
    ends = shapely.shortest_line(moved(first, DEGREES, plane), moved(second, DEGREES, plane))
    (lon0, lat0), (lon1, lat1) = shapely.get_coordinates(moved_ends(ends, plane))
    return float(_ELLIPSOID.inv(lon0, lat0, lon1, lat1)[2])


def moved_ends(line: BaseGeometry, plane: str) -> BaseGeometry:
    """The two ends of a line in degrees."""
    return shapely.MultiPoint(
        [shapely.get_coordinates(moved(shapely.Point(end), plane, DEGREES))[0] for end in line.coords]
    )


def _sound(shape: BaseGeometry) -> BaseGeometry:
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape)


def _register_one(name: str, change: Callable[[Geometry, Projection | None], Any], gives_shape: bool) -> None:
    """An operation of one shape, for geometries and for features."""

    @algorithm(f"Geometry.{name}")
    def of_geometry(geometry: Geometry, maxError: Any, proj: Projection | None) -> Any:
        """Of one shape: measures on WGS 84, shapes planar in degrees, or both planar in a projection."""
        return change(geometry, proj)

    @algorithm(f"Feature.{name}")
    def of_feature(feature: Element, maxError: Any, proj: Projection | None) -> Any:
        """Of a feature's shape, the properties kept."""
        result = change(geometry_in(feature, f"Feature.{name}"), proj)
        return Feature(result, single(feature, name).properties) if gives_shape else result


def _shaped(operation: Callable[[BaseGeometry], BaseGeometry]) -> Callable[[Geometry, Projection | None], Geometry]:
    def change(geometry: Geometry, proj: Projection | None) -> Geometry:
        code = DEGREES if proj is None else geojson.crs_named(proj.crs)
        return Geometry(operation(geometry.within(code)), code)

    return change


_register_one("bounds", _shaped(shapely.envelope), gives_shape=True)
_register_one("convexHull", _shaped(shapely.convex_hull), gives_shape=True)
_register_one(
    "dissolve", _shaped(lambda shape: shapely.union_all(list(map(_sound, shapely.get_parts(shape))))), gives_shape=True
)
_register_one("area", area, gives_shape=False)
_register_one("length", lambda geometry, proj: _length(geometry, proj, 1), gives_shape=False)
_register_one("perimeter", lambda geometry, proj: _length(geometry, proj, 2), gives_shape=False)


@algorithm("Geometry.buffer")
def buffer(geometry: Geometry, distance: float, maxError: Any, proj: Projection | None) -> Geometry:
    """Everything within a distance of the geometry."""
    return buffered(geometry, distance, proj, "Geometry.buffer")


@algorithm("Feature.buffer")
def buffer_feature(feature: Element, distance: float, maxError: Any, proj: Projection | None) -> Feature:
    """The feature with its geometry buffered."""
    grown = buffered(geometry_in(feature, "Feature.buffer"), distance, proj, "Feature.buffer")
    return Feature(grown, single(feature, "Feature.buffer").properties)


@algorithm("Feature.centroid")
def centroid_feature(feature: Element, maxError: Any, proj: Projection | None) -> Feature:
    """The feature at the centroid of its geometry."""
    change = _shaped(shapely.centroid)
    return Feature(change(geometry_in(feature, "Feature.centroid"), proj), single(feature, "").properties)


@algorithm("Feature.setGeometry")
def set_geometry(feature: Element, geometry: Geometry | None) -> Element:
    """The feature with another geometry, or none."""
    item = single(feature, "Feature.setGeometry")
    if not isinstance(item, Feature):
        raise ServiceError("Feature.setGeometry: the element is not a feature.")
    return replace(item, geometry=geometry)


@algorithm("Feature.transform")
def transform_feature(feature: Element, proj: Projection, maxError: Any, geodesic: bool | None) -> Feature:
    """The feature with its geometry in another CRS."""
    code = geojson.crs_named(proj.crs)
    shape = geometry_in(feature, "Feature.transform").within(code)
    return Feature(Geometry(shape, code, bool(geodesic) and code == DEGREES), single(feature, "").properties)


def _register_two(name: str, operation: Callable[[BaseGeometry, BaseGeometry], Any], gives_shape: bool) -> None:
    """An operation of two shapes, for geometries and for features; features keep the left one's properties."""

    def both(left: Geometry, right: Geometry, proj: Projection | None) -> Any:
        first, second, code = _planes(left, right, proj)
        result = operation(_sound(first), _sound(second))
        return Geometry(result, code) if gives_shape else bool(result)

    @algorithm(f"Geometry.{name}")
    def of_geometries(left: Geometry, right: Geometry, maxError: Any, proj: Projection | None) -> Any:
        """Of two shapes, planar in degrees once edges are bent, or in a projection."""
        return both(left, right, proj)

    @algorithm(f"Feature.{name}")
    def of_features(left: Element, right: Element, maxError: Any, proj: Projection | None) -> Any:
        """Of the shapes of two features, the left one's properties kept."""
        where = f"Feature.{name}"
        result = both(geometry_in(left, where), geometry_in(right, where), proj)
        return Feature(result, single(left, where).properties) if gives_shape else result


for _name, _operation, _gives_shape in (
    ("union", shapely.union, True),
    ("intersection", shapely.intersection, True),
    ("difference", shapely.difference, True),
    ("symmetricDifference", shapely.symmetric_difference, True),
    ("intersects", shapely.intersects, False),
    ("disjoint", shapely.disjoint, False),
    ("contains", shapely.covers, False),
    ("containedIn", shapely.covered_by, False),
):
    _register_two(_name, _operation, _gives_shape)


@algorithm("Geometry.distance")
def distance_between(left: Geometry, right: Geometry, maxError: Any, proj: Projection | None, spherical: bool) -> float:
    """The shortest way between two geometries."""
    return distance(left, right, proj, "Geometry.distance")


@algorithm("Feature.distance")
def distance_of_features(
    left: Element, right: Element, maxError: Any, proj: Projection | None, spherical: bool
) -> float:
    """The shortest way between the geometries of two features."""
    where = "Feature.distance"
    return distance(geometry_in(left, where), geometry_in(right, where), proj, where)


@algorithm("Geometry.withinDistance")
def within_distance(left: Geometry, right: Geometry, distance: float, maxError: Any, proj: Projection | None) -> bool:
    """Whether two geometries come as near as that."""
    return _near(left, right, proj, distance)


def _near(left: Geometry, right: Geometry, proj: Projection | None, limit: float) -> bool:
    return distance(left, right, proj, "Geometry.withinDistance") <= limit
