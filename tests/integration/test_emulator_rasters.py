"""Pixels that our export never asks for, through the real client, against rasterio, NumPy, SciPy and pyproj."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ee
import numpy as np
import pytest
import shapely
from ee.ee_exception import EEException
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from scipy import ndimage, stats

from mmearth_data.emulator.assets import NativeGrid
from tests.emulated import (
    RecordedCollection,
    SmallArchive,
    connected,
    image_asset,
    pattern,
    pattern_valid,
    pattern_values,
    pixels,
    start_emulator,
)

HEIGHT, WIDTH = 90, 100
TRANSFORM = (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0)
UTM = NativeGrid("EPSG:32633", TRANSFORM, (HEIGHT, WIDTH))
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
COUNT = 6


def _smooth(row: int, column: int, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    rows, columns = np.mgrid[row : row + height, column : column + width]
    return 50 + 40 * np.sin(rows / 7) * np.cos(columns / 9), np.ones((height, width), dtype=np.bool_)


def _scene(number: int) -> Any:
    bands = {"p": ("int16", UTM, pattern(37 * number)), "q": ("int16", UTM, pattern(11 * number + 500))}
    return image_asset(f"test/scenes/s{number}", bands, time=number * 86_400_000, cloud=number % 3)


ARCHIVE = SmallArchive(
    [
        image_asset("test/image", {"p": ("int16", UTM, pattern(0)), "s": ("float64", UTM, _smooth)}),
        RecordedCollection("test/scenes", [_scene(i) for i in range(COUNT)]),
    ]
)


@pytest.fixture(scope="module", autouse=True)
def _connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=ARCHIVE) as running, connected(running.url):
        yield


def _native(image: ee.Image, height: int = HEIGHT, width: int = WIDTH) -> NDArray[Any]:
    return pixels(image, UTM.crs, TRANSFORM, height, width)


def _both(image: ee.Image) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
    """Values and masks of every band on the native grid."""
    names = image.bandNames().getInfo()
    got = _native(image.unmask(0, False).addBands(image.mask().rename([f"{name}_mask" for name in names])))
    return {n: got[n] for n in names}, {n: got[f"{n}_mask"] == 1 for n in names}


VALID = pattern_valid(ROWS, COLUMNS)
P, Q = pattern_values(ROWS, COLUMNS), pattern_values(ROWS, COLUMNS, 500)
STACK = np.stack([pattern_values(ROWS, COLUMNS, 37 * k) for k in range(COUNT)]).astype(np.float64)


def _p() -> ee.Image:
    return ee.Image("test/image").select("p")


def _s() -> ee.Image:
    return ee.Image("test/image").select("s")


SMOOTH = _smooth(0, 0, HEIGHT, WIDTH)[0]


def test_clipping_masks_by_pixel_centres_and_bounds_the_image() -> None:
    points = [(300055, 6199910), (300700, 6199800), (300520, 6199300), (300130, 6199420)]
    clipped = _p().clip(ee.Geometry.Polygon(points, proj="EPSG:32633", geodesic=False))
    values, valid = _both(clipped)
    inside = geometry_mask([shapely.Polygon(points)], (HEIGHT, WIDTH), Affine(*TRANSFORM), invert=True)
    differing = (valid["p"] != (VALID & inside)).sum()
    assert differing <= 1  # edges in degrees bow by less than a hundredth of a pixel
    np.testing.assert_array_equal(values["p"][valid["p"]], P[valid["p"]])
    (band,) = clipped.getInfo()["bands"]
    assert (band["origin"], band["dimensions"]) == ([5, 9], [65, 61])
    assert band["crs_transform"] == list(TRANSFORM)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_reprojection_is_gdals(method: str) -> None:
    target = (7.0, 0.0, 300110.0, 0.0, -7.0, 6199880.0)
    image = _s() if method == "nearest" else _s().resample("bilinear")
    got = pixels(image.reproject(UTM.crs, list(target)), UTM.crs, target, 60, 70)["s"]
    expected = np.zeros((60, 70))
    reproject(
        SMOOTH, expected, src_transform=Affine(*TRANSFORM), src_crs=UTM.crs, dst_transform=Affine(*target),
        dst_crs=UTM.crs, resampling=Resampling[method], src_nodata=None,
    )  # fmt: skip
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_reprojecting_to_another_crs_takes_the_pixel_under_each_centre() -> None:
    change = Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = change.transform(300450.0, 6199550.0)
    target = (1e-4, 0.0, lon - 15e-4, 0.0, -1e-4, lat + 15e-4)
    got = pixels(_p().reproject("EPSG:4326", list(target)).unmask(-1, False), "EPSG:4326", target, 30, 30)["p"]
    x, y = np.meshgrid(target[2] + (np.arange(30) + 0.5) * 1e-4, target[5] - (np.arange(30) + 0.5) * 1e-4)
    east, north = Transformer.from_crs(4326, 32633, always_xy=True).transform(x, y)
    columns, rows = np.floor((east - 300000) / 10).astype(int), np.floor((6200000 - north) / 10).astype(int)
    expected = np.where(pattern_valid(rows, columns), pattern_values(rows, columns), -1)
    np.testing.assert_array_equal(got, expected)


def test_a_reprojected_image_is_read_back_from_its_coarse_pixels() -> None:
    coarse = (50.0, 0.0, 300000.0, 0.0, -50.0, 6200000.0)
    got = _native(_s().reproject(UTM.crs, list(coarse)), 60, 60)["s"]
    centres = SMOOTH[2:60:5, 2:60:5]
    np.testing.assert_array_equal(got, np.kron(centres, np.ones((5, 5))))


def test_a_default_projection_decides_what_resampling_interpolates() -> None:
    coarse = (40.0, 0.0, 300000.0, 0.0, -40.0, 6200000.0)
    image = _s().max(0).setDefaultProjection(UTM.crs, list(coarse))
    assert image.projection().getInfo()["transform"] == list(coarse)
    assert image.projection().nominalScale().getInfo() == 40
    plain = _native(image, 40, 40)["s"]
    np.testing.assert_array_equal(plain, SMOOTH[:40, :40])
    # Pixels of 40 m hold what lies under their centres: the native pixel whose corner is there.
    samples = SMOOTH[2::4, 2::4][:12, :12]
    rows, columns = (np.arange(8, 32) - 1.5) / 4, (np.arange(8, 32) - 1.5) / 4
    expected = ndimage.map_coordinates(samples, np.meshgrid(rows, columns, indexing="ij"), order=1)
    got = _native(image.resample("bilinear"), 32, 32)["s"][8:, 8:]
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_coarse_pixels_reduced_from_fine_ones_are_block_means() -> None:
    coarse = (50.0, 0.0, 300000.0, 0.0, -50.0, 6200000.0)
    got = pixels(_s().reduceResolution(ee.Reducer.mean(), False, 1024), UTM.crs, coarse, 10, 12)["s"]
    np.testing.assert_allclose(got, SMOOTH[:50, :60].reshape(10, 5, 12, 5).mean(axis=(1, 3)))
    with pytest.raises(EEException, match="Too many input pixels per output pixel"):
        pixels(_s().reduceResolution(ee.Reducer.mean(), False, 16), UTM.crs, coarse, 2, 2)


def test_a_pixel_alone_is_reduced_too() -> None:
    """On the native grid there is one pixel to reduce: its count is 1, its deviation 0, its mean itself."""
    for reducer, expected in (
        (ee.Reducer.count(), np.ones((9, 7))), (ee.Reducer.stdDev(), np.zeros((9, 7))),
        (ee.Reducer.mean(), SMOOTH[:9, :7]),
    ):  # fmt: skip
        np.testing.assert_allclose(_native(_s().reduceResolution(reducer), 9, 7)["s"], expected)


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [
        (lambda: ee.Reducer.mean(), lambda stack: stack.mean(axis=0)),
        (lambda: ee.Reducer.median(), lambda stack: np.median(stack, axis=0)),
        (lambda: ee.Reducer.stdDev(), lambda stack: stack.std(axis=0)),
        (lambda: ee.Reducer.sampleVariance(), lambda stack: stack.var(axis=0, ddof=1)),
        (lambda: ee.Reducer.min(), lambda stack: stack.min(axis=0)),
        (lambda: ee.Reducer.max(), lambda stack: stack.max(axis=0)),
        (lambda: ee.Reducer.sum(), lambda stack: stack.sum(axis=0)),
        (lambda: ee.Reducer.product(), lambda stack: stack.prod(axis=0)),
        (lambda: ee.Reducer.first(), lambda stack: stack[0]),
        (lambda: ee.Reducer.last(), lambda stack: stack[-1]),
        (lambda: ee.Reducer.count(), lambda stack: np.full(stack.shape[1:], len(stack))),
        (lambda: ee.Reducer.skew(), lambda stack: stats.skew(stack, axis=0)),
        (lambda: ee.Reducer.kurtosis(), lambda stack: stats.kurtosis(stack, axis=0)),
        (lambda: ee.Reducer.percentile([30]), lambda stack: np.percentile(stack, 30, axis=0, method="hazen")),
        (lambda: ee.Reducer.allNonZero(), lambda stack: (stack != 0).all(axis=0)),
        (lambda: ee.Reducer.countDistinct(), lambda stack: stats.rankdata(stack, "dense", axis=0).max(axis=0)),
    ],
)
def test_collections_reduce_as_numpy_does(
    reducer: Callable[[], ee.Reducer], expected: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    values, valid = _both(ee.ImageCollection("test/scenes").select("p").reduce(reducer()))
    ((name, got),) = values.items()
    assert name.startswith("p_")
    np.testing.assert_array_equal(valid[name], VALID)
    np.testing.assert_allclose(got[VALID], expected(STACK)[VALID], rtol=1e-9, atol=1e-9)


def test_masked_images_are_left_out_of_statistics() -> None:
    scenes = ee.ImageCollection("test/scenes").select("p").map(lambda image: image.updateMask(image.gt(500)))
    values, valid = _both(scenes.reduce(ee.Reducer.mean().combine(ee.Reducer.count(), "", True)))
    kept = np.ma.masked_array(STACK, (STACK <= 500) | ~VALID)
    np.testing.assert_array_equal(valid["p_mean"], kept.count(axis=0) > 0)
    np.testing.assert_allclose(values["p_mean"][valid["p_mean"]], kept.mean(axis=0).compressed())
    np.testing.assert_array_equal(values["p_count"], kept.count(axis=0))


def test_a_line_is_fitted_through_every_pixel() -> None:
    scenes = ee.ImageCollection("test/scenes").map(
        lambda image: ee.Image.constant(image.date().millis()).divide(86_400_000).toFloat().addBands(image.select("p"))
    )
    values, valid = _both(scenes.reduce(ee.Reducer.linearFit()))
    slope, offset = np.polyfit(np.arange(COUNT), STACK.reshape(COUNT, -1), 1)
    np.testing.assert_allclose(values["scale"][VALID], slope.reshape(VALID.shape)[VALID], atol=1e-4)
    np.testing.assert_allclose(values["offset"][VALID], offset.reshape(VALID.shape)[VALID], atol=1e-3)
    np.testing.assert_array_equal(valid["scale"], VALID)


def test_mosaics_show_the_last_valid_image_and_the_best_one() -> None:
    scenes = ee.ImageCollection("test/scenes").map(lambda image: image.updateMask(image.select("p").lt(700)))
    kept = STACK < 700
    order = np.where(kept, np.arange(COUNT)[:, None, None], -1).max(axis=0)
    values, valid = _both(scenes.mosaic())
    np.testing.assert_array_equal(valid["p"], VALID & (order >= 0))
    chosen = np.take_along_axis(STACK, np.maximum(order, 0)[None], axis=0)[0]
    np.testing.assert_array_equal(values["p"][valid["p"]], chosen[valid["p"]])
    best = np.where(kept, STACK, -1).argmax(axis=0)
    values, valid = _both(scenes.qualityMosaic("p"))
    other = np.stack([pattern_values(ROWS, COLUMNS, 11 * k + 500) for k in range(COUNT)])
    np.testing.assert_array_equal(values["q"][valid["q"]], np.take_along_axis(other, best[None], axis=0)[0][valid["q"]])


def test_where_replaces_only_where_test_and_value_are_valid() -> None:
    test = _p().gt(300).updateMask(_p().lt(800))
    value = ee.Image(5).addBands(ee.Image(6)).select(0).updateMask(_p().mod(2).eq(0))
    values, valid = _both(_p().where(test, value))
    expected = np.where((P > 300) & (P < 800) & (P % 2 == 0), 5, P)
    np.testing.assert_array_equal(valid["p"], VALID)
    np.testing.assert_array_equal(values["p"][VALID], expected[VALID])


MATHS: list[tuple[Callable[[ee.Image, ee.Image], ee.Image], Callable[[Any, Any], Any]]] = [
    (lambda x, y: x.pow(2), lambda x, y: x**2.0),
    (lambda x, y: x.mod(y), lambda x, y: np.where(y == 0, 0, np.fmod(x, np.maximum(y, 1)))),
    (lambda x, y: x.atan2(y), lambda x, y: np.arctan2(y, x)),
    (lambda x, y: x.hypot(y), np.hypot),
    (lambda x, y: x.And(y.gt(500)), lambda x, y: (x != 0) & (y > 500)),
    (lambda x, y: x.Or(y.gt(500)), lambda x, y: (x != 0) | (y > 500)),
    (lambda x, y: x.Not(), lambda x, y: x == 0),
    (lambda x, y: x.bitwiseAnd(y), np.bitwise_and),
    (lambda x, y: x.bitwiseXor(y), np.bitwise_xor),
    (lambda x, y: x.rightShift(3), lambda x, y: x >> 3),
    (lambda x, y: x.leftShift(7), lambda x, y: x.astype(np.int64) << 7),
    (lambda x, y: x.add(1).log(), lambda x, y: np.log(x + 1)),
    (lambda x, y: x.sqrt(), lambda x, y: np.sqrt(x)),
    (lambda x, y: x.divide(500).sin(), lambda x, y: np.sin(x / 500)),
    (lambda x, y: x.clamp(200, 600), lambda x, y: np.clip(x, 200, 600)),
    (lambda x, y: x.unitScale(100, 300), lambda x, y: (x - 100) / 200),
    (lambda x, y: x.addBands(y).normalizedDifference(), lambda x, y: (x - y) / np.where(x + y == 0, 1, x + y)),
    (lambda x, y: x.subtract(y).signum(), lambda x, y: np.sign(x - y)),
    (lambda x, y: x.addBands(y).reduce(ee.Reducer.max()), np.maximum),
    (lambda x, y: ee.Image.cat([x, y, x]).reduce(ee.Reducer.median()), lambda x, y: np.median([x, y, x], axis=0)),
    (lambda x, y: x.divide(37).toInt8(), lambda x, y: np.trunc(x / 37)),
]


@pytest.mark.parametrize("case", range(len(MATHS)))
def test_pixel_mathematics_is_numpys(case: int) -> None:
    build, expected = MATHS[case]
    scene = ee.Image("test/scenes/s0")
    values, valid = _both(build(scene.select("p"), scene.select("q")))
    ((name, got),) = values.items()
    np.testing.assert_array_equal(valid[name], VALID)
    np.testing.assert_allclose(got[VALID], np.asarray(expected(P, Q), dtype=np.float64)[VALID], rtol=1e-6, atol=1e-7)


def test_remapping_masks_or_fills_what_no_list_has() -> None:
    image = _p().mod(10)
    values, valid = _both(image.remap([1, 4, 7], [10, 40, 70]))
    np.testing.assert_array_equal(valid["remapped"], VALID & np.isin(P % 10, [1, 4, 7]))
    np.testing.assert_array_equal(values["remapped"][valid["remapped"]], (P % 10 * 10)[valid["remapped"]])
    values, valid = _both(image.remap([1, 4, 7], [10, 40, 70], 3))
    np.testing.assert_array_equal(
        values["remapped"][VALID], np.where(np.isin(P % 10, [1, 4, 7]), P % 10 * 10, 3)[VALID]
    )


def test_masks_are_read_set_and_blended() -> None:
    values, _ = _both(_p().mask())
    np.testing.assert_array_equal(values["p"], VALID)
    values, valid = _both(_p().gt(400).selfMask())
    np.testing.assert_array_equal(valid["p"], VALID & (P > 400))
    values, valid = _both(ee.Image(7).toInt16().rename("p").blend(_p()))
    np.testing.assert_array_equal(values["p"], np.where(VALID, P, 7))
    assert valid["p"].all()


FOCAL = slice(10, 40)


def _disc(radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[-int(radius) : int(radius) + 1, -int(radius) : int(radius) + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def test_neighbourhoods_are_scipys() -> None:
    footprint = _disc(2.5)
    for got, expected in (
        (_s().focalMax(2.5), ndimage.maximum_filter(SMOOTH, footprint=footprint)),
        (_s().focalMin(2, "square"), ndimage.minimum_filter(SMOOTH, 5)),
        (_s().focalMedian(2, "square"), ndimage.median_filter(SMOOTH, 5)),
        (_s().focalMean(2.5), ndimage.correlate(SMOOTH, footprint / footprint.sum())),
        (_s().convolve(ee.Kernel.sobel()), ndimage.correlate(SMOOTH, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])),
        (_s().convolve(ee.Kernel.square(1.5)), ndimage.uniform_filter(SMOOTH, 3)),
        (
            _s().reduceNeighborhood(ee.Reducer.stdDev(), ee.Kernel.square(1)),
            np.sqrt(ndimage.uniform_filter(SMOOTH**2, 3) - ndimage.uniform_filter(SMOOTH, 3) ** 2),
        ),
    ):
        image = got.rename("s")
        np.testing.assert_allclose(_native(image)["s"][FOCAL, FOCAL], expected[FOCAL, FOCAL], rtol=1e-6)


def test_images_know_where_their_pixels_are_and_how_large() -> None:
    got = _native(ee.Image.pixelLonLat().addBands(ee.Image.pixelArea()), 4, 5)
    x, y = np.meshgrid(300000 + 10 * (np.arange(5) + 0.5), 6200000 - 10 * (np.arange(4) + 0.5))
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(x, y)
    np.testing.assert_allclose(got["longitude"], lon)
    np.testing.assert_allclose(got["latitude"], lat)
    square = shapely.segmentize(shapely.box(300000, 6199990, 300010, 6200000), 1)
    ring = Transformer.from_crs(32633, 4326, always_xy=True).transform(*np.transpose(square.exterior.coords))
    area = abs(Geod(ellps="WGS84").polygon_area_perimeter(*ring)[0])
    assert got["area"][0, 0] == pytest.approx(area, rel=1e-6)
    grid = ee.Projection("EPSG:32633", list(TRANSFORM))
    np.testing.assert_allclose(_native(ee.Image.pixelCoordinates(grid), 4, 5)["x"][0], np.arange(5) + 0.5)
    noise = _native(ee.Image.random(3))["random"]
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-4
    part = pixels(ee.Image.random(3), UTM.crs, (10.0, 0.0, 300200.0, 0.0, -10.0, 6199900.0), 5, 5)
    np.testing.assert_array_equal(part["random"], noise[10:15, 20:25])


def test_dtypes_promote_to_what_holds_both() -> None:
    cases = {
        "int16 with uint8": (_p().where(_p().gt(3), ee.Image(200)), {"precision": "int", "min": -32768, "max": 32767}),
        "clamped": (_p().clamp(0, 5), {"precision": "int", "min": -32768, "max": 32767}),
        "root": (_p().sqrt(), {"precision": "double"}),
        "float": (_p().toFloat().sqrt(), {"precision": "float"}),
        "comparison": (_p().And(_s()), {"precision": "int", "min": 0, "max": 255}),
    }
    for name, (image, expected) in cases.items():
        assert image.getInfo()["bands"][0]["data_type"] == {"type": "PixelType", **expected}, name
