"""Sentinel-2's tiles: 109.8 km squares on the 100 km squares of the military grid, in each UTM zone's projection.

A square has a tile in every zone whose area it touches, so cells near a zone's edge are covered in the zone's own
projection. Source: NGA.STND.0037 for zones, bands and letters; Sentinel-2 Products Specification for tile corners.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import frames

SQUARE = 100_000
EXTENT = 109_800
BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMN_LETTERS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
_ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
_SOUTH, _NORTH = -57.0, 83.4
"""Latitudes of square centres between which land is imaged."""
FALSE_NORTHING = 10_000_000

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class MgrsTile:
    """One tile: name such as 32UPE, projection, upper-left corner in metres, centre in degrees."""

    name: str
    epsg: int
    left: int
    top: int
    lon: float
    lat: float


@dataclass(frozen=True)
class ZoneTiles:
    """The tiles of one zone and their bounds in degrees (west, south, east, north), shape (n, 4).

    Longitudes are continuous around the zone's meridian, so they may lie beyond ±180°.
    """

    tiles: tuple[MgrsTile, ...]
    bounds: F64


def zone_of(lon: F64, lat: F64) -> NDArray[np.int64]:
    """UTM zone of points in degrees with the exceptions around Norway (32V) and Svalbard (31X–37X)."""
    lon = np.mod(lon + 180.0, 360.0) - 180.0
    zone = np.minimum(np.floor((lon + 180.0) / 6.0).astype(np.int64) + 1, 60)
    zone = np.where((lat >= 56.0) & (lat < 64.0) & (lon >= 3.0) & (lon < 12.0), 32, zone)
    svalbard = (lat >= 72.0) & (lat < 84.0) & (lon >= 0.0) & (lon < 42.0)
    wide = 31 + 2 * np.searchsorted(np.array([9.0, 21.0, 33.0]), lon, side="right")
    return np.where(svalbard, wide, zone)


def _top(northing: int, south: bool) -> int:
    """The tile's upper edge: the first multiple of 60 m from the equator at or above the square's."""
    origin = FALSE_NORTHING if south else 0
    return origin - (origin - northing) // 60 * 60


def _name(zone: int, south: bool, column: int, row: int, lat: float) -> str:
    band = BAND_LETTERS[min(int((lat + 80.0) // 8), len(BAND_LETTERS) - 1)]
    northing = row - (FALSE_NORTHING // SQUARE if south else 0)
    shift = 5 if zone % 2 == 0 else 0
    return f"{zone:02d}{band}{_COLUMN_LETTERS[zone % 3][column - 1]}{_ROW_LETTERS[(northing + shift) % 20]}"


@cache
def _squares() -> tuple[NDArray[np.int64], NDArray[np.int64], F64, F64]:
    """Hemisphere and (column, row) of all squares, with longitudes from the central meridian and latitudes.

    Points of each square: 7 × 7 over the square for membership of a zone, then the 4 × 5 points along the tile's edge
    that give its bounds, then its centre. Every zone has the same squares, moved around the globe.
    """
    names, points_lon, points_lat = [], [], []
    ticks = np.linspace(0.0, SQUARE, 7)
    edge = np.linspace(0.0, EXTENT, 6)[:-1]
    for south in (0, 1):
        epsg = 32731 if south else 32631
        rows = np.arange(36, 100) if south else np.arange(0, 94)
        column, row = (grid.ravel() for grid in np.meshgrid(np.arange(1, 9), rows))
        left, bottom = column * float(SQUARE), row * float(SQUARE)
        inner_x, inner_y = (grid.ravel() for grid in np.meshgrid(ticks, ticks))
        low = np.full(5, float(SQUARE - EXTENT))
        high = np.full(5, float(SQUARE))
        rim_x = np.concatenate([edge, np.full(5, float(EXTENT)), EXTENT - edge, np.zeros(5)])
        rim_y = np.concatenate([low, SQUARE - EXTENT + edge, high, SQUARE - edge])
        x = left[:, None] + np.concatenate([inner_x, rim_x, [EXTENT / 2]])
        y = bottom[:, None] + np.concatenate([inner_y, rim_y, [SQUARE - EXTENT / 2]])
        lon, lat = frames.to_lonlat(epsg, x.ravel(), y.ravel())
        names.append(np.stack([np.full(len(row), south), column, row], axis=1))
        points_lon.append(lon.reshape(x.shape) - 3.0)
        points_lat.append(lat.reshape(x.shape))
    keys, lon, lat = (np.concatenate(parts) for parts in (names, points_lon, points_lat))
    reach = np.mod(lon + 180.0, 360.0) - 180.0
    near = (np.abs(reach[:, :49]) <= 9.5).any(axis=1)
    imaged = (lat[:, -1] > _SOUTH) & (lat[:, -1] < _NORTH)
    # A northern tile's lower rim may lie south of the equator and the other way round: both hemispheres keep it.
    keep = near & imaged
    return keys[keep, 0], keys[keep, 1:], reach[keep], lat[keep]


@cache
def zone_tiles(zone: int) -> ZoneTiles:
    """Every tile of a zone (1–60)."""
    south, square, east, lat = _squares()
    middle = zone * 6.0 - 183.0
    lon = middle + east
    member = (zone_of(lon[:, :49], lat[:, :49]) == zone).any(axis=1)
    tiles, bounds = [], []
    for index in np.nonzero(member)[0]:
        column, row = (int(value) for value in square[index])
        hemisphere = bool(south[index])
        centre_lon, centre_lat = float(lon[index, -1]), float(lat[index, -1])
        tiles.append(
            MgrsTile(
                name=_name(zone, hemisphere, column, row, float(lat[index, 24])),
                epsg=(32700 if hemisphere else 32600) + zone,
                left=column * SQUARE // 60 * 60,
                top=_top((row + 1) * SQUARE, hemisphere),
                lon=float(np.mod(centre_lon + 180.0, 360.0) - 180.0),
                lat=centre_lat,
            )
        )
        rim_lon, rim_lat = lon[index, 49:-1], lat[index, 49:-1]
        bounds.append([rim_lon.min() - 0.01, rim_lat.min() - 0.01, rim_lon.max() + 0.01, rim_lat.max() + 0.01])
    return ZoneTiles(tuple(tiles), np.array(bounds))


@cache
def _by_name(zone: int) -> dict[str, MgrsTile]:
    return {tile.name: tile for tile in zone_tiles(zone).tiles}


def tile(name: str) -> MgrsTile | None:
    """The tile called ``name`` (as 32UPE), or None."""
    match = re.fullmatch(r"(\d\d)[C-X][A-Z][A-V]", name)
    if match is None or not 1 <= int(match.group(1)) <= 60:
        return None
    return _by_name(int(match.group(1))).get(name)


@cache
def _reach() -> F64:
    """West and east bound of each zone's tiles, relative to nothing: shape (60, 2), degrees, continuous per zone."""
    return np.array(
        [[zone_tiles(zone).bounds[:, 0].min(), zone_tiles(zone).bounds[:, 2].max()] for zone in range(1, 61)]
    )


def tiles_touching(bounds: tuple[float, float, float, float]) -> list[MgrsTile]:
    """Tiles whose bounds touch (west, south, east, north) in degrees; west may exceed east across the antimeridian."""
    west, south, east, north = bounds
    if east < west:
        east += 360.0
    found: list[MgrsTile] = []
    limits = _reach()
    for turn in (-360.0, 0.0, 360.0):
        near = (limits[:, 0] <= east + turn) & (limits[:, 1] >= west + turn)
        for zone in np.nonzero(near)[0] + 1:
            candidates = zone_tiles(int(zone))
            box = candidates.bounds
            hit = (box[:, 0] <= east + turn) & (box[:, 2] >= west + turn) & (box[:, 1] <= north) & (box[:, 3] >= south)
            found.extend(candidates.tiles[index] for index in np.nonzero(hit)[0])
    return list({(t.epsg, t.left, t.top): t for t in found}.values())
