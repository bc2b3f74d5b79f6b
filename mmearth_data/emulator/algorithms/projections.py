"""Projections: a CRS with the affine of a pixel grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmearth_data.emulator import geojson
from mmearth_data.emulator.errors import ServiceError
from mmearth_data.emulator.frames import affine, known_crs
from mmearth_data.emulator.registry import algorithm
from mmearth_data.emulator.values import Projection

METRES_PER_DEGREE = 111_319.490_793_273_57
"""Of the equator: what a scale in metres is divided by in geographic CRS (WGS 84's semi-major axis · π / 180)."""


@algorithm("Projection")
def projection(crs: Any, transform: list[Any] | None) -> Projection:
    """A CRS with an affine, the identity by default."""
    code = crs.crs if isinstance(crs, Projection) else crs
    if not isinstance(code, str):
        raise ServiceError(f"Projection: 'crs' must be a code such as 'EPSG:4326'; got {crs!r}.")
    name = geojson.crs_named(code)
    if transform is None:
        return Projection(name, crs.transform) if isinstance(crs, Projection) else Projection(name)
    return Projection(name, affine(transform, "Projection"))


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


@algorithm("Projection.transform")
def transform_of(projection: Projection) -> str:
    """The affine in WKT's notation."""
    a, b, c, d, e, f = projection.transform
    rows = (("elt_0_0", a), ("elt_0_1", b), ("elt_0_2", c), ("elt_1_0", d), ("elt_1_1", e), ("elt_1_2", f))
    lines = "".join(f', \n  PARAMETER["{name}", {value}]' for name, value in rows)
    return f'PARAM_MT["Affine", \n  PARAMETER["num_row", 3], \n  PARAMETER["num_col", 3]{lines}]'


@algorithm("Projection.wkt")
def wkt(projection: Projection) -> str:
    """The CRS in WKT."""
    text: str = known_crs(projection.crs).to_wkt("WKT1_GDAL", pretty=True)
    return text


@algorithm("Projection.atScale")
def at_scale(projection: Projection, meters: float) -> Projection:
    """The projection with pixels of that many metres: its own unit pixels scaled."""
    if not 1e-6 < meters < 1e9:
        raise ServiceError(f"Projection.atScale: 'meters' must be positive; got {meters}.")
    factor = meters / nominal_scale(projection)
    return scaled(projection, factor, factor)


@algorithm("Projection.scale")
def scaled(projection: Projection, x: float, y: float) -> Projection:
    """The projection with pixels as many times as wide and high."""
    a, b, c, d, e, f = projection.transform
    return replace(projection, transform=affine([a * x, b * y, c, d * x, e * y, f], "Projection.scale"))


@algorithm("Projection.translate")
def translated(projection: Projection, x: float, y: float) -> Projection:
    """The projection with its origin moved by pixels."""
    a, b, c, d, e, f = projection.transform
    moved = [a, b, a * x + b * y + c, d, e, d * x + e * y + f]
    return replace(projection, transform=affine(moved, "Projection.translate"))
