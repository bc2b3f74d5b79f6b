"""Sentinel-2's pixels: surfaces lit by the sun, seen through air and clouds, and the masks that come with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import clouds, noise, spectra
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.clouds import CloudField
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.landcover import BUILT, SNOW, WATER
from mmearth_data.emulator.world.phenology import Surface, shares, snowiness, surface
from mmearth_data.emulator.world.scenes import OpticalScene
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]

_ROUGHNESS = np.array([0.13, 0.10, 0.06, 0.035, 0.24, 0.05, 0.025, 0.03, 0.10, 0.09, 0.06], dtype=np.float32)
"""Relative variation of brightness between pixels, by cover class."""
_PATCHWORK = np.array([0.04, 0.02, 0.05, 0.12, 0.35, 0, 0, 0, 0, 0, 0], dtype=np.float32)
"""The same between parcels of land."""
_BAND_NOISE = 0.012
_OPAQUE, _CIRRUS = 1 << 10, 1 << 11
_MASKED_CLOUD, _MASKED_CIRRUS = 1.2, 0.1
"""Optical thickness from which QA60 has clouds: thin ones and the rims of others are known to be missing there."""
_SCL_DARK, _SCL_SHADOW, _SCL_PLANTS, _SCL_SOIL, _SCL_WATER = 2, 3, 4, 5, 6
_SCL_UNCLEAR, _SCL_MEDIUM, _SCL_HIGH, _SCL_CIRRUS, _SCL_SNOW = 7, 8, 9, 10, 11


def sky(world: World, block: Block, scene: OpticalScene) -> CloudField:
    """The clouds of a scene's datatake over a block, with their shadows."""
    height = 900.0 + 2600.0 * noise.scalar_uniform("cloud height", scene.datatake)
    length = height * np.tan(np.radians(min(scene.sun_zenith, 78.0))) / 20.0
    away = np.radians(scene.sun_azimuth + 180.0)
    shift = int(round(-length * np.cos(away))), int(round(length * np.sin(away)))
    return _sky(world.planet, block, scene.datatake, scene.month, shift)


_sky = lru_cache(maxsize=48)(clouds.over)


def _light(scene: OpticalScene, state: Surface) -> F32:
    """Brightness of each pixel relative to level ground: slope towards the sun, and much of it diffuse."""
    zenith, azimuth = np.radians(min(scene.sun_zenith, 80.0)), np.radians(scene.sun_azimuth)
    land = state.ground.terrain
    towards = land.east * np.float32(np.sin(azimuth)) + land.north * np.float32(np.cos(azimuth))
    lit = (np.float32(1.0) - towards * np.float32(np.tan(zenith))) / np.sqrt(np.float32(1.0) + np.square(land.slope))
    result: F32 = np.clip(np.float32(0.28) + np.float32(0.72) * lit, 0.12, 1.7)
    return result


@compiled
def _brightness(
    cover: U8, parcel: U32, canopy: F32, light: F32, white: F32, clumps: F32, roughness: F32, patchwork: F32
) -> F32:
    """How brightly each pixel shines, relative to level ground of its kind: its own grain, its parcel's, its shade."""
    out = np.empty(cover.shape, dtype=np.float32)
    for i in range(cover.shape[0]):
        for j in range(cover.shape[1]):
            grain = np.float32(0.75) * white[i, j] + np.float32(0.75) * clumps[i, j]
            patch = np.float32((parcel[i, j] ^ np.uint32(0x5F356495)) >> np.uint32(8)) * np.float32(2.0**-24)
            value = np.float32(1.0) + grain * roughness[cover[i, j]]
            value += (patch - np.float32(0.5)) * patchwork[cover[i, j]]
            tall = min(max(canopy[i, j] * np.float32(1 / 32.0), np.float32(0.0)), np.float32(1.0))
            value *= np.float32(1.0) - np.float32(0.20) * tall
            out[i, j] = min(max(value, np.float32(0.35)), np.float32(2.0)) * light[i, j]
    return out


@lru_cache(maxsize=16)
def _lit(world: World, block: Block, month: float, year: int, scene: OpticalScene) -> F32:
    """Shares of pure surfaces at 10 m, weighted by how brightly each pixel shines, shape (12, rows, columns)."""
    state = surface(world, block, month, year)
    land = state.ground
    rows, columns = block.rows(), block.columns()
    key = noise.salt(world.seed, "texture")
    grains = noise.white(key, rows, columns), noise.smooth(key ^ 1, rows, columns, 2.6)
    light = _light(scene, state)
    lit = shares(world, block, month, year)
    lit *= _brightness(land.cover, land.parcel, land.canopy, light, *grains, _ROUGHNESS, _PATCHWORK)
    return lit


@lru_cache(maxsize=48)
def _coarse(world: World, block: Block, scene: OpticalScene, level: int) -> F32:
    """``_lit`` averaged to a level's pixels."""
    return _average(_lit(world, block, scene.month, scene.year, scene), block, 1, level)


@compiled
def _means(fields: F32, top: int, left: int, height: int, width: int, factor: int) -> F32:
    """Means over squares of ``factor`` pixels of fields (fields, rows, columns), added row by row."""
    out = np.empty((fields.shape[0], height, width), dtype=np.float32)
    scale = np.float32(1.0 / factor**2)
    for n in range(fields.shape[0]):
        for i in range(height):
            line = out[n, i]
            for number in range(factor * factor):
                row = fields[n, top + i * factor + number // factor]
                first = left + number % factor
                if number == 0:
                    for j in range(width):
                        line[j] = row[first + j * factor]
                else:
                    for j in range(width):
                        line[j] += row[first + j * factor]
            for j in range(width):
                line[j] *= scale
    return out


def _average(field: F32, block: Block, level: int, to: int) -> F32:
    """Means over the pixels of a coarser level."""
    if level == to:
        return field
    top, left = block.offset(level, to)
    height, width = len(block.rows(to)), len(block.columns(to))
    means = _means(field.reshape(-1, *field.shape[-2:]), top, left, height, width, to // level)
    return means.reshape(*field.shape[:-2], height, width)


def _at(field: F32, block: Block, level: int) -> F32:
    """A field of the clouds' 20 m at another level."""
    if level == 1:
        return field.repeat(2, axis=0).repeat(2, axis=1)
    return _average(field, block, clouds.LEVEL, level)


@lru_cache(maxsize=48)
def _veils(world: World, block: Block, scene: OpticalScene, level: int) -> tuple[F32, F32, F32]:
    """At a level: shadow (0–1), and the shares of the view that clouds and that cirrus take."""
    over = sky(world, block, scene)
    thick = np.float32(1.0) - np.exp(np.float32(-0.8) * _at(over.thickness, block, level))
    veil = np.float32(1.0) - np.exp(-_at(over.cirrus, block, level))
    return _at(over.shadow, block, level), thick, veil


@compiled
def _seen(
    lit: F32, grain: F32, shadow: F32, thick: F32, veil: F32, colours: F32, shade: np.float32,
    clear: tuple[np.float32, np.float32], cloud: np.float32, cirrus: np.float32,
) -> NDArray[np.uint16]:  # fmt: skip
    """Counts of a band: lit surfaces of their colours, in shadow, through clear air (factor, summand) and clouds."""
    out = np.empty(grain.shape, dtype=np.uint16)
    value = np.empty(grain.shape[1], dtype=np.float32)
    gain, path = clear
    for i in range(grain.shape[0]):
        for kind in range(colours.shape[0]):
            line, colour = lit[kind, i], colours[kind]
            if kind == 0:
                for j in range(value.shape[0]):
                    value[j] = line[j] * colour
            else:
                for j in range(value.shape[0]):
                    value[j] += line[j] * colour
        for j in range(value.shape[0]):
            seen = value[j] * (np.float32(1.0) + np.float32(_BAND_NOISE) * grain[i, j])
            seen = seen * (np.float32(1.0) - shadow[i, j] * shade) * gain + path
            seen += thick[i, j] * (cloud - seen)
            seen += veil[i, j] * (cirrus - seen)
            seen += grain[i, j] * np.float32(4.0)
            out[i, j] = np.uint16(np.rint(min(max(seen, np.float32(1.0)), np.float32(20000.0))))
    return out


def reflectance(world: World, block: Block, scene: OpticalScene, band: str, level: int) -> NDArray[np.uint16]:
    """A spectral band × 10⁴ at its own resolution (``level`` × 10 m)."""
    number = spectra.INDEX[band]
    lit = _coarse(world, block, scene, level)
    grain = noise.white(noise.salt("band", band, scene.datatake), block.rows(level), block.columns(level))
    shadow, thick, veil = _veils(world, block, scene, level)
    if scene.level == "L1C":
        vapour = 1.0 if band != "B9" else 0.6 + 0.7 * noise.scalar_uniform("vapour", scene.datatake)
        aerosol = 0.7 + 0.9 * noise.scalar_uniform("aerosol", scene.datatake) ** 2
        haze = np.float32(aerosol * (0.75 + 0.25 / np.cos(np.radians(min(scene.sun_zenith, 75.0)))))
        clear = spectra.TRANSMISSION[number] * np.float32(vapour), spectra.PATH[number] * haze
    else:
        error = 2.0 * noise.scalar_uniform("correction", scene.key) - 1.0
        clear = np.float32(1.0), np.float32(error) * spectra.CORRECTION_ERROR[number]
    # Blue light reaches shadows from the sky, infrared hardly does.
    shade = np.float32(0.38 + 0.022 * number)
    colours = np.ascontiguousarray(spectra.ENDMEMBERS[:, number])
    return _seen(lit, grain, shadow, thick, veil, colours, shade, clear, spectra.CLOUD[number], spectra.CIRRUS[number])


def qa60(world: World, block: Block, scene: OpticalScene) -> NDArray[np.uint16]:
    """QA60 at 60 m: bit 10 where clouds are opaque, bit 11 where there is cirrus alone."""
    over = sky(world, block, scene)
    opaque = _average(over.thickness, block, clouds.LEVEL, 6) > _MASKED_CLOUD
    cirrus = ~opaque & (_average(over.cirrus, block, clouds.LEVEL, 6) > _MASKED_CIRRUS)
    return (opaque * np.uint16(_OPAQUE) + cirrus * np.uint16(_CIRRUS)).astype(np.uint16)


def scl(world: World, block: Block, scene: OpticalScene) -> U8:
    """Scene classification at 20 m."""
    state = surface(world, block, scene.month, scene.year)
    over = sky(world, block, scene)
    cover = state.ground.cover[::2, ::2]
    green = _average(state.green, block, 1, 2)
    snow = _average(snowiness(state), block, 1, 2)
    light = _average(_light(scene, state), block, 1, 2)
    rows, columns = block.rows(2), block.columns(2)
    doubt = noise.white(noise.salt("scl", scene.key), rows, columns) * np.float32(0.05)
    result = np.where(green + doubt > 0.34, np.uint8(_SCL_PLANTS), np.uint8(_SCL_SOIL))
    result[cover == WATER] = _SCL_WATER
    result[light < 0.45] = _SCL_DARK
    result[snow > 0.5] = _SCL_SNOW
    result[over.shadow > 0.35] = _SCL_SHADOW
    result[over.cirrus > 0.05] = _SCL_CIRRUS
    thick = np.float32(1.0) - np.exp(np.float32(-0.8) * over.thickness)
    result[thick + doubt > 0.12] = _SCL_UNCLEAR
    result[thick + doubt > 0.32] = _SCL_MEDIUM
    result[thick + doubt > 0.65] = _SCL_HIGH
    return result


def cloud_probability(world: World, block: Block, scene: OpticalScene) -> U8:
    """MSK_CLDPRB at 20 m: percent, with some false alarms over bright ground."""
    over = sky(world, block, scene)
    land = surface(world, block, scene.month, scene.year).ground
    bright = ((land.cover[::2, ::2] == BUILT) | (land.cover[::2, ::2] == SNOW)).astype(np.float32)
    grain = noise.white(noise.salt("probability", scene.key), block.rows(2), block.columns(2))
    percent = np.float32(112.0) * over.opacity - np.float32(6.0) + np.float32(3.0) * grain
    percent += bright * np.float32(14.0) * np.abs(grain)
    return np.clip(np.rint(percent), 0.0, 100.0).astype(np.uint8)


def _score(world: World, block: Block, scene: OpticalScene) -> F32:
    over = sky(world, block, scene)
    grain = noise.white(noise.salt("score", scene.datatake), block.rows(2), block.columns(2))
    clear = (np.float32(1.0) - over.opacity) * (np.float32(1.0) - np.float32(0.8) * over.shadow)
    score: F32 = clear + np.float32(0.015) * grain
    return score


def clear_score(world: World, block: Block, scene: OpticalScene) -> F32:
    """Cloud Score+ cs at 10 m: 1 where the surface is seen clearly."""
    score = np.clip(_score(world, block, scene) - np.float32(0.06), 0.0, 1.0)
    return _at(score, block, 1)


def clear_score_cdf(world: World, block: Block, scene: OpticalScene) -> F32:
    """Cloud Score+ cs_cdf at 10 m: the score relative to all that the place has been seen with."""
    score = np.clip(_score(world, block, scene), 0.0, 1.0)
    return _at(np.clip(score * (np.float32(1.25) - np.float32(0.27) * score), 0.0, 1.0), block, 1)


MASKS: dict[str, tuple[int, Callable[[World, Block, OpticalScene], NDArray[np.generic]]]] = {
    "QA60": (6, qa60),
    "SCL": (2, scl),
    "MSK_CLDPRB": (2, cloud_probability),
    "cs": (1, clear_score),
    "cs_cdf": (1, clear_score_cdf),
}
"""Bands that are no reflectance: their level and renderer."""
