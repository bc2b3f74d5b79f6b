"""Pixels of the procedural Earth: deterministic, aligned across projections, masked where a swath ends, typed."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world import blocks, charts, planet, setting, terrain
from tests.procedural import FOREST, L2A, band, collection, image, places, sample

DEM = "projects/sat-io/open-datasets/ASTER/GDEM"
EVERY_KIND = (FOREST, "Tundra", "Mangroves", "Deserts & Xeric Shrublands", "Montane Grasslands & Shrublands")


@pytest.mark.parametrize("biome", EVERY_KIND)
def test_a_part_of_a_window_is_the_same_as_the_window_read_alone(biome: str) -> None:
    (place,) = places(biome, 1)
    for asset in place.product.bands:
        step = round(asset.grid.transform[0] / 10)
        row, column = place.row // step, place.column // step
        whole, mask = asset.read(row - 20, column - 15, 90, 100)
        part, part_mask = asset.read(row + 11, column + 7, 31, 17)
        np.testing.assert_array_equal(part, whole[31:62, 22:39])
        np.testing.assert_array_equal(part_mask, mask[31:62, 22:39])


def test_a_world_built_anew_yields_the_same_pixels() -> None:
    (place,) = places(FOREST, 1)
    twin = collection(L2A, 1).image(place.product.id.rsplit("/", 1)[1])
    assert twin is not None
    assert dict(twin.properties) == dict(place.product.properties)
    for asset in place.product.bands:
        np.testing.assert_array_equal(place.read(asset.name)[0], place.read(asset.name, twin)[0])


@pytest.mark.parametrize("biome", ["Temperate Grasslands, Savannas & Shrublands", "Tundra"])
def test_the_map_in_degrees_lies_where_the_utm_grid_has_it(biome: str) -> None:
    world, shifts = setting.world(0), [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
    total = np.zeros(len(shifts))
    for place in places(biome, 8):
        grid = band(place.product, "B2").grid
        utm = blocks.window(grid, 1, place.row, place.column, 132, 132, lambda b: charts.worldcover(world, b))
        degrees = sample(image("ESA/WorldCover/v100/2020"), *place.centres())
        assert (utm == degrees).mean() > 0.75
        inner = utm[2:-2, 2:-2]
        total += [(degrees[2 + i : 130 + i, 2 + j : 130 + j] == inner).mean() for i, j in shifts]
    assert shifts[int(np.argmax(total))] == (0, 0)


@pytest.mark.parametrize("south", [False, True])
def test_coarse_bands_lie_on_the_fine_ones(south: bool) -> None:
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    total = {name: np.zeros(len(shifts)) for name in ("B1", "B5")}
    for place in places("Mediterranean Forests, Woodlands & Scrub", 24, seed=2, most_cloud=1.0):
        if (band(place.product, "B2").grid.crs >= "EPSG:327") != south:
            continue
        for name, like in (("B1", "B2"), ("B5", "B4")):
            coarse, fine = place.read(name)[0].astype(float), place.read(like)[0].astype(float)
            step = 132 // len(coarse)
            mean = fine.reshape(len(coarse), step, len(coarse), step).mean(axis=(1, 3))
            inner, size = mean[1:-1, 1:-1].ravel(), len(coarse) - 2
            total[name] += [
                np.corrcoef(inner, coarse[1 + i : 1 + i + size, 1 + j : 1 + j + size].ravel())[0, 1] for i, j in shifts
            ]
    for scores in total.values():
        assert scores.max() > 0
        assert shifts[int(np.argmax(scores))] == (0, 0)


def test_elevation_agrees_between_the_zones_of_one_place() -> None:
    world = setting.world(0)
    # 6° E is the border of zones 31 and 32; both grids ask for the same points on either side of it.
    to_31, to_32 = (Transformer.from_crs(4326, epsg, always_xy=True) for epsg in (32631, 32632))
    lat = float(planet.LATITUDE[np.nonzero(world.planet.land[:, 372])[0]][-40])
    for lon in (5.9, 6.1):
        (x1, y1), (x2, y2) = to_31.transform(lon, lat), to_32.transform(lon, lat)
        first = NativeGrid("EPSG:32631", (10.0, 0.0, x1 // 10 * 10.0, 0.0, -10.0, y1 // 10 * 10.0))
        values = blocks.window(first, 1, 0, 0, 100, 100, lambda b: terrain.make(world, b, world.setting(b)).elevation)
        east, north = np.meshgrid(
            first.transform[2] + 10.0 * (np.arange(100) + 0.5), first.transform[5] - 10.0 * (np.arange(100) + 0.5)
        )
        there_x, there_y = to_32.transform(*to_31.transform(east, north, direction="INVERSE"))
        second = NativeGrid("EPSG:32632", (10.0, 0.0, x2 // 10 * 10.0 - 300, 0.0, -10.0, y2 // 10 * 10.0 + 300))
        wide = blocks.window(second, 1, 0, 0, 200, 200, lambda b: terrain.make(world, b, world.setting(b)).elevation)
        rows = np.floor((second.transform[5] - there_y) / 10).astype(int)
        columns = np.floor((there_x - second.transform[2]) / 10).astype(int)
        difference = np.abs(wide[rows, columns] - values)
        # Nearest neighbours in two grids are up to a pixel apart, so heights differ by what a pixel's slope makes.
        slope = max(np.abs(np.diff(values, axis=0)).max(), np.abs(np.diff(values, axis=1)).max())
        assert difference.max() <= 2.0 * slope + 1e-3


def _outside(of: ImageAsset, asset: BandAsset, row: int, column: int, size: int) -> np.ndarray:
    """Which pixel centres lie outside the footprint, by shapely."""
    grid = asset.grid
    x = grid.transform[2] + grid.transform[0] * (column + np.arange(size) + 0.5)
    y = grid.transform[5] + grid.transform[4] * (row + np.arange(size) + 0.5)
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    return ~shapely.contains_xy(of.footprint, lon, lat)


def test_products_are_masked_where_the_swath_ends() -> None:
    cut = next(
        p.product for p in places(FOREST, 30, seed=8)
        if p.product.footprint is not None and p.product.footprint.area < 0.6 * p.product.footprint.envelope.area
    )  # fmt: skip
    asset = band(cut, "B9")
    seen = np.zeros(2, dtype=int)
    for row in range(0, 1800, 300):
        for column in range(0, 1800, 300):
            _, mask = asset.read(row, column, 20, 20)
            outside = _outside(cut, asset, row, column, 20)
            assert (mask == ~outside).mean() > 0.9
            seen += [int(mask.all()), int(not mask.any())]
    assert seen.min() > 0


def test_dtypes_are_the_services() -> None:
    (place,) = places(FOREST, 1)
    for asset in place.product.bands:
        assert asset.dtype == ("uint8" if asset.name in ("SCL", "MSK_CLDPRB") else "uint16")
        assert asset.read(60, 60, 8, 8)[0].dtype == np.dtype(asset.dtype)
    elevation, mask = image(DEM).bands[0].read(200_000, 300_000, 40, 40)
    assert elevation.dtype == np.int16
    assert mask.dtype == np.bool_
