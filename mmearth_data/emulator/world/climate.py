"""Month by month climate at any point: temperature and precipitation, with the anomalies of single years."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.planet import Planet, between

F64 = NDArray[np.float64]

LAPSE = 5.8e-3
"""°C by which it is colder per metre of height, as in the planet's own temperature."""
_WARMEST = 7.5
"""Middle of the warmest month of the northern hemisphere, in months from the start of January."""


def season(lat: F64, month: float | F64) -> F64:
    """1 in the warmest and −1 in the coldest month of each hemisphere; ``month`` counts from 0 at the year's start."""
    wave = np.cos(2.0 * np.pi * (month - _WARMEST) / 12.0)
    result: F64 = np.where(np.asarray(lat) < 0.0, -wave, wave)
    return result


def temperature_in(planet: Planet, lon: F64, lat: F64, month: float | F64) -> F64:
    """Long-term mean temperature in °C of a month (0–12, fractional) at the planet's coarse height."""
    mean, swing = between(planet.temperature, lon, lat), between(planet.swing, lon, lat)
    return mean + swing * season(lat, month)


def rain_in(planet: Planet, lon: F64, lat: F64, month: float | F64) -> F64:
    """Long-term mean precipitation in metres of a month (0–12, fractional)."""
    return rain_of(planet, lon, lat, season(lat, month))


def rain_of(planet: Planet, lon: F64, lat: F64, seasons: F64) -> F64:
    """As ``rain_in``, of a time of the year as ``season`` tells it."""
    annual, summer = between(planet.rain, lon, lat), between(planet.summer_rain, lon, lat)
    return annual / 12.0 * np.maximum(1.0 + 0.9 * summer * seasons, 0.05)


def anomaly(planet: Planet, lon: F64, lat: F64, year: int, month: int) -> tuple[F64, F64]:
    """How a single month (1–12) deviates: °C to add and a factor on precipitation."""
    points = noise.sphere(lon, lat)
    key = noise.salt(planet.seed, "anomaly", year, month)
    layers = noise.space(key, points, (0.45, 0.2, 0.5, 0.18))
    warmth = (layers[:, 0] * 0.85 + layers[:, 1] * 0.5) * (0.5 + 2.0 * np.abs(np.sin(np.radians(lat))))
    wetness = np.exp(0.32 * layers[:, 2] + 0.22 * layers[:, 3] - 0.07)
    return warmth, wetness
