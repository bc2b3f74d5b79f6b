"""Real GeoTIFFs through mounts and the real client, against rasterio's own warp, NumPy and SciPy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ee
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds
from scipy import stats

from tests.emulated import connected, pixels, start_emulator

PLACE = "38D_378R_2_3"
OPTICAL = "S2L2A"
EMPTY = -999


@dataclass(frozen=True)
class File:
    """A file as rasterio reads it."""

    data: NDArray[Any]
    transform: Affine
    crs: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.data.shape[1], self.data.shape[2]


def _mounted(folder: Path, source: Path, names: list[str]) -> str:
    """A folder of one image: the file itself, with a sidecar beside it."""
    folder.mkdir()
    (folder / "a.tif").symlink_to(source)
    (folder / "a.json").write_text(json.dumps({"bands": names, "properties": {}, "image": True}))
    return f"real/{folder.name}={folder}"


def _read(path: Path) -> File:
    with rasterio.open(path) as file:
        return File(file.read(), file.transform, f"EPSG:{file.crs.to_epsg()}")


@pytest.fixture(scope="module")
def files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, File]]:
    folder = tmp_path_factory.mktemp("real")
    found, mounts = {}, []
    for kind in ("DEM", OPTICAL):
        path = shared_data / "terramesh" / kind / f"{PLACE}.tif"
        found[kind] = _read(path)
        names = [f"b{number}" for number in range(len(found[kind].data))]
        mounts.append(_mounted(folder / kind, path, names))
    with start_emulator(folder, world="flat", mounts=mounts) as running, connected(running.url):
        yield found


def _image(kind: str) -> Any:
    return ee.Image(f"real/{kind}")


def _warped(file: File, band: int, crs: str, transform: Affine, height: int, width: int, how: Resampling) -> Any:
    """A band on another grid by rasterio, not a number where it has nothing."""
    out = np.full((height, width), np.nan)
    reproject(
        file.data[band].astype(np.float64), out, src_transform=file.transform, src_crs=file.crs,
        dst_transform=transform, dst_crs=crs, resampling=how, src_nodata=np.nan, dst_nodata=np.nan, tolerance=0,
    )  # fmt: skip
    return out


def _finer(file: File) -> Affine:
    """A grid of smaller pixels within the file, off its own."""
    return Affine(7, 0, file.transform.c + 33.3, 0, -7, file.transform.f - 41.7)


def _degrees(file: File) -> Affine:
    """A grid in degrees within the file, of pixels that are smaller than its own."""
    height, width = file.size
    right, bottom = file.transform @ (width, height)
    west, _, _, north = transform_bounds(file.crs, "EPSG:4326", file.transform.c, bottom, right, file.transform.f)
    return Affine(5e-5, 0, west + 4e-3, 0, -5e-5, north - 4e-3)


def _on(image: Any, crs: str, transform: Affine, height: int, width: int) -> Any:
    return pixels(image, crs, tuple(transform)[:6], height, width)


def test_pixels_on_the_files_own_grid_are_the_files(files: dict[str, File]) -> None:
    for kind, file in files.items():
        got = _on(_image(kind), file.crs, file.transform, *file.size)
        for number, band in enumerate(file.data):
            np.testing.assert_array_equal(got[f"b{number}"], band)


@pytest.mark.parametrize("grid", ["finer", "degrees"])
def test_nearest_pixels_are_rasterios(files: dict[str, File], grid: str) -> None:
    file = files[OPTICAL]
    crs, transform = (file.crs, _finer(file)) if grid == "finer" else ("EPSG:4326", _degrees(file))
    expected = _warped(file, 3, crs, transform, 90, 110, Resampling.nearest)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(_on(_image(OPTICAL).select("b3"), crs, transform, 90, 110)["b3"], expected)
    computed = _image(OPTICAL).select("b3").reproject(crs, list(transform)[:6])
    np.testing.assert_array_equal(_on(computed, crs, transform, 90, 110)["b3"], expected)


@pytest.mark.parametrize("grid", ["finer", "degrees"])
def test_bilinear_pixels_are_rasterios(files: dict[str, File], grid: str) -> None:
    for kind, band in (("DEM", 0), (OPTICAL, 7)):
        file = files[kind]
        crs, transform = (file.crs, _finer(file)) if grid == "finer" else ("EPSG:4326", _degrees(file))
        expected = _warped(file, band, crs, transform, 80, 100, Resampling.bilinear)
        assert np.isfinite(expected).all()
        got = _on(_image(kind).select(f"b{band}").resample("bilinear"), crs, transform, 80, 100)[f"b{band}"]
        steepest = np.abs(np.diff(file.data[band].astype(np.float64), axis=0)).max()
        # The warp places pixels to a ten-thousandth.
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * steepest)


def test_coarse_pixels_are_the_means_of_those_they_hold(files: dict[str, File]) -> None:
    file = files[OPTICAL]
    coarse = file.transform @ Affine.scale(8)
    image = _image(OPTICAL).select("b2").reduceResolution(ee.Reducer.mean(), False, 1024)
    got = _on(image.reproject(file.crs, list(coarse)[:6]), file.crs, coarse, 28, 28)["b2"]
    np.testing.assert_allclose(got, file.data[2].reshape(28, 8, 28, 8).mean(axis=(1, 3)), rtol=1e-12)


def test_slope_is_that_of_central_differences(files: dict[str, File]) -> None:
    file = files["DEM"]
    down, across = np.gradient(file.data[0].astype(np.float64), 10.0)
    expected = np.degrees(np.arctan(np.hypot(down, across)))[1:-1, 1:-1]
    got = _on(ee.Terrain.slope(_image("DEM")).unmask(EMPTY, False), file.crs, file.transform, *file.size)["slope"]
    np.testing.assert_allclose(got[1:-1, 1:-1], expected, rtol=1e-6, atol=1e-6)
    border = np.ones(file.size, dtype=np.bool_)
    border[1:-1, 1:-1] = False
    assert (got[border] == EMPTY).all()


def test_beyond_the_files_edge_unmask_fills_only_what_it_is_told_to(files: dict[str, File]) -> None:
    file = files[OPTICAL]
    shifted = file.transform @ Affine.translation(-30, -20)
    bright = _image(OPTICAL).select("b0").toInt32()
    masked = bright.updateMask(bright.gt(int(np.median(file.data[0]))))
    inside = np.zeros((100, 120), dtype=np.bool_)
    inside[20:, 30:] = True
    kept, values = np.zeros_like(inside), np.zeros(inside.shape, dtype=np.int32)
    values[20:, 30:] = file.data[0][:80, :90]
    kept[20:, 30:] = file.data[0][:80, :90] > int(np.median(file.data[0]))
    everywhere = _on(masked.unmask(EMPTY, False), file.crs, shifted, 100, 120)["b0"]
    np.testing.assert_array_equal(everywhere, np.where(kept, values, EMPTY))
    same = _on(masked.unmask(EMPTY).rename("same").unmask(7, False), file.crs, shifted, 100, 120)["same"]
    np.testing.assert_array_equal(same, np.where(kept, values, np.where(inside, EMPTY, 7)))


def test_composites_of_masked_bands_are_numpys_and_scipys(files: dict[str, File]) -> None:
    file = files[OPTICAL]
    bands = [1, 2, 3, 4, 8]
    layers = [_image(OPTICAL).select([f"b{band}"], ["v"]).toInt32() for band in bands]
    stack = ee.ImageCollection([layer.updateMask(layer.mod(3).neq(0)) for layer in layers])
    values = np.ma.masked_array(file.data[bands].astype(np.int64), file.data[bands].astype(np.int64) % 3 == 0)
    known = ~values.mask.all(axis=0)
    for name, expected in {
        "mean": values.mean(axis=0), "median": np.ma.median(values, axis=0), "max": values.max(axis=0),
        "sum": values.sum(axis=0),
    }.items():  # fmt: skip
        got = _on(getattr(stack, name)().unmask(EMPTY, False), file.crs, file.transform, *file.size)["v"]
        np.testing.assert_allclose(got, np.where(known, expected.filled(EMPTY), EMPTY), rtol=1e-9, err_msg=name)
    classes = ee.ImageCollection([layer.divide(200).toUint8() for layer in layers]).mode()
    labels = np.clip(file.data[bands].astype(np.int64) // 200, 0, 255)
    expected = stats.mode(labels, axis=0).mode
    np.testing.assert_array_equal(_on(classes, file.crs, file.transform, *file.size)["v"], expected)
