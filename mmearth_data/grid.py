"""The tile grid: square UTM cells on Sentinel-2's pixel grid, and the int64 ids that name them.

A cell of n pixels is 10·n metres wide. Columns and rows count from (0, 0) of each zone and hemisphere, so that
upper-left corners are multiples of the cell size and lie on the 10 m and 20 m pixels of Sentinel-2 products (60 m
bands are interpolated onto it). A cell is eligible if its whole footprint lies in its own zone (with the MGRS
exceptions 32V and 31X–37X), its own hemisphere and Sentinel-2's coverage; eligible cells are therefore disjoint.

Source of the zone rules: NGA.STND.0037 (MGRS); of the coverage: Sentinel-2 User Handbook, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

PIXEL_METRES = 10
TILE_PIXELS = 128
SOUTHERN_LIMIT, NORTHERN_LIMIT = -56.0, 82.8
FALSE_NORTHING = 10_000_000
_EDGE_MARGIN_METRES = 1.0
"""A cell this close to its zone's border is left out."""
_EDGE_STEP_METRES = 320
"""Borders are looked at every so often along an edge; meridians and parallels bow by under 5 cm in between."""

_SIZE_SHIFT, _ZONE_SHIFT, _SOUTH_SHIFT, _COLUMN_SHIFT = 39, 33, 32, 16

FloatArray = npt.NDArray[np.float64]
IdArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """Decoded cells as equally long arrays: zone 1–60, south, column, row, and the tile's width in pixels."""

    zone: npt.NDArray[np.int64]
    south: BoolArray
    column: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.int64]

    @property
    def size(self) -> npt.NDArray[np.int64]:
        """Edge length in metres."""
        return self.pixels * PIXEL_METRES

    @property
    def epsg(self) -> npt.NDArray[np.int64]:
        """EPSG code of each cell's UTM zone."""
        return np.where(self.south, 32700, 32600) + self.zone

    @property
    def x0(self) -> npt.NDArray[np.int64]:
        """Easting of the upper-left (western) corner, metres."""
        return self.column * self.size

    @property
    def y0(self) -> npt.NDArray[np.int64]:
        """Northing of the upper-left (northern) corner, metres."""
        return (self.row + 1) * self.size


@cache
def _transformer(epsg: int, inverse: bool) -> Transformer:
    source, target = (f"EPSG:{epsg}", "EPSG:4326") if inverse else ("EPSG:4326", f"EPSG:{epsg}")
    return Transformer.from_crs(source, target, always_xy=True)


def _by_epsg(
    epsg: npt.NDArray[np.int64], x: FloatArray, y: FloatArray, *, inverse: bool
) -> tuple[FloatArray, FloatArray]:
    """Transform points zone by zone; x and y are broadcast against ``epsg`` on the first axis."""
    out_x, out_y = np.empty_like(x), np.empty_like(y)
    order = np.argsort(epsg, kind="stable")
    codes, starts = np.unique(epsg[order], return_index=True)
    for code, members in zip(codes, np.split(order, starts)[1:], strict=True):
        out_x[members], out_y[members] = _transformer(int(code), inverse).transform(x[members], y[members])
    return out_x, out_y


def zone_of(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """UTM zone 1–60 of points in degrees, with the MGRS exceptions around Norway (32V) and Svalbard (31X–37X)."""
    lon_, lat_ = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    wrapped = (lon_ + 180.0) % 360.0 - 180.0
    zone = np.floor((wrapped + 180.0) / 6.0).astype(np.int64) + 1
    norway = (lat_ >= 56.0) & (lat_ < 64.0) & (wrapped >= 3.0) & (wrapped < 12.0)
    zone = np.where(norway, 32, zone)
    svalbard = (lat_ >= 72.0) & (lat_ < 84.0) & (wrapped >= 0.0) & (wrapped < 42.0)
    by_column = np.select([wrapped < 9.0, wrapped < 21.0, wrapped < 33.0], [31, 33, 35], default=37)
    return np.where(svalbard, by_column, zone)


def encode(cells: Cells) -> IdArray:
    """The int64 id of each cell: pixels, zone, hemisphere, column and row in fixed bit fields."""
    packed = (
        (cells.pixels << _SIZE_SHIFT)
        | (cells.zone << _ZONE_SHIFT)
        | (cells.south.astype(np.int64) << _SOUTH_SHIFT)
        | (cells.column << _COLUMN_SHIFT)
        | cells.row
    )
    return packed.astype(np.int64)


def decode(location_id: npt.ArrayLike) -> Cells:
    """The cells that ids name; raises ValueError for an id that names no cell."""
    ids = np.atleast_1d(np.asarray(location_id, dtype=np.int64))
    cells = Cells(
        zone=(ids >> _ZONE_SHIFT) & 0x3F,
        south=((ids >> _SOUTH_SHIFT) & 1).astype(np.bool_),
        column=(ids >> _COLUMN_SHIFT) & 0xFFFF,
        row=ids & 0xFFFF,
        pixels=ids >> _SIZE_SHIFT,
    )
    wrong = (cells.zone < 1) | (cells.zone > 60) | (cells.pixels < 16) | (cells.pixels > 4096)
    if wrong.any():
        raise ValueError(f"{int(ids[wrong][0])} is not a location id: its zone or tile size is out of range")
    return cells


def cells_at(lon: npt.ArrayLike, lat: npt.ArrayLike, pixels: int = TILE_PIXELS) -> IdArray:
    """Ids of the cells that contain points in degrees, shape (n,); eligibility is not checked here."""
    lon_ = np.atleast_1d(np.asarray(lon, dtype=np.float64))
    lat_ = np.atleast_1d(np.asarray(lat, dtype=np.float64))
    zone, south = zone_of(lon_, lat_), lat_ < 0
    x, y = _by_epsg(np.where(south, 32700, 32600) + zone, lon_, lat_, inverse=False)
    size = pixels * PIXEL_METRES
    return encode(
        Cells(
            zone=zone,
            south=south,
            column=np.floor(x / size).astype(np.int64),
            row=np.floor(y / size).astype(np.int64),
            pixels=np.full(zone.shape, pixels, dtype=np.int64),
        )
    )


def centres(location_id: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Longitude and latitude in degrees of cell centres, each of shape (n,)."""
    cells = decode(location_id)
    return _by_epsg(cells.epsg, cells.x0 + cells.size / 2, cells.y0 - cells.size / 2, inverse=True)


def footprints(location_id: npt.ArrayLike, per_edge: int = 1, margin: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """Longitude and latitude of points along each cell's border, each of shape (n, 4·per_edge).

    Counter-clockwise from the lower-left corner; ``per_edge`` points an edge, grown outwards by ``margin`` metres.
    """
    cells = decode(location_id)
    t = np.arange(per_edge) / per_edge
    unit_x = np.concatenate([t, np.ones(per_edge), 1 - t, np.zeros(per_edge)])
    unit_y = np.concatenate([np.zeros(per_edge), t, np.ones(per_edge), 1 - t])
    size = (cells.size + 2 * margin)[:, None]
    x = cells.x0[:, None] - margin + unit_x * size
    y = (cells.y0 - cells.size)[:, None] - margin + unit_y * size
    return _by_epsg(cells.epsg, x.astype(np.float64), y.astype(np.float64), inverse=True)


def eligible(location_id: npt.ArrayLike) -> BoolArray:
    """Whether each cell's whole footprint lies in its own zone, hemisphere and Sentinel-2's coverage, shape (n,)."""
    cells = decode(location_id)
    per_edge = int(np.ceil(cells.size.max(initial=0) / _EDGE_STEP_METRES))
    lon, lat = footprints(location_id, per_edge=max(per_edge, 1), margin=_EDGE_MARGIN_METRES)
    in_zone = (zone_of(lon, lat) == cells.zone[:, None]).all(axis=1)
    covered = (lat.min(axis=1) >= SOUTHERN_LIMIT) & (lat.max(axis=1) <= NORTHERN_LIMIT)
    in_hemisphere = np.where(cells.south, cells.y0 <= FALSE_NORTHING, True)
    result: BoolArray = in_zone & covered & in_hemisphere
    return result


def pixel_transform(location_id: int) -> tuple[float, float, float, float, float, float]:
    """Affine coefficients (a, b, c, d, e, f) of a cell's pixel grid: x = a·col + b·row + c, y = d·col + e·row + f."""
    cells = decode(location_id)
    return (float(PIXEL_METRES), 0.0, float(cells.x0[0]), 0.0, -float(PIXEL_METRES), float(cells.y0[0]))
