"""Ground tracks of satellites with a repeat cycle: which swaths cross a place, where their edges lie, and when.

Circular orbits over a turning Earth in closed form. Near the tracks' highest latitude they are continued straight on,
which keeps swath edges simple where the real ones curl around the pole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from shapely import clip_by_rect
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon

from mmearth_data.emulator.world import frames

DAY_MS = 86_400_000
_STRAIGHT_FROM = 70.0
"""Latitude in degrees beyond which tracks are continued straight."""
KM_PER_DEGREE = 111.32

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class HalfPlane:
    """The points x, y (metres of one projection) with a·x + b·y ≤ c, where (a, b) is a unit vector."""

    a: float
    b: float
    c: float

    def depth(self, x: F64, y: F64) -> F64:
        """Metres inside the edge (negative outside)."""
        return self.c - self.a * x - self.b * y


@dataclass(frozen=True)
class Constellation:
    """Satellites that share one set of relative orbits.

    ``anchor`` is the time (ms) at which the satellite of phase 0 crosses the equator on relative orbit 1 of a cycle,
    at longitude ``node`` degrees, in the direction that is imaged (``ascending`` or not).
    """

    cycle_days: int
    orbits: int
    inclination: float
    swath_km: float
    anchor: int
    node: float
    ascending: bool

    @cached_property
    def per_orbit_ms(self) -> float:
        """Time from one relative orbit to the next."""
        return self.cycle_days * DAY_MS / self.orbits

    @cached_property
    def _turn(self) -> float:
        return 360.0 * self.cycle_days / self.orbits

    def _branch(self, lat: F64) -> tuple[F64, F64]:
        """Longitude east of the equator crossing and phase angle from it in degrees, at latitudes within bounds."""
        tilt = np.radians(self.inclination)
        u = np.arcsin(np.clip(np.sin(np.radians(lat)) / np.sin(tilt), -1.0, 1.0))
        east = np.degrees(np.arctan2(np.cos(tilt) * np.sin(u), np.cos(u)))
        phase = np.degrees(u)
        if not self.ascending:
            east, phase = -east, -phase
        return east - self._turn * phase / 360.0, phase

    def along(self, lat: F64) -> tuple[F64, F64]:
        """Longitude east of the equator crossing and phase angle from it in degrees, at any latitudes.

        Straight on beyond ``_STRAIGHT_FROM``.
        """
        inner = np.clip(lat, -_STRAIGHT_FROM, _STRAIGHT_FROM)
        east, phase = self._branch(inner)
        ahead = self._branch(inner - 0.01)
        behind = self._branch(inner + 0.01)
        rest = (lat - inner) / 0.02
        return east + (behind[0] - ahead[0]) * rest, phase + (behind[1] - ahead[1]) * rest

    def slant(self, lat: float) -> float:
        """Degrees of longitude that the track moves east per degree of latitude north."""
        return _slant(self, lat)

    def nodes(self) -> F64:
        """Longitude of the equator crossing of every relative orbit, in degrees, unwrapped."""
        return self.node - self._turn * np.arange(self.orbits, dtype=np.float64)

    def offsets(self, lon: float, lat: float) -> F64:
        """Degrees of longitude from each orbit's track to a point, in [−180, 180), shape (orbits,)."""
        track = self.nodes() + _at(self, lat)[0]
        return np.mod(lon - track + 180.0, 360.0) - 180.0

    def half_width(self, lat: float) -> float:
        """Half the swath in degrees of longitude at a latitude."""
        shrink = np.cos(np.radians(min(abs(lat), 84.0)))
        bearing = np.arctan(self.slant(lat) * shrink)
        return float(self.swath_km / 2 / (KM_PER_DEGREE * shrink * np.cos(bearing)))

    def crossing(self, orbit: int, lat: float) -> float:
        """Ms after the start of a cycle at which relative orbit ``orbit`` (0-based) passes a latitude."""
        return orbit * self.per_orbit_ms + _at(self, lat)[1] / 360.0 * self.per_orbit_ms

    def edges(self, orbit: int, lon: float, lat: float, epsg: int) -> tuple[HalfPlane, HalfPlane]:
        """The western and the eastern edge of an orbit's swath near a point, in a UTM projection."""
        span = np.array([lat - 0.6, lat + 0.6])
        track = self.nodes()[orbit] + np.array([_at(self, float(value))[0] for value in span])
        middle = lon - (np.mod(lon - track.mean() + 180.0, 360.0) - 180.0)
        track = track - track.mean() + middle
        half = np.array([self.half_width(float(value)) for value in span])
        planes = []
        for side in (-1.0, 1.0):
            x, y = frames.from_lonlat(epsg, track + side * half, span)
            along_x, along_y = x[1] - x[0], y[1] - y[0]
            length = float(np.hypot(along_x, along_y))
            a, b = side * along_y / length, -side * along_x / length
            planes.append(HalfPlane(float(a), float(b), float(a * x[0] + b * y[0])))
        return planes[0], planes[1]

    def visits(self, orbit: int, lat: float, phase_days: float, start: int, end: int) -> NDArray[np.int64]:
        """Numbers of the cycles in which an orbit passes a latitude in [start, end) ms."""
        first = self.anchor + self.crossing(orbit, lat) + phase_days * DAY_MS
        period = self.cycle_days * DAY_MS
        low, high = np.ceil((start - first) / period), np.ceil((end - first) / period)
        return np.arange(int(low), int(high), dtype=np.int64)

    def times(self, orbit: int, lat: float, phase_days: float, cycles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times in whole ms at which an orbit passes a latitude in the given cycles."""
        first = self.anchor + self.crossing(orbit, lat) + phase_days * DAY_MS
        result: NDArray[np.int64] = np.floor(first + cycles * float(self.cycle_days * DAY_MS)).astype(np.int64)
        return result


@lru_cache(maxsize=16384)
def _at(constellation: Constellation, lat: float) -> tuple[float, float]:
    """``along`` at one latitude."""
    east, phase = constellation.along(np.array([lat]))
    return float(east[0]), float(phase[0])


@lru_cache(maxsize=16384)
def _slant(constellation: Constellation, lat: float) -> float:
    east, _ = constellation.along(np.array([lat - 0.05, lat + 0.05]))
    return float((east[1] - east[0]) / 0.1)


def clip_polygon(corners: F64, planes: tuple[HalfPlane, ...]) -> F64:
    """A convex polygon (n, 2) cut by half planes; (0, 2) where nothing is left (Sutherland and Hodgman 1974)."""
    points = list(corners)
    for plane in planes:
        kept: list[F64] = []
        for here, there in zip(points, points[1:] + points[:1], strict=True):
            inside, next_inside = (float(plane.depth(p[0], p[1])) for p in (here, there))
            if inside >= 0.0:
                kept.append(here)
            if (inside >= 0.0) != (next_inside >= 0.0):
                kept.append(here + (there - here) * (inside / (inside - next_inside)))
        points = kept
        if not points:
            return np.empty((0, 2))
    return np.array(points)


def outline(epsg: int, corners: F64, per_edge: int = 8) -> Polygon:
    """A projected polygon (n, 2) in degrees, with points along its edges so that it follows them within metres.

    Over the antimeridian longitudes go on beyond ±180°; ``within_globe`` divides such a polygon.
    """
    steps = (np.arange(per_edge) / per_edge)[None, :, None]
    following = np.roll(corners, -1, axis=0)
    points = (corners[:, None, :] * (1.0 - steps) + following[:, None, :] * steps).reshape(-1, 2)
    lon, lat = frames.to_lonlat(epsg, points[:, 0], points[:, 1])
    middle = (epsg % 100) * 6.0 - 183.0
    lon = middle + (np.mod(lon - middle + 180.0, 360.0) - 180.0)
    return Polygon(np.stack([lon, lat], axis=1))


def within_globe(polygon: Polygon) -> Polygon | MultiPolygon:
    """The same ground with longitudes in [−180, 180], in two parts where it lies on both sides of the antimeridian."""
    west, _, east, _ = polygon.bounds
    if west >= -180.0 and east <= 180.0:
        return polygon
    shift = -360.0 if east > 180.0 else 360.0
    parts = [clip_by_rect(part, -180.0, -90.0, 180.0, 90.0) for part in (polygon, translate(polygon, shift))]
    kept = [part for part in parts if part.area > 0.0]
    return kept[0] if len(kept) == 1 else MultiPolygon(kept)


def boxes_touch(one: tuple[float, ...], other: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (west, south, east, north) in degrees touch; the first may reach beyond ±180°.

    The second crosses the antimeridian where its west exceeds its east.
    """
    west, south, east, north = other
    if east < west:
        east += 360.0
    if one[1] > north or one[3] < south:
        return False
    return any(one[0] <= east + turn and one[2] >= west + turn for turn in (-360.0, 0.0, 360.0))
