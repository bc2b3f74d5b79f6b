"""Real images through the real client, on their own and other grids, against rasterio's warp and NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ee
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from tests.emulated import Running, connected, pixels, start_emulator

Coefficients = tuple[float, float, float, float, float, float]
PLACES = ("38D_378R_2_3", "433D_629L_3_1", "637U_59R_1_3")
S2_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
NODATA = -9999.0
"""In what rasterio warps: far from every value, so that it marks pixels outside the image."""


def _mount(folder: Path, file: Path, sidecar: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / file.name).symlink_to(file)
    (folder / file.name).with_suffix(".json").write_text(json.dumps(sidecar))


@pytest.fixture(scope="module")
def mounted(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """TerraMesh's Sentinel-2 as a collection, its elevation as one image of tiles in several zones."""
    folder = tmp_path_factory.mktemp("mounts")
    for place in PLACES:
        file = shared_data / "terramesh" / "S2L2A" / f"{place}.tif"
        _mount(folder / "s2", file, {"id": place, "time": "2019-06-01T10:00:00", "bands": list(S2_BANDS)})
        file = shared_data / "terramesh" / "DEM" / f"{place}.tif"
        _mount(folder / "dem", file, {"image": True, "bands": ["b1"]})
    file = shared_data / "terramesh" / "DEM" / "282D_485L_3_3.tif"
    _mount(folder / "coast", file, {"image": True, "bands": ["b1"], "nodata": 0})
    mounts = [f"test/s2={folder / 's2'}", f"test/dem={folder / 'dem'}", f"test/coast={folder / 'coast'}"]
    with (
        start_emulator(tmp_path_factory.mktemp("log"), world="flat", mounts=mounts) as running,
        connected(running.url),
    ):
        yield running


def _grids(dataset: rasterio.DatasetReader) -> dict[str, tuple[str, Coefficients, int, int]]:
    """Grids over an image: its zone's 10 m cells, the neighbouring zone, and degrees; each reaches beyond it."""
    left, top = dataset.transform.c, dataset.transform.f
    epsg = dataset.crs.to_epsg()
    x0, y0 = math.floor(left / 1280) * 1280, math.ceil(top / 1280) * 1280
    other = epsg - 1
    ox, oy = Transformer.from_crs(epsg, other, always_xy=True).transform(left - 300, top + 300)
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(left, top)
    return {
        "cell": (f"EPSG:{epsg}", (10.0, 0.0, float(x0), 0.0, -10.0, float(y0)), 256, 256),
        "zone": (f"EPSG:{other}", (10.0, 0.0, round(ox, -1), 0.0, -10.0, round(oy, -1)), 100, 120),
        "degrees": ("EPSG:4326", (8e-5, 0.0, lon - 1.03e-3, 0.0, -8e-5, lat + 1.01e-3), 300, 310),
    }


def _warped(
    dataset: rasterio.DatasetReader,
    band: int,
    grid: tuple[str, Coefficients, int, int],
    how: Resampling,
    nodata: float | None = None,
) -> NDArray[np.float64]:
    """What rasterio's exact warp gives on a grid, in doubles, NODATA where the image has nothing."""
    crs, transform, height, width = grid
    data = dataset.read(band).astype(np.float64)
    if nodata is not None:
        data[data == nodata] = NODATA
    profile = {"driver": "GTiff", "count": 1, "dtype": "float64", "crs": dataset.crs, "transform": dataset.transform}
    with MemoryFile() as memory:
        with memory.open(height=dataset.height, width=dataset.width, nodata=NODATA, **profile) as copy:
            copy.write(data, 1)
        exact = {"resampling": how, "tolerance": 1e-9, "nodata": NODATA}
        place = {"crs": crs, "transform": Affine(*transform), "height": height, "width": width}
        with memory.open() as copy, WarpedVRT(copy, **place, **exact) as warped:
            result: NDArray[np.float64] = warped.read(1)
    return result


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["cell", "zone", "degrees"])
def test_nearest_pixels_equal_rasterios_warp(mounted: Running, shared_data: Path, place: str, name: str) -> None:
    with rasterio.open(shared_data / "terramesh" / "S2L2A" / f"{place}.tif") as dataset:
        grid = _grids(dataset)[name]
        image = ee.Image(f"test/s2/{place}").select(["B4", "B12"]).toDouble().unmask(NODATA, False)
        got = pixels(image, *grid)
        for index, band in ((4, "B4"), (12, "B12")):
            expected = _warped(dataset, index, grid, Resampling.nearest)
            assert 0.2 < (expected != NODATA).mean() < 1
            np.testing.assert_array_equal(got[band], expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["cell", "zone", "degrees"])
def test_bilinear_pixels_are_rasterios_warp_within_rounding(
    mounted: Running, shared_data: Path, place: str, name: str
) -> None:
    with rasterio.open(shared_data / "terramesh" / "S2L2A" / f"{place}.tif") as dataset:
        grid = _grids(dataset)[name]
        got = pixels(ee.Image(f"test/s2/{place}").select("B8").resample("bilinear").unmask(NODATA, False), *grid)["B8"]
        expected = _warped(dataset, 8, grid, Resampling.bilinear)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got == NODATA, expected == NODATA)
    # PROJ in rasterio and in pyproj differ by less than a micrometre: 1e-7 of a pixel of up to 20 000 counts.
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["cell", "degrees"])
def test_bilinear_leaves_masked_neighbours_out_as_rasterio_does(mounted: Running, shared_data: Path, name: str) -> None:
    with rasterio.open(shared_data / "terramesh" / "DEM" / "282D_485L_3_3.tif") as dataset:
        grid = _grids(dataset)[name]
        got = pixels(ee.Image("test/coast").resample("bilinear").unmask(NODATA, False), *grid)["b1"]
        expected = _warped(dataset, 1, grid, Resampling.bilinear, nodata=0)
        inside = _warped(dataset, 1, grid, Resampling.nearest)
    assert ((expected == NODATA) & (inside != NODATA)).any()
    np.testing.assert_array_equal(got == NODATA, expected == NODATA)
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.01)


def test_native_grids_are_copied_with_nothing_beyond_the_edges(mounted: Running, shared_data: Path) -> None:
    with rasterio.open(shared_data / "terramesh" / "S2L2A" / f"{PLACES[0]}.tif") as dataset:
        a, b, c, d, e, f = tuple(dataset.transform)[:6]
        data = dataset.read(3)
        grid = (f"EPSG:{dataset.crs.to_epsg()}", (a, b, c - 5 * a, d, e, f - 3 * e), 230, 234)
    image = ee.Image(f"test/s2/{PLACES[0]}").select("B3")
    expected = np.zeros((230, 234), dtype=data.dtype)
    expected[3 : 3 + 224, 5 : 5 + 224] = data
    for asked in (image, image.resample("bilinear").toInt16()):
        got = pixels(asked, *grid)["B3"]
        assert got.dtype == data.dtype
        np.testing.assert_array_equal(got, expected)


def test_an_image_of_tiles_in_several_zones_is_each_of_its_tiles(mounted: Running, shared_data: Path) -> None:
    image = ee.Image("test/dem")
    both = image.addBands(image.resample("bilinear").rename("smooth")).toDouble().unmask(NODATA, False)
    for place in PLACES:
        with rasterio.open(shared_data / "terramesh" / "DEM" / f"{place}.tif") as dataset:
            grid = _grids(dataset)["cell"]
            got = pixels(both, *grid)
            np.testing.assert_array_equal(got["b1"], _warped(dataset, 1, grid, Resampling.nearest))
            np.testing.assert_allclose(got["smooth"], _warped(dataset, 1, grid, Resampling.bilinear), atol=0.01)


def test_slope_of_real_terrain_follows_from_its_four_neighbours(mounted: Running, shared_data: Path) -> None:
    with rasterio.open(shared_data / "terramesh" / "DEM" / f"{PLACES[0]}.tif") as dataset:
        z = dataset.read(1).astype(np.float64)
        grid = (f"EPSG:{dataset.crs.to_epsg()}", tuple(dataset.transform)[:6], 224, 224)
    got = pixels(ee.Terrain.slope(ee.Image("test/dem")).unmask(-1, False), *grid)["slope"]
    dy, dx = np.gradient(z, 10.0)
    expected = np.degrees(np.arctan(np.hypot(dx, dy)))
    np.testing.assert_allclose(got[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=1e-12)
    edge = np.ones((224, 224), dtype=bool)
    edge[1:-1, 1:-1] = False
    assert (got[edge] == -1).all()
