"""Countries of the planet: its land divided among invented states, in the regions that the service knows.

The asset's properties and regions are those of USDOS/LSIB_SIMPLE/2017 (the Earth Engine catalogue's page of it); the
states are this world's own, and their names say so. A state belongs to one region whole, by where its capital lies,
so that continents lie about where they lie in reality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.partitions import outlines, spread
from mmearth_data.emulator.world.planet import COLUMNS, LATITUDE, LONGITUDE, ROWS, BoolArray, field

ASSET_ID = "USDOS/LSIB_SIMPLE/2017"
COUNT = 64
_SYLLABLES = ("bar", "do", "fen", "gu", "ka", "lo", "mir", "nau", "or", "pel", "que", "ril", "sha", "tov", "ul", "zem")


def region_at(lon: float, lat: float) -> str:
    """The region (``wld_rgn``) of a place in degrees."""
    if lat < -60.0:
        return "Antarctica"
    if -172.0 < lon < -25.0:
        return "North America" if lat >= 24.0 else _tropics(lon, lat)
    if lon < -172.0 or (lat < -9.0 and lon > 62.0):
        return "Oceania" if lon < -172.0 or lon > 155.0 else "Australia"
    if lat < 36.0 if lon < 42.0 else lat < 12.0 and lon < 62.0:
        return "Africa"
    if lon < 42.0:
        return "Europe"
    return _asian(lon, lat)


def _tropics(lon: float, lat: float) -> str:
    if lat < 9.0:
        return "South America"
    return "Caribbean" if lon > -76.0 else "Central America"


def _asian(lon: float, lat: float) -> str:
    if lat >= 50.0:
        return "N Asia"
    if lat >= 36.0:
        return "Central Asia" if lon < 85.0 else "E Asia"
    if lon < 62.0:
        return "SW Asia"
    if lon < 92.0:
        return "S Asia"
    return "E Asia" if lat >= 22.0 else "SE Asia"


def _name(seed: int, number: int) -> str:
    """A name that nobody takes for a real one; the number keeps it apart from all others."""
    key = noise.salt(seed, "country", number)
    syllables = [_SYLLABLES[key >> (4 * place) & 15] for place in range(2 + key % 2)]
    return f"{''.join(syllables).capitalize()}ia {number + 1} (invented)"


def partition(seed: int, land: BoolArray) -> tuple[NDArray[np.int16], list[str]]:
    """The country of every box (−1 at sea), shape (rows, columns), and the region of each country."""
    lon, lat = np.meshgrid(LONGITUDE, LATITUDE)
    rows, columns = np.nonzero(land)
    wander = np.stack([field(seed, f"frontiers {axis}", (0.15, 0.06), (1.0, 0.5)) for axis in "xyz"], axis=-1)
    sphere = noise.sphere(lon, lat).reshape(ROWS, COLUMNS, 3)
    points = sphere[rows, columns] + 0.03 * wander[rows, columns]
    capitals = spread(points, COUNT, noise.salt(seed, "capital") % len(rows))
    nearest = np.full(len(rows), np.inf)
    owner = np.zeros(len(rows), dtype=np.int16)
    for number, capital in enumerate(capitals):
        distance = np.sum((points - points[capital]) ** 2, axis=1)
        owner[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    result = np.full(land.shape, -1, dtype=np.int16)
    result[rows, columns] = owner
    places = zip(LONGITUDE[columns[capitals]], LATITUDE[rows[capitals]], strict=True)
    return result, [region_at(float(x), float(y)) for x, y in places]


def asset(seed: int, land: BoolArray) -> FeatureAsset:
    """The feature table of a planet's countries: a valid (multi)polygon of boxes each, with the service's columns."""
    parts, regions = partition(seed, land)
    return FeatureAsset(
        ASSET_ID,
        tuple(
            (
                geometry,
                {
                    "abbreviati": f"Inv. {number + 1}",
                    "country_co": f"{number + 1:02d}",
                    "country_na": _name(seed, number),
                    "wld_rgn": regions[number],
                },
            )
            for number, geometry in outlines(parts)
        ),
    )
