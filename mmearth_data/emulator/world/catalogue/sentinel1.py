"""Sentinel-1 GRD in the archive: slices of ascending and descending passes, with each region's own observation plan.

Sentinel-1A comes back every 12 days; Sentinel-1B halves that over Europe. Elsewhere a region is seen from both
directions, from one, or not at all. Land is acquired in VV and VH, polar ice in HH and HV.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world import frames, noise
from mmearth_data.emulator.world.catalogue import dates
from mmearth_data.emulator.world.catalogue.orbits import (
    DAY_MS,
    Constellation,
    HalfPlane,
    boxes_touch,
    outline,
    within_globe,
)
from mmearth_data.emulator.world.scenes import Pixels, RadarScene, Sky

ASSET_ID = "COPERNICUS/S1_GRD"
BEGIN, END = dates.ms(2016, 1, 1), dates.ms(2023, 1, 1)
_LAST = {"S1A": END, "S1B": dates.ms(2022, 1, 1)}
"""When each satellite ends here: 1B failed in the last days of 2021."""
_INCLINATION, _SWATH = 98.18, 250.0
DIRECTIONS: dict[str, Constellation] = {
    "ASCENDING": Constellation(12, 175, _INCLINATION, _SWATH, dates.ms(2019, 1, 1, 17, 40), 4.0, ascending=True),
    "DESCENDING": Constellation(12, 175, _INCLINATION, _SWATH, dates.ms(2019, 1, 1, 5, 52), 3.2, ascending=False),
}
_SATELLITES = (("S1A", 0.0), ("S1B", 6.0))
_SLICE = 1.5
"""Degrees of latitude that one product covers (about 25 s of flight)."""
_OVERLAP = 0.02
"""Degrees by which a slice reaches into its neighbours."""
_SLICES = np.arange(-40, 56)
_MIDDLES = np.asarray((_SLICES + 0.5) * _SLICE, dtype=np.float64)
_PHASES = {direction: constellation.along(_MIDDLES)[1] / 360.0 for direction, constellation in DIRECTIONS.items()}
"""The part of an orbit's time that has passed since the equator crossing at the middle of every slice."""
_EUROPE = (-15.0, 34.0, 45.0, 72.0)
_POLAR = 72.0
_LOST, _SINGLE = 0.03, 0.04
"""Shares of products that are missing, and that were acquired in one polarisation."""

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Slice:
    """The ground that a relative orbit's product covers every time; ``footprint`` is ``outline`` as published."""

    direction: str
    orbit: int
    number: int
    epsg: int
    lon: float
    lat: float
    edges: tuple[HalfPlane, ...]
    near: HalfPlane
    azimuth: float
    grid: NativeGrid
    outline: Polygon
    footprint: BaseGeometry


def _plane(start: tuple[float, float], end: tuple[float, float]) -> HalfPlane:
    """The half plane to the left of a directed line."""
    along = np.array(end) - np.array(start)
    a, b = along[1] / np.hypot(*along), -along[0] / np.hypot(*along)
    return HalfPlane(float(a), float(b), float(a * start[0] + b * start[1]))


@lru_cache(maxsize=16384)
def ground(direction: str, orbit: int, number: int) -> Slice:
    """The ground of slice ``number`` (latitude / 1.5°) of a relative orbit (0-based)."""
    constellation = DIRECTIONS[direction]
    low, high = number * _SLICE - _OVERLAP, (number + 1) * _SLICE + _OVERLAP
    lat = (low + high) / 2

    def track(at: float) -> float:
        return float(-constellation.offsets(0.0, at)[orbit])

    lon = track(lat)
    zone = min(int((lon + 180.0) % 360.0 // 6) + 1, 60)
    epsg = (32700 if lat < 0 else 32600) + zone
    near_lon = [lon + (track(at) - lon + 180.0) % 360.0 - 180.0 for at in (low, high)]
    half = [constellation.half_width(at) for at in (low, high)]
    corners_lon = np.array([near_lon[0] - half[0], near_lon[0] + half[0], near_lon[1] + half[1], near_lon[1] - half[1]])
    x, y = frames.from_lonlat(epsg, corners_lon, np.array([low, low, high, high]))
    corners = list(zip(x.tolist(), y.tolist(), strict=True))
    edges = tuple(_plane(corners[i], corners[(i + 1) % 4]) for i in range(4))
    near = edges[3] if direction == "ASCENDING" else edges[1]
    left, top = np.floor(x.min() / 10.0) * 10.0, np.ceil(y.max() / 10.0) * 10.0
    width, height = int(np.ceil((x.max() - left) / 10.0)), int(np.ceil((top - y.min()) / 10.0))
    shape = outline(epsg, np.array(corners), 16)
    return Slice(
        direction=direction,
        orbit=orbit,
        number=number,
        epsg=epsg,
        lon=float((lon + 180.0) % 360.0 - 180.0),
        lat=lat,
        edges=edges,
        near=near,
        # The antenna looks away from the near edge, at right angles to the flight.
        azimuth=float(np.degrees(np.arctan2(-near.a, -near.b)) % 360.0),
        grid=NativeGrid(f"EPSG:{epsg}", (10.0, 0.0, float(left), 0.0, -10.0, float(top)), (height, width)),
        outline=shape,
        footprint=within_globe(shape),
    )


class Sentinel1Collection:
    """COPERNICUS/S1_GRD."""

    id = ASSET_ID

    def __init__(self, seed: int, sky: Sky, pixels: Pixels) -> None:
        self._seed, self._sky, self._pixels = seed, sky, pixels
        self._usable = lru_cache(maxsize=16384)(self._has_land)
        self.plan = lru_cache(maxsize=16384)(self._plan)
        self._made = lru_cache(maxsize=8192)(self._image)

    def _has_land(self, direction: str, orbit: int, number: int) -> bool:
        return self._sky.imaged(*ground(direction, orbit, number).outline.bounds)

    def _plan(self, lon: float, lat: float) -> tuple[str, ...]:
        """The directions in which the place of a slice's centre is observed."""
        west, south, east, north = _EUROPE
        return tuple(DIRECTIONS) if west < lon < east and south < lat < north else self._sky.radar_passes(lon, lat)

    def _satellites(self, where: Slice) -> tuple[tuple[str, float], ...]:
        west, south, east, north = _EUROPE
        both = west < where.lon < east and south < where.lat < north
        return _SATELLITES if both else _SATELLITES[:1]

    def _slices(self, bounds: Bounds | None) -> Iterator[Slice]:
        west, south, east, north = (-180.0, -90.0, 180.0, 90.0) if bounds is None else bounds
        if east < west:
            east += 360.0
        middle, reach = (west + east) / 2, (east - west) / 2
        for direction, constellation in DIRECTIONS.items():
            low, high = np.floor((south - 0.6) / _SLICE), np.floor((north + 0.6) / _SLICE)
            for number in _SLICES[(low <= _SLICES) & (high >= _SLICES)]:
                lat = (number + 0.5) * _SLICE
                wide = (
                    constellation.half_width(float(lat)) + abs(constellation.slant(float(lat))) * _SLICE + reach + 1.0
                )
                for orbit in np.nonzero(np.abs(constellation.offsets(middle, float(lat))) <= wide)[0]:
                    where = ground(direction, int(orbit), int(number))
                    if direction not in self.plan(where.lon, where.lat):
                        continue
                    if boxes_touch(where.outline.bounds, (west, south, east, north)) and self._usable(
                        direction, int(orbit), int(number)
                    ):
                        yield where

    def query(self, bounds: Bounds | None, start: int | None, end: int | None) -> Iterable[ImageAsset]:
        """Images that may touch ``bounds`` in [start, end) ms, by system:index."""
        low, high = max(start or BEGIN, BEGIN), min(END if end is None else end, END)
        found = []
        for where in self._slices(bounds) if low < high else ():
            constellation = DIRECTIONS[where.direction]
            for name, phase in self._satellites(where):
                cycles = constellation.visits(where.orbit, where.lat, phase, low, min(high, _LAST[name]))
                for time in constellation.times(where.orbit, where.lat, phase, cycles).tolist():
                    image = self._made(where, name, time)
                    if image is not None:
                        found.append(image)
        return sorted(found, key=lambda image: image.id)

    def image(self, index: str) -> ImageAsset | None:
        """The image with this system:index, or None."""
        match = re.fullmatch(
            r"(S1[AB])_IW_GRDH_1S[SD][VH]_(\d{8}T\d{6})_\d{8}T\d{6}_\d{6}_[0-9A-F]{6}_[0-9A-F]{4}", index
        )
        time = dates.parse(match.group(2)) if match else None
        if match is None or time is None:
            return None
        phase = dict(_SATELLITES)[match.group(1)]
        for direction, constellation in DIRECTIONS.items():
            since = (time + 500 - constellation.anchor - phase * DAY_MS) / constellation.per_orbit_ms
            for absolute in (int(np.floor(since)), int(np.ceil(since))):
                orbit = absolute % constellation.orbits
                cycle = constellation.anchor + phase * DAY_MS + (absolute - orbit) * constellation.per_orbit_ms
                moments = cycle + (orbit + _PHASES[direction]) * constellation.per_orbit_ms
                for number in _SLICES[np.abs(moments - time) <= 2000].tolist():
                    where = ground(direction, orbit, number)
                    names = [name for name, _ in self._satellites(where)]
                    if match.group(1) not in names or direction not in self.plan(where.lon, where.lat):
                        continue
                    cycles = constellation.visits(orbit, where.lat, phase, time - 5000, time + 5000)
                    for exact in constellation.times(orbit, where.lat, phase, cycles).tolist():
                        image = self._made(where, match.group(1), exact)
                        if image is not None and image.id.endswith(index) and self._usable(direction, orbit, number):
                            return image if BEGIN <= exact < _LAST[match.group(1)] else None
        return None

    def _image(self, where: Slice, satellite: str, time: int) -> ImageAsset | None:
        key = noise.salt(self._seed, "radar", where.direction, where.orbit, where.number, satellite, time)
        if key % 1000 < _LOST * 1000:
            return None
        polar = abs(where.lat) > _POLAR or self._sky.cold(where.lon, where.lat)
        bands: tuple[str, ...] = ("HH", "HV") if polar else ("VV", "VH")
        if key // 1000 % 1000 < _SINGLE * 1000:
            bands = bands[:1]
        mode = f"1S{'D' if len(bands) == 2 else 'S'}{'H' if polar else 'V'}"
        constellation = DIRECTIONS[where.direction]
        absolute = int((time - dates.ms(2014, 4, 3)) / constellation.per_orbit_ms)
        index = (
            f"{satellite}_IW_GRDH_{mode}_{dates.stamp(time)}_{dates.stamp(time + 25_000)}_{absolute:06d}_"
            f"{key >> 8:06X}_{key & 0xFFFF:04X}"
        )
        scene = RadarScene(
            key=key,
            month=dates.month_of(time),
            year=dates.year_of(time),
            ascending=where.direction == "ASCENDING",
            near=where.near,
            looks_azimuth=where.azimuth,
            edges=where.edges,
        )
        return ImageAsset(
            f"{ASSET_ID}/{index}",
            tuple(
                BandAsset(name, "float64", where.grid, self._pixels.radar(scene, name, where.grid)) for name in bands
            ),
            {
                "system:index": index,
                "system:time_start": time,
                "system:time_end": time + 25_000,
                "instrumentMode": "IW",
                "orbitProperties_pass": where.direction,
                "transmitterReceiverPolarisation": list(bands),
                "relativeOrbitNumber_start": where.orbit + 1,
                "orbitNumber_start": absolute,
                "platform_number": satellite[-1],
                "resolution_meters": 10,
                "productType": "GRD",
            },
            where.footprint,
        )
