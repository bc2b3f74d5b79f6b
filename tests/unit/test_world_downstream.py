"""Maps of water and settlement say what lies on the ground, in the bands, grids and units of the real assets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from pyproj import Transformer

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world import blocks, landcover, points, setting
from mmearth_data.emulator.world.catalogue.maps import WORLDCOVER_GRID
from tests.procedural import band, collection, image

WATER, BUILT = "JRC/GSW1_4/GlobalSurfaceWater", "JRC/GHSL/P2023A/GHS_BUILT_S"
TOWN, LAKE = (117.969, 32.822), (-131.746, 68.398)
"""Places of world 0, longitude and latitude: a town, and a shore."""


def window(of: BandAsset, place: tuple[float, float], size: int) -> tuple[int, int, int, int]:
    """Row, column, height and width of a square of native pixels around a place."""
    x, y = Transformer.from_crs("EPSG:4326", of.grid.crs, always_xy=True).transform(*place)
    a, _, c, _, e, f = of.grid.transform
    return int((y - f) / e) - size // 2, int((x - c) / a) - size // 2, size, size


def cover_at(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """The true land cover of world 0 at points, by way of windows of single pixels of the WorldCover grid."""
    world = setting.world(0)
    a, _, c, _, e, f = WORLDCOVER_GRID.transform
    rows, columns = ((lat - f) / e).astype(int), ((lon - c) / a).astype(int)

    def cover(block: blocks.Block) -> np.ndarray:
        return landcover.ground(world, block).cover

    found = [blocks.window(WORLDCOVER_GRID, 1, i, j, 1, 1, cover) for i, j in zip(rows, columns, strict=True)]
    return np.array(found).ravel()


def degrees(grid: NativeGrid, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, _, c, _, e, f = grid.transform
    transform = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform
    return transform(c + a * columns, f + e * rows)


def built(year: int, name: str = "built_surface") -> BandAsset:
    found = collection(BUILT).image(str(year))
    assert isinstance(found, ImageAsset)
    return band(found, name)


def test_assets_have_the_bands_and_grids_of_the_real_ones() -> None:
    names = [b.name for b in image(WATER).bands]
    assert names == [
        "occurrence", "change_abs", "change_norm", "seasonality", "recurrence", "transition", "max_extent"
    ]  # fmt: skip
    assert {b.grid.crs for b in image(WATER).bands} == {"EPSG:4326"}
    assert image(WATER).bands[0].grid.transform[0] * 111_320 == pytest.approx(28, abs=1)
    epochs = list(collection(BUILT).query(None, None, None))
    assert [e.properties["system:index"] for e in epochs] == [str(year) for year in range(1975, 2031, 5)]
    assert {b.name for e in epochs for b in e.bands} == {"built_surface", "built_surface_nres"}
    assert {(b.grid.crs, b.grid.transform[0]) for e in epochs for b in e.bands} == {("ESRI:54009", 100.0)}


def test_points_hold_what_windows_of_the_frames_hold() -> None:
    world = setting.world(0)
    rng = np.random.default_rng(4)
    # Around the corner of four frames, where the equator meets the border of two zones.
    lon, lat = 6.0 + rng.uniform(-0.01, 0.01, 40), rng.uniform(-0.01, 0.01, 40)
    found = points.at(lon, lat, lambda block: landcover.ground(world, block).vigour)
    a, _, c, _, e, f = (1e-7, 0.0, -180.0, 0.0, -1e-7, 84.0)
    tiny = NativeGrid("EPSG:4326", (a, 0.0, c, 0.0, e, f))
    for k in range(len(lon)):
        row, column = int((lat[k] - f) / e), int((lon[k] - c) / a)
        expected = blocks.window(tiny, 1, row, column, 1, 1, lambda block: landcover.ground(world, block).vigour)
        assert found[k] == expected[0, 0]


def test_water_is_where_the_land_is_wet_and_layers_agree() -> None:
    layers = {b.name: b for b in image(WATER).bands}
    at = window(layers["occurrence"], LAKE, 40)
    read = {name: layer.read(*at) for name, layer in layers.items()}
    seen = read["occurrence"][1]
    assert 0.1 < seen.mean() < 0.95
    assert all((mask == seen).all() for _, mask in read.values())
    value = {name: values[seen].astype(float) for name, (values, _) in read.items()}
    assert (value["max_extent"] == 1).all()
    assert value["occurrence"].min() >= 1
    assert value["occurrence"].max() <= 100
    assert value["seasonality"].max() <= 12
    assert (value["occurrence"][value["transition"] == 1] >= 70).all()
    assert (value["seasonality"][value["transition"] == 1] >= 9).all()
    assert (value["change_abs"][value["transition"] == 2] > 0).all()
    rows, columns = np.mgrid[at[0] : at[0] + 40 : 3, at[1] : at[1] + 40 : 3]
    lon, lat = degrees(layers["occurrence"].grid, rows.ravel() + 0.5, columns.ravel() + 0.5)
    cover = cover_at(lon, lat)
    occurrence = np.where(seen, read["occurrence"][0], 0)[::3, ::3].ravel()
    assert occurrence[cover == landcover.WATER].mean() > 60
    assert occurrence[~np.isin(cover, (landcover.WATER, landcover.WETLAND, landcover.MANGROVES))].mean() < 15


def test_cells_are_built_up_where_the_ground_under_them_is() -> None:
    total, part = built(2020), built(2020, "built_surface_nres")
    at = window(total, TOWN, 8)
    surface, valid = total.read(*at)
    assert valid.all()
    assert (part.read(*at)[0] <= surface).all()
    share = np.empty(surface.shape)
    fine = (np.arange(10) + 0.5) / 10
    for i in range(8):
        for j in range(8):
            rows, columns = np.meshgrid(at[0] + i + fine, at[1] + j + fine, indexing="ij")
            cover = cover_at(*degrees(total.grid, rows.ravel(), columns.ravel()))
            share[i, j] = (cover == landcover.BUILT).mean()
    assert share.max() > 0.5
    assert share.min() < 0.1
    assert (surface[share == 0] == 0).all()
    assert np.corrcoef(share.ravel(), surface.ravel())[0, 1] > 0.9
    # A built-up pixel is roofs in part only.
    assert 0.1 < surface.sum() / 1e4 / share.sum() < 0.95


def test_towns_only_grow() -> None:
    at = window(built(2020), TOWN, 8)
    surfaces = [built(year).read(*at)[0].astype(int) for year in (1975, 1990, 2005, 2020, 2030)]
    assert all((later >= earlier).all() for earlier, later in pairwise(surfaces))
    assert surfaces[0].sum() < 0.7 * surfaces[3].sum()


@pytest.mark.parametrize("asset", [WATER, BUILT])
def test_windows_that_overlap_agree(asset: str) -> None:
    of = built(2020) if asset == BUILT else image(WATER).bands[0]
    row, column, *_ = window(of, TOWN, 12)
    whole, mask = of.read(row, column, 12, 12)
    part, part_mask = of.read(row + 5, column + 3, 4, 7)
    assert (mask[5:9, 3:10] == part_mask).all()
    assert (whole[5:9, 3:10][part_mask] == part[part_mask]).all()
