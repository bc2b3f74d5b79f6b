"""Geometries, projections and features, against shapely and pyproj.

Two rectangles that overlap, on a projected plane, where areas and lengths are those of the plane: the service measures
in a projection when it is given one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ee
import pyproj
import shapely
from pyproj import Geod, Transformer

from tests.online.answers.case import CRS, LEFT, SIDE, TOP, Case, box, do, metres

A, B, FAR = (0, 0, 10, 6), (5, 2, 18, 10), (30, 0, 40, 6)
RIGHT_ANGLE = [metres(0, 0), metres(8, 0), metres(8, 6)]
DEGREES = [[10, 50], [12, 50], [12, 51]]
GEOD = Geod(ellps="WGS84")


def _plane(rectangle: tuple[float, float, float, float]) -> Any:
    """The rectangle in metres, as shapely has it."""
    left, top, right, bottom = rectangle
    return shapely.box(LEFT + SIDE * left, TOP - SIDE * bottom, LEFT + SIDE * right, TOP - SIDE * top)


def _ring(rectangle: tuple[float, float, float, float]) -> Any:
    return [[list(place) for place in _plane(rectangle).exterior.coords]]


def _line() -> Any:
    return ee.Geometry.LineString(RIGHT_ANGLE, CRS, False)


def _bare(rectangle: tuple[float, float, float, float]) -> Any:
    return box(*rectangle)


def _feature(rectangle: tuple[float, float, float, float]) -> Any:
    return ee.Feature(box(*rectangle), {"v": 4})


def _area(shape: Any) -> Any:
    return ee.Geometry(shape).area(0.1, CRS)


def _shape_of(result: Any, feature: bool) -> Any:
    return ee.Feature(result).geometry() if feature else result


def _measured(name: str, feature: bool) -> Any:
    """The area of what an algorithm of two rectangles makes."""
    make = _feature if feature else _bare
    return _area(_shape_of(do(name, make(A), make(B), 0.1, CRS), feature))


def _told(name: str, second: tuple[float, float, float, float], feature: bool) -> Any:
    make = _feature if feature else _bare
    return do(name, make(A), make(second), 0.1, CRS)


INNER = (1, 1, 3, 3)
MADE: dict[str, Callable[[Any, Any], Any]] = {
    "difference": shapely.difference, "intersection": shapely.intersection, "union": shapely.union,
    "symmetricDifference": shapely.symmetric_difference,
}  # fmt: skip
TOLD: dict[str, Callable[[Any, Any], Any]] = {
    "containedIn": shapely.within, "contains": shapely.contains, "disjoint": shapely.disjoint,
    "intersects": shapely.intersects, "distance": shapely.distance,
}  # fmt: skip


def _of_two() -> Iterator[Case]:
    for kind, feature in (("Geometry", False), ("Feature", True)):
        for name, made in MADE.items():
            full = f"{kind}.{name}"
            yield Case(full, partial(_measured, full, feature), made(_plane(A), _plane(B)).area, 1e-4)
        for name, told in TOLD.items():
            full = f"{kind}.{name}"
            for second in (B, INNER, FAR):
                answer = told(_plane(A), _plane(second))
                yield Case(full, partial(_told, full, second, feature), float(answer), 1e-4)


def _coordinates(shape: Any) -> Any:
    return ee.Geometry(shape).coordinates()


def _straight() -> Any:
    return ee.Geometry.LineString([[10, 50], [10, 50.5], [10, 51]])


def _overlapping() -> Any:
    return ee.Geometry.MultiPolygon([_ring(A), _ring(B)], CRS, False)


def _place() -> Any:
    return ee.Geometry.Point(metres(3, 3), CRS)


def _degrees(x: float, y: float) -> list[float]:
    return list(Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x, y))


LEGS = math.dist(RIGHT_ANGLE[0], RIGHT_ANGLE[1]) + math.dist(RIGHT_ANGLE[1], RIGHT_ANGLE[2])
TRIANGLE = shapely.Polygon(RIGHT_ANGLE)
ONE: dict[str, tuple[Callable[[], Any], tuple[Any, ...], Callable[[Any], Any] | None, Any, float]] = {
    "area": (partial(_bare, A), (0.1, CRS), None, _plane(A).area, 1e-6),
    "perimeter": (partial(_bare, A), (0.1, CRS), None, _plane(A).length, 1e-6),
    "length": (_line, (0.1, CRS), None, LEGS, 1e-6),
    "convexHull": (_line, (0.1, CRS), _area, TRIANGLE.area, 1e-4),
    "bounds": (_line, (0.1, CRS), _area, TRIANGLE.envelope.area, 1e-4),
    "buffer": (_place, (20, 0.01, CRS), _area, math.pi * 20.0**2, 0.02),
    "dissolve": (_overlapping, (0.1, CRS), _area, _plane(A).union(_plane(B)).area, 1e-4),
    "simplify": (_straight, (10,), _coordinates, [[10, 50], [10, 51]], 1e-6),
    "centroid": (partial(_bare, A), (0.1,), _coordinates, _degrees(*_plane(A).centroid.coords[0]), 1e-6),
    "transform": (_place, ("EPSG:4326", 0.1), _coordinates, _degrees(*metres(3, 3)), 1e-6),
}
"""By algorithm: the shape, the other arguments, what is asked of the result, and the answer."""


def _one(kind: str, name: str) -> Any:
    make, values, measure, _, _ = ONE[name]
    feature = kind == "Feature"
    result = do(f"{kind}.{name}", ee.Feature(make()) if feature else make(), *values)
    return result if measure is None else measure(_shape_of(result, feature))


CASES = [
    *_of_two(),
    *(
        Case(f"{kind}.{name}", partial(_one, kind, name), expected, relative)
        for kind in ("Geometry", "Feature")
        for name, (_, _, _, expected, relative) in ONE.items()
    ),
    Case("Geometry.withinDistance", lambda: do("Geometry.withinDistance", box(*A), box(*FAR), 150, 0.1, CRS), False),
    Case("Geometry.withinDistance", lambda: do("Geometry.withinDistance", box(*A), box(*FAR), 250, 0.1, CRS), True),
    Case(
        "Geometry.area",
        lambda: ee.Geometry.Polygon([DEGREES]).area(0.1),
        abs(GEOD.geometry_area_perimeter(shapely.Polygon(DEGREES))[0]),
        1e-2,
    ),
    Case("Geometry.coordinates", lambda: ee.Geometry.Point([12.5, -7.25]).coordinates(), [12.5, -7.25]),
    Case("Geometry.edgesAreGeodesics", lambda: do("Geometry.edgesAreGeodesics", box(*A)), False),
    Case("Geometry.geodesic", lambda: ee.Geometry.Polygon([DEGREES]).geodesic(), True),
    Case("Geometry.geometries", lambda: ee.Geometry.MultiPoint([[1, 2], [3, 4]]).geometries().size(), 2),
    Case("Geometry.isUnbounded", lambda: box(*A).isUnbounded(), False),
    Case("Geometry.projection", lambda: box(*A).projection().crs(), CRS),
    Case("Geometry.type", lambda: box(*A).type(), "Polygon"),
    Case("GeometryConstructors.BBox", lambda: ee.Geometry.BBox(ee.Number(1), 2, 4, 5).area(1, "EPSG:4326"), 9),
    Case(
        "GeometryConstructors.LineString",
        lambda: ee.Geometry.LineString([ee.Number(10), 50, 12, 51]).type(),
        "LineString",
    ),
    Case(
        "GeometryConstructors.LinearRing",
        lambda: do("GeometryConstructors.LinearRing", [[10, 50], [12, 50], [12, 51]]).type(),
        "LinearRing",
    ),
    Case(
        "GeometryConstructors.MultiGeometry",
        lambda: (
            do(
                "GeometryConstructors.MultiGeometry",
                [ee.Geometry.Point([1, 2]), ee.Geometry.LineString([[1, 2], [3, 4]])],
            )
            .geometries()
            .size()
        ),
        2,
    ),
    Case(
        "GeometryConstructors.MultiLineString",
        lambda: do("GeometryConstructors.MultiLineString", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]).geometries().size(),
        2,
    ),
    Case(
        "GeometryConstructors.MultiPoint",
        lambda: do("GeometryConstructors.MultiPoint", [[1, 2], [3, 4], [5, 6]]).geometries().size(),
        3,
    ),
    Case(
        "GeometryConstructors.MultiPolygon",
        lambda: _area(do("GeometryConstructors.MultiPolygon", [_ring(A), _ring(FAR)], CRS, False)),
        _plane(A).area + _plane(FAR).area,
        1e-4,
    ),
    Case("GeometryConstructors.Point", lambda: ee.Geometry.Point([ee.Number(3), 4]).coordinates(), [3, 4]),
    Case(
        "GeometryConstructors.Polygon",
        lambda: _area(do("GeometryConstructors.Polygon", [RIGHT_ANGLE], CRS, False)),
        shapely.Polygon(RIGHT_ANGLE).area,
        1e-4,
    ),
    Case(
        "GeometryConstructors.Rectangle",
        lambda: _area(do("GeometryConstructors.Rectangle", [metres(0, 6), metres(10, 0)], CRS, False)),
        _plane(A).area,
        1e-4,
    ),
    Case("ErrorMargin", lambda: box(*A).area(ee.ErrorMargin(ee.Number(1)), CRS), _plane(A).area),
    Case(
        "Projection",
        lambda: ee.Projection(CRS, [10, 0, 300, 0, -10, 700]),
        {"type": "Projection", "crs": CRS, "transform": [10, 0, 300, 0, -10, 700]},
    ),
    Case("Projection.atScale", lambda: ee.Projection(CRS).atScale(30).nominalScale(), 30),
    Case("Projection.crs", lambda: ee.Projection(CRS).crs(), CRS),
    Case("Projection.nominalScale", lambda: ee.Projection("EPSG:4326").nominalScale(), math.pi * GEOD.a / 180, 1e-3),
    Case("Projection.scale", lambda: ee.Projection(CRS, [10, 0, 300, 0, -10, 700]).scale(3, 3).nominalScale(), 30),
    Case(
        "Projection.transform",
        lambda: ee.String(ee.Projection(CRS, [10, 0, 300, 0, -10, 700]).transform()).match("300"),
        ["300"],
    ),
    Case(
        "Projection.translate",
        lambda: ee.Projection(CRS, [10, 0, 300, 0, -10, 700]).translate(2, 3),
        {"type": "Projection", "crs": CRS, "transform": [10, 0, 320, 0, -10, 670]},
    ),
    Case(
        "Projection.wkt",
        lambda: ee.String(ee.Projection(CRS).wkt()).index("UTM").gt(0),
        int("UTM" in pyproj.CRS(CRS).to_wkt()),
    ),
]
