"""Clouds: one field per datatake, from weather systems to single puffs, that every product of the pass agrees on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.climate import rain_in, season
from mmearth_data.emulator.world.planet import Planet

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

LEVEL = 2
"""Clouds are resolved to 20 m."""
_STEEPNESS = 2.2
"""From a weather state to the cloud fraction, fraction = 1 / (1 + exp(−2.2·state))."""
_THRESHOLD = _STEEPNESS / 1.702
"""The same as a shift of the unit-variance field of clouds (logistic and normal distribution differ by ×1.702)."""
_SYSTEMS = (0.12, 0.05)
_OCTAVES = ((600.0, 1.0), (150.0, 0.8), (38.0, 0.5), (9.0, 0.3))


def weather(planet: Planet, datatakes: NDArray[np.uint32], months: F64, lon: F64, lat: F64) -> F64:
    """Weather state of each datatake at each point, shape (datatakes, points); above 0 more than half is cloudy."""
    rain = rain_in(planet, lon[None, :], lat[None, :], months[:, None])
    # High latitudes are cloudier than their precipitation says, most of all in winter.
    grey = np.clip((np.abs(lat) - 42.0) / 15.0, 0.0, 1.0) * (1.0 - 0.6 * season(lat[None, :], months[:, None]))
    usual = np.clip(0.10 + 0.76 * (1.0 - np.exp(-rain / 0.085)) + 0.17 * grey, 0.06, 0.91)
    mean = np.log(usual / (1.0 - usual)) / 1.702
    shift = np.stack([noise.uniform(noise.hash_points(axis, datatakes)) for axis in range(3)], axis=1) * 4096.0
    points = noise.sphere(lon, lat)[None, :, :] + shift.astype(np.float64)[:, None, :]
    layers = noise.space(noise.salt(planet.seed, "weather"), points.reshape(-1, 3), _SYSTEMS)
    systems = (layers @ np.array([0.8, 0.6])).reshape(len(datatakes), -1)
    result: F64 = 1.1 * mean + 1.2 * systems
    return result


def fraction(state: F64) -> F64:
    """Cloud fraction of a weather state."""
    return 1.0 / (1.0 + np.exp(-_STEEPNESS * state))


@dataclass(frozen=True)
class CloudField:
    """Clouds over a block at 20 m: optical thickness of water clouds and of cirrus, and shadow on the ground (0–1)."""

    thickness: F32
    cirrus: F32
    shadow: F32

    @property
    def opacity(self) -> F32:
        """Share of the surface that clouds hide, 0–1."""
        hidden: F32 = np.float32(1.0) - np.exp(np.float32(-0.8) * self.thickness - self.cirrus)
        return hidden


def _thickness(key: int, excess: F32, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> F32:
    field = noise.fractal(key, rows, columns, _OCTAVES)
    field += excess
    return np.maximum(field, np.float32(0.0)) * np.float32(5.0)


def over(planet: Planet, block: Block, datatake: int, month: float, shadow_shift: tuple[int, int] | None) -> CloudField:
    """The clouds of a datatake over a block.

    ``shadow_shift`` is where the shadow falls, in (rows, columns) of 20 m; None leaves shadows out.
    """
    state = weather(planet, np.array([datatake], dtype=np.uint32), np.array([month]), block.lon, block.lat)[0]
    excess = block.spread(state * _THRESHOLD, LEVEL)
    rows, columns = block.rows(LEVEL), block.columns(LEVEL)
    key = noise.salt(planet.seed, "clouds", datatake)
    thickness = _thickness(key, excess, rows, columns)
    veil = noise.smooth(key ^ 0x5BD1E995, rows, columns, 450.0)
    cirrus = np.maximum(veil * np.float32(0.8) + excess * np.float32(0.25) - np.float32(1.0), 0.0) * np.float32(0.22)
    if shadow_shift is None:
        return CloudField(thickness, cirrus, np.zeros_like(thickness))
    cast = _thickness(key, excess, rows - shadow_shift[0], columns - shadow_shift[1])
    shadow = np.float32(1.0) - np.exp(np.float32(-0.7) * cast)
    return CloudField(thickness, cirrus, shadow)
