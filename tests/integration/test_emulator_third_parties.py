"""Clients that nobody wrote for the emulator run against it as they are: Xee and geedim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ee
import geedim  # noqa: F401 - registers its accessors on the client's objects
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from pyproj import Transformer

from mmearth_data.emulator.assets import NativeGrid
from tests.emulated import (
    RecordedCollection,
    SmallArchive,
    connected,
    image_asset,
    pattern,
    pattern_valid,
    pattern_values,
    start_emulator,
)

# geedim looks assets up in a catalogue on the web: computed images, which have no id, need none.
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't find STAC entry:RuntimeWarning")

DAY = 86_400_000
HEIGHT, WIDTH = 60, 80
UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0), (HEIGHT, WIDTH))
CORNERS = shapely.box(300000.0, 6200000.0 - 10 * HEIGHT, 300000.0 + 10 * WIDTH, 6200000.0)
COUNT = 5


def _footprint() -> Any:
    change = Transformer.from_crs(32633, 4326, always_xy=True)
    grown = shapely.buffer(CORNERS, 1)
    return shapely.transform(grown, lambda xy: np.column_stack(change.transform(xy[:, 0], xy[:, 1])))


def _scene(number: int) -> Any:
    bands = {"red": ("uint16", UTM, pattern(number)), "nir": ("uint16", UTM, pattern(100 + number))}
    return image_asset(f"test/scenes/s{number}", bands, _footprint(), time=number * DAY, platform="A")


@pytest.fixture(scope="module", autouse=True)
def _connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    archive = SmallArchive([RecordedCollection("test/scenes", [_scene(i) for i in range(COUNT)])])
    with start_emulator(tmp_path_factory.mktemp("log"), archive=archive) as running, connected(running.url):
        yield


def _expected(number: int, offset: int) -> tuple[Any, Any]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return pattern_values(rows, columns, offset + number), pattern_valid(rows, columns)


def test_xee_opens_a_collection_and_loads_its_pixels() -> None:
    scenes = ee.ImageCollection("test/scenes").filterDate("1970-01-02", "1970-01-05")
    grid = {"crs": UTM.crs, "crs_transform": UTM.transform, "shape_2d": (WIDTH, HEIGHT)}
    cube = xr.open_dataset(scenes, engine="ee", **grid)
    assert dict(cube.sizes) == {"time": 3, "y": HEIGHT, "x": WIDTH}
    assert set(cube.data_vars) == {"red", "nir"}
    np.testing.assert_array_equal(cube.time.values, np.array([1, 2, 3], dtype="datetime64[D]"))
    red = cube.red.load()
    for k in range(3):
        values, valid = _expected(k + 1, 0)
        np.testing.assert_array_equal(red.values[k], np.where(valid, values, np.nan).astype(np.float32))
    part = cube.nir.isel(time=1, y=slice(7, 20), x=slice(30, 41)).load()
    values, valid = (array[7:20, 30:41] for array in _expected(2, 100))
    np.testing.assert_array_equal(part.values, np.where(valid, values, np.nan).astype(np.float32))


def test_geedim_downloads_a_geotiff(tmp_path: Path) -> None:
    image = ee.Image("test/scenes/s2")
    accessor: Any = image.gd
    assert (accessor.crs, accessor.shape, accessor.dtype) == (UTM.crs, (HEIGHT, WIDTH), "uint16")
    computed: Any = image.add(0).toUint16()
    prepared: Any = computed.gd.prepareForExport(
        crs=UTM.crs, crs_transform=[10.0, 0.0, 300100.0, 0.0, -10.0, 6199900.0], shape=(40, 50)
    )
    prepared.gd.toGeoTIFF(tmp_path / "scene.tif")
    with rasterio.open(tmp_path / "scene.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == (10.0, 0.0, 300100.0, 0.0, -10.0, 6199900.0)
        assert file.descriptions == ("red", "nir")
        for number, offset in enumerate((0, 100), start=1):
            values, valid = (array[10:50, 10:60] for array in _expected(2, offset))
            np.testing.assert_array_equal(file.read(number), np.where(valid, values, 0))


def test_geedim_downloads_a_region_of_a_filtered_composite(tmp_path: Path) -> None:
    region = ee.Geometry.Rectangle([300200, 6199500, 300600, 6199900], proj=UTM.crs, geodesic=False)
    scenes: Any = ee.ImageCollection("test/scenes").filterDate("1970-01-01", "1970-01-04")
    composite = scenes.max().setDefaultProjection(UTM.crs, list(UTM.transform))
    prepared: Any = composite.gd.prepareForExport(crs=UTM.crs, region=region, scale=10)
    prepared.gd.toGeoTIFF(tmp_path / "composite.tif")
    stack = np.stack([_expected(k, 0)[0] for k in range(3)]).max(axis=0)
    valid = _expected(0, 0)[1]
    with rasterio.open(tmp_path / "composite.tif") as file:
        assert file.bounds == (300200, 6199500, 300600, 6199900)
        np.testing.assert_array_equal(file.read(1), np.where(valid, stack, 0)[10:50, 20:60])
