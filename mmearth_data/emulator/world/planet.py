"""The planet at half a degree: continents, heights and climate, from which biomes and all detail follow.

Arrays have shape (360, 720); row 0 touches the South Pole, column 0 begins at the antimeridian. They are the world's
only stored rasters; finer things are computed where they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.compiled import compiled

BOX = 0.5
ROWS, COLUMNS = 360, 720
LATITUDE = (np.arange(ROWS) + 0.5) * BOX - 90.0
LONGITUDE = (np.arange(COLUMNS) + 0.5) * BOX - 180.0

F64 = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Planet:
    """Coarse fields of one seed. Heights in metres, temperatures in °C, precipitation in metres a year.

    ``shore`` is positive on land and negative at sea (about metres near the coast), ``ruggedness`` is 0 in plains and
    1 in high mountains, ``swing`` is half the difference of the warmest and the coldest month, ``summer_rain`` is −1
    where it rains in winter alone and 1 where it rains in summer alone.
    """

    seed: int
    shore: F64
    height: F64
    ruggedness: F64
    temperature: F64
    swing: F64
    rain: F64
    summer_rain: F64

    @property
    def land(self) -> BoolArray:
        """Boxes that count as land."""
        return self.shore > 0.0


def box_of(lon: F64, lat: F64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the half-degree box that contains each point in degrees."""
    row = np.floor((lat + 90.0) / BOX).astype(np.int64)
    column = np.floor(np.mod(lon + 180.0, 360.0) / BOX).astype(np.int64)
    return np.clip(row, 0, ROWS - 1), np.minimum(column, COLUMNS - 1)


@compiled
def _between(field: F64, lon: F64, lat: F64) -> F64:
    out = np.empty(lon.shape[0], dtype=np.float64)
    for n in range(lon.shape[0]):
        y = min(max((lat[n] + 90.0) / BOX - 0.5, 0.0), ROWS - 1.000001)
        x = (lon[n] + 180.0) % 360.0 / BOX - 0.5
        i, j = int(np.floor(y)), int(np.floor(x))
        s, t = y - i, x - j
        left, right = j % COLUMNS, (j + 1) % COLUMNS
        low = field[i, left] * (1.0 - t) + field[i, right] * t
        high = field[i + 1, left] * (1.0 - t) + field[i + 1, right] * t
        out[n] = low * (1.0 - s) + high * s
    return out


def between(field: F64, lon: F64, lat: F64) -> F64:
    """A coarse field at points in degrees, bilinear between the centres of boxes."""
    return _between(field, lon.ravel(), lat.ravel()).reshape(lon.shape)


def _blur(field: F64, radius: int) -> F64:
    """A box mean that wraps around in longitude and stops at the poles, applied twice."""
    for _ in range(2):
        for axis, mode in ((0, "edge"), (1, "wrap")):
            pad = [(0, 0), (0, 0)]
            pad[axis] = (radius, radius)
            padded = np.pad(field, pad, mode=mode)  # type: ignore[call-overload]
            sums = np.cumsum(np.insert(padded, 0, 0.0, axis=axis), axis=axis)
            width = 2 * radius + 1
            count = field.shape[axis]
            upper = np.take(sums, np.arange(width, width + count), axis=axis)
            field = (upper - np.take(sums, np.arange(count), axis=axis)) / width
    return field


def _ridge(values: F64) -> F64:
    """Noise turned into narrow crests between 0 and 1."""
    return np.clip(1.0 - np.abs(values) / 0.9, 0.0, 1.0) ** 1.5


def _sea_level(rough: F64) -> F64:
    """The level below which ``rough`` is sea at each latitude: every climate belt has land, whatever the seed."""
    share = np.interp(np.abs(LATITUDE), [0, 45, 56, 70, 80, 90], [0.36, 0.36, 0.40, 0.46, 0.30, 0.15])
    share = np.where(LATITUDE < -52.0, np.interp(-LATITUDE, [52, 60, 66, 90], [0.28, 0.02, 0.85, 1.0]), share)
    weights = np.cos(np.radians(LATITUDE))
    level = np.empty(ROWS)
    for row in range(ROWS):
        low, high = max(0, row - 24), min(ROWS, row + 25)
        band = rough[low:high]
        order = np.argsort(band, axis=None)
        mass = np.cumsum(np.repeat(weights[low:high], COLUMNS)[order])
        level[row] = band.flat[order[min(np.searchsorted(mass, (1.0 - share[row]) * mass[-1]), len(order) - 1)]]
    return level[:, None]


def _rain(lat: F64, shore: F64, height: F64, wind: F64, uplift: F64) -> F64:
    """Annual precipitation in metres: the belts of the general circulation, bent by wind, sea and mountains."""
    belts = np.interp(
        np.abs(lat), [0, 6, 14, 21, 29, 38, 48, 58, 68, 90], [2.3, 2.1, 1.35, 0.75, 0.45, 0.62, 0.85, 0.68, 0.36, 0.16]
    )
    sea = np.clip(1.25 - np.clip(shore, 0, 3000) / 2600.0, 0.45, 1.25)
    return np.clip(belts * sea * np.exp(0.60 * wind) * (1.0 + 0.6 * uplift) * (1.0 - height / 12000.0), 0.01, 5.0)


_LON, _LAT = np.meshgrid(LONGITUDE, LATITUDE)
_STRIDE = 3
_BROAD = 0.06
"""Wavelengths (in Earth radii) from here on are smooth enough to be computed at every third box in each direction."""


def _layer(key: int, wavelength: float) -> F64:
    """One octave of noise in space over all boxes."""
    if wavelength < _BROAD:
        return noise.space(key, noise.sphere(_LON, _LAT), (wavelength,)).reshape(ROWS, COLUMNS)
    half = _STRIDE // 2
    lon, lat = _LON[half::_STRIDE, half::_STRIDE], _LAT[half::_STRIDE, half::_STRIDE]
    coarse = noise.space(key, noise.sphere(lon, lat), (wavelength,)).reshape(lon.shape)
    y = np.clip((np.arange(ROWS) - half) / _STRIDE, 0.0, coarse.shape[0] - 1.000001)
    x = (np.arange(COLUMNS) - half) / _STRIDE
    i, j = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down = coarse[i] * (1.0 - (y - i))[:, None] + coarse[i + 1] * (y - i)[:, None]
    width = coarse.shape[1]
    result: F64 = down[:, j % width] * (1.0 - (x - j)) + down[:, (j + 1) % width] * (x - j)
    return result


def field(seed: int, name: str, wavelengths: tuple[float, ...], weights: tuple[float, ...]) -> F64:
    """Named noise of unit variance over all boxes; wavelengths are in Earth radii."""
    layers = sum(
        weight * _layer(noise.salt(seed, "planet", name, number), wavelength)
        for number, (wavelength, weight) in enumerate(zip(wavelengths, weights, strict=True))
    )
    result: F64 = np.asarray(layers) / np.sqrt(np.sum(np.square(weights)))
    return result


def make(seed: int) -> Planet:
    """The planet of a seed."""
    lat = _LAT
    rough = field(seed, "continents", (0.8, 0.45, 0.26, 0.13, 0.06, 0.03), (1.0, 0.8, 0.42, 0.2, 0.12, 0.07))
    shore = (rough - _sea_level(rough)) * 2000.0
    inland = np.clip(_blur((shore > 0).astype(np.float64), 7) * 2.0 - 0.7, 0.0, 1.0)
    belts = _ridge(field(seed, "belts", (0.5, 0.24), (1.0, 0.5)))
    mask = np.clip(field(seed, "orogeny", (0.5, 0.25), (1.0, 0.5)) * 0.8 + 0.5, 0.0, 1.0)
    crests = 0.55 + 0.45 * _ridge(field(seed, "crests", (0.16, 0.07), (1.0, 0.6)))
    rise = np.clip(shore / 260.0, 0.0, 1.0)
    mountains = belts * mask * crests * rise
    # Whatever the seed, some three per cent of the land reaches high mountains.
    mountains = np.clip(mountains * 0.62 / np.quantile(mountains[shore > 0], 0.97), 0.0, 1.15)
    plateau = np.clip(field(seed, "plateaus", (0.5, 0.2), (1.0, 0.3)) - 0.5, 0.0, 1.6) * np.clip(
        shore / 900.0, 0.0, 1.0
    )
    height = np.where(shore > 0, 12.0 + 0.16 * shore + 4300.0 * mountains + 750.0 * plateau, shore * 0.8)
    ruggedness = np.clip(mountains * 1.7 + 0.10 * plateau, 0.0, 1.0)

    sine = np.abs(np.sin(np.radians(lat)))
    above = np.maximum(height, 0.0)
    temperature = 27.5 - 40.0 * sine**2.4 - 5.8e-3 * above + 2.6 * field(seed, "warmth", (0.5, 0.2), (1.0, 0.5))
    temperature -= np.where(lat < -60.0, 16.0, 0.0)
    swing = (1.2 + 15.0 * sine**1.4) * (0.55 + 0.75 * inland)
    wind = field(seed, "wind", (0.6, 0.28, 0.13), (1.0, 0.7, 0.4))
    rain = _rain(lat, shore, above, wind, np.clip(mountains * field(seed, "uplift", (0.3,), (1.0,)), -0.6, 1.0))
    monsoon = np.interp(
        np.abs(lat), [0, 5, 12, 22, 30, 34, 42, 48, 60, 90], [0, 0.2, 0.85, 0.8, 0.1, -0.45, -0.4, 0.1, 0.35, 0.4]
    )
    summer_rain = np.clip(monsoon + 0.35 * field(seed, "season", (0.4, 0.2), (1.0, 0.5)), -1.0, 1.0)
    return Planet(seed, shore, height, ruggedness, temperature, swing, rain, summer_rain)
