"""Clouds: one field per datatake, from weather systems to single puffs, that every product of the pass agrees on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.climate import rain_of, season
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.planet import Planet

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]

LEVEL = 2
"""Clouds are resolved to 20 m."""
_STEEPNESS = 2.2
"""From a weather state to the cloud fraction, fraction = 1 / (1 + exp(−2.2·state))."""
_THRESHOLD = _STEEPNESS / 1.702
"""The same as a shift of the unit-variance field of clouds (logistic and normal distribution differ by ×1.702)."""
_SYSTEMS = (0.12, 0.05)
_OCTAVES = ((600.0, 1.0), (150.0, 0.8), (38.0, 0.6), (9.0, 0.4))


def weather(planet: Planet, datatakes: U32, months: F64, lon: F64, lat: F64) -> F64:
    """Weather state of each datatake at each point, shape (datatakes, points); above 0 more than half is cloudy."""
    seasons = season(lat, months[:, None])
    rain = rain_of(planet, lon, lat, seasons)
    # High latitudes are cloudier than their precipitation says, most of all in winter.
    grey = np.clip((np.abs(lat) - 42.0) / 15.0, 0.0, 1.0) * (1.0 - 0.6 * seasons)
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

    @cached_property
    def opacity(self) -> F32:
        """Share of the surface that clouds hide, 0–1."""
        return _opacity(self.thickness, self.cirrus)


def _opacity(thickness: F32, cirrus: F32) -> F32:
    share: F32 = thickness * np.float32(-0.8)
    share -= cirrus
    np.exp(share, out=share)
    return np.subtract(np.float32(1.0), share, out=share)


def _thickness(keys: U32, excess: F32, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> F32:
    field = noise.fractals(keys, rows, columns, _OCTAVES)
    field += excess
    np.maximum(field, np.float32(0.0), out=field)
    field *= np.float32(5.0)
    return field


def _keys(planet: Planet, datatakes: U32) -> U32:
    return np.array([noise.salt(planet.seed, "clouds", datatake) for datatake in datatakes.tolist()], dtype=np.uint32)


def _excess(planet: Planet, block: Block, datatakes: U32, months: F64) -> F32:
    """How much more cloud than usual each datatake has at 20 m: (datatakes, rows, columns)."""
    return block.spread(weather(planet, datatakes, months, block.lon, block.lat) * _THRESHOLD, LEVEL)


def _wisps(keys: U32, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> F32:
    """The noise that cirrus is made of."""
    return noise.smooths(keys ^ np.uint32(0x5BD1E995), rows, columns, 450.0)


def over(planet: Planet, block: Block, datatake: int, month: float, shadow_shift: tuple[int, int]) -> CloudField:
    """The clouds of a datatake over a block; their shadow falls ``shadow_shift`` (rows, columns) of 20 m away."""
    datatakes = np.array([datatake], dtype=np.uint32)
    keys, excess = _keys(planet, datatakes), _excess(planet, block, datatakes, np.array([month]))
    rows, columns = block.rows(LEVEL), block.columns(LEVEL)
    cirrus = _wisps(keys, rows, columns)[0] * np.float32(0.8) + excess[0] * np.float32(0.25)
    cirrus = np.maximum(cirrus - np.float32(1.0), np.float32(0.0)) * np.float32(0.22)
    behind = _thickness(keys, excess, rows - shadow_shift[0], columns - shadow_shift[1])[0]
    shadow = np.float32(1.0) - np.exp(np.float32(-0.7) * behind)
    return CloudField(_thickness(keys, excess, rows, columns)[0], cirrus, shadow)


@compiled
def _deeper(puffs: F32, wisps: F32, excess: F32, limit: np.float32) -> NDArray[np.bool_]:
    """Where the noise of clouds and of cirrus makes more than a limit of optical depth, as ``over`` makes it."""
    out = np.empty(puffs.shape, dtype=np.bool_)
    for n in range(puffs.shape[0]):
        for i in range(puffs.shape[1]):
            for j in range(puffs.shape[2]):
                more = excess[n, i, j]
                cirrus = wisps[n, i, j] * np.float32(0.8) + more * np.float32(0.25) - np.float32(1.0)
                thickness = max(puffs[n, i, j] + more, np.float32(0.0)) * np.float32(5.0)
                cirrus = max(cirrus, np.float32(0.0)) * np.float32(0.22)
                out[n, i, j] = thickness * np.float32(0.8) + cirrus > limit
    return out


def hidden(planet: Planet, block: Block, datatakes: U32, months: F64, share: float) -> NDArray[np.bool_]:
    """Where the clouds of each datatake hide more than a share of the ground, at 20 m: (datatakes, rows, columns)."""
    rows, columns, keys = block.rows(LEVEL), block.columns(LEVEL), _keys(planet, datatakes)
    puffs, wisps = noise.fractals(keys, rows, columns, _OCTAVES), _wisps(keys, rows, columns)
    # As ``_opacity`` > share, without its exponential.
    return _deeper(puffs, wisps, _excess(planet, block, datatakes, months), np.float32(-np.log1p(-share)))
