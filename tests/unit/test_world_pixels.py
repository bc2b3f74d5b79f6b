"""Compiled loops over pixels say what array arithmetic in double precision does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from mmearth_data.emulator.world import blocks, landcover, optics, parcels, phenology, radar, setting, spectra, terrain
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.scenes import OpticalScene
from mmearth_data.emulator.world.setting import World

SUMMER, WINTER = 6.5, 0.5
SCENE = OpticalScene("L1C", 5, 9, WINTER, 2019, 48.0, 160.0, ())


@cache
def earth() -> World:
    return setting.world(0)


@cache
def home() -> Block:
    """A block with forest, fields, wetland, water and a village."""
    return blocks.block(32612, -4459, 382)


@pytest.mark.parametrize("level", [2, 6])
def test_coarse_pixels_are_means_of_fine_ones(level: int) -> None:
    block = home()
    field = np.random.default_rng(1).random((3, 160, 160), dtype=np.float32)
    top, left = block.offset(1, level)
    height, width = len(block.rows(level)), len(block.columns(level))
    cut = field[:, top : top + height * level, left : left + width * level].astype(np.float64)
    expected = cut.reshape(3, height, level, width, level).mean(axis=(2, 4))
    np.testing.assert_allclose(optics._average(field, block, 1, level), expected, atol=1e-6)


@pytest.mark.parametrize("month", [SUMMER, WINTER])
def test_shares_of_pure_surfaces_divide_each_pixel(month: float) -> None:
    state = phenology.surface(earth(), home(), month, 2019)
    shares = phenology.shares(earth(), home(), month, 2019).astype(np.float64)
    assert shares.min() > -1e-6
    # Bright and moist soils weigh their share; without them no pixel is more than whole.
    soil = shares[[spectra.GREY_SOIL, spectra.RED_SOIL]].sum(axis=0)
    assert (shares.sum(axis=0) - soil).max() < 1 + 1e-5
    np.testing.assert_array_equal(phenology.snowiness(state), shares[spectra.SNOW].astype(np.float32))
    living = shares[[spectra.BROADLEAF, spectra.CONIFER, spectra.HERB]].sum(axis=0)
    np.testing.assert_allclose(living, state.plants * (1.0 - state.snow.astype(np.float64)), atol=1e-6)
    np.testing.assert_allclose(state.green, living, atol=1e-6)


def test_snow_lies_in_winter_where_plants_stand_in_summer() -> None:
    summer, winter = (phenology.surface(earth(), home(), month, 2019) for month in (SUMMER, WINTER))
    assert summer.plants.mean() > winter.plants.mean()
    assert summer.snow.max() <= winter.snow.max()
    for state in (summer, winter):
        for field in (state.plants, state.wood, state.dry, state.moist, state.moisture, state.snow, state.frost):
            assert 0.0 <= field.min() <= field.max() <= 1.0


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_a_band_is_a_mix_of_its_surfaces_through_air_and_clouds(level: str) -> None:
    scene = OpticalScene("L1C" if level == "L1C" else "L2A", 5, 9, SUMMER, 2019, 48.0, 160.0, ())
    got = optics.reflectance(earth(), home(), scene, "B3", 1).astype(np.float64)
    lit = optics._lit(earth(), home(), scene.month, scene.year, scene).astype(np.float64)
    sky = optics.sky(earth(), home(), scene)
    shadow, thick, cirrus = (
        field.astype(np.float64).repeat(2, 0).repeat(2, 1) for field in (sky.shadow, sky.thickness, sky.cirrus)
    )
    band = spectra.INDEX["B3"]
    ground = np.tensordot(spectra.ENDMEMBERS[:, band], lit, axes=1) * (1.0 - shadow * (0.38 + 0.022 * band))
    # The grain of single pixels, some hundredths at most, is all that the mix leaves out.
    if level == "L1C":
        low, high = ((spectra.TRANSMISSION[band] * ground + factor * spectra.PATH[band]) for factor in (0.7, 2.0))
    else:
        low, high = (ground + sign * spectra.CORRECTION_ERROR[band] for sign in (-1.0, 1.0))
    for edge in (low, high):
        edge += (1.0 - np.exp(-0.8 * thick)) * (spectra.CLOUD[band] - edge)
        edge += (1.0 - np.exp(-cirrus)) * (spectra.CIRRUS[band] - edge)
    slack = 0.035 * high + 12.0
    assert (got > low - slack).all()
    assert (got < high + slack).all()


def test_cover_follows_density_slope_and_fields() -> None:
    """Cases of density, share farmed, slope, random number of the parcel and distance to its border."""
    chance = 2**32 - 1
    cases = [
        (0.05, 0.0, 0.0, 0.99, 9.0, landcover.BARE), (0.15, 0.0, 0.0, 0.99, 9.0, landcover.MOSS),
        (0.35, 0.0, 0.0, 0.99, 9.0, landcover.GRASS), (0.55, 0.0, 0.0, 0.99, 9.0, landcover.SHRUB),
        (0.90, 0.0, 0.0, 0.99, 9.0, landcover.TREES), (0.55, 0.0, 1.5, 0.99, 9.0, landcover.BARE),
        (0.90, 0.0, 1.5, 0.99, 9.0, landcover.TREES), (0.90, 1.0, 0.0, 0.50, 9.0, landcover.CROPS),
        (0.90, 1.0, 0.0, 0.90, 9.0, landcover.GRASS), (0.90, 1.0, 0.0, 0.99, 9.0, landcover.TREES),
    ]  # fmt: skip
    density, farmed, slope, lot, edge, expected = (np.array([values]) for values in zip(*cases, strict=True))
    limits = np.broadcast_to(np.array([0.1, 0.2, 0.4, 0.6], dtype=np.float32)[:, None, None], (4, *density.shape))
    fields = [field.astype(np.float32) for field in (density, farmed)]
    hedges, patches = np.ones(density.shape, dtype=np.float32), np.zeros(density.shape, dtype=np.float32)
    parcel = (lot * chance).astype(np.uint32)
    rest = slope.astype(np.float32), parcel, edge.astype(np.float32)
    np.testing.assert_array_equal(landcover._grown(*fields, limits.copy(), hedges, patches, *rest), expected)
    hedge = landcover._grown(*fields, limits.copy(), hedges, patches, rest[0], parcel, np.zeros_like(rest[2]))
    assert set(hedge[0, [7, 8]]) <= {landcover.TREES, landcover.GRASS}
    np.testing.assert_array_equal(hedge[0, :7], expected[0, :7])


def test_the_gradient_is_that_of_the_heights_and_the_sea_is_water() -> None:
    world, block = earth(), home()
    for place in (block, blocks.block(32632, -4300, 390)):
        land = terrain.make(world, place, world.setting(place))
        down, east = np.gradient(land.elevation.astype(np.float64), 10.0)
        inner = slice(1, -1)
        np.testing.assert_allclose(land.east[inner, inner], east[inner, inner], atol=1e-3)
        np.testing.assert_allclose(land.north[inner, inner], -down[inner, inner], atol=1e-3)
        assert land.water[land.shore < 0.0].all()
        assert not (land.narrow & (land.shore < 0.0)).any()
        assert not (land.narrow & ~land.water).any()


def test_parcels_have_borders_where_their_numbers_change() -> None:
    world, block = earth(), home()
    found = parcels.make(world, block, world.setting(block))
    assert 20 < len(np.unique(found.identity)) < 5000
    inside = found.edge > 1.5
    for axis in (0, 1):
        same = np.diff(found.identity.astype(np.int64), axis=axis) == 0
        both = (inside[1:] & inside[:-1]) if axis == 0 else (inside[:, 1:] & inside[:, :-1])
        # Away from its borders a parcel ends where its estate does, and nowhere else.
        assert same[both].mean() > 0.98


def test_an_echo_is_the_sum_of_its_parts() -> None:
    spread = np.random.default_rng(2)
    kind = spread.integers(0, 11, (5, 7)).astype(np.uint8)
    parts, speckle = spread.normal(size=(9, 5, 7)).astype(np.float32), spread.normal(size=(5, 7)).astype(np.float32)
    got = radar._decibels(kind, parts, speckle, radar._GROUND["VV"], np.float32(1.4), np.float32(1.2))
    expected = radar._GROUND["VV"][kind] + 1.4 * parts[0] + 1.2 * parts[1] + parts[2:].sum(axis=0) + speckle
    np.testing.assert_allclose(got, expected, atol=1e-5)
