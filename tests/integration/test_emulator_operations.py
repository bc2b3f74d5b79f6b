"""Casts, masks, arithmetic, composites and reductions through the real client, against NumPy, shapely and pyproj."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import ee
import numpy as np
import pytest
import shapely
from ee.ee_exception import EEException
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from mmearth_data.emulator.assets import NativeGrid
from tests.emulated import (
    RecordedCollection,
    Running,
    SmallArchive,
    connected,
    image_asset,
    level,
    pattern,
    pattern_valid,
    pattern_values,
    pixels,
    start_emulator,
)

Coefficients = tuple[float, float, float, float, float, float]

# Analytic images: values and masks follow from native row and column.
UTM10 = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200040.0))
UTM20 = NativeGrid("EPSG:32633", (20.0, 0.0, 300000.0, 0.0, -20.0, 6200040.0))
ARC_SECOND = NativeGrid("EPSG:4326", (1 / 3600, 0.0, 10.0, 0.0, -1 / 3600, 60.0), (36000, 36000))
TENTH = NativeGrid("EPSG:4326", (0.1, 0.0, -180.05, 0.0, -0.1, 90.05), (1801, 3601))
WEDGE = shapely.Polygon([(11.9, 55.0), (11.9, 56.0), (11.83, 56.0), (11.8, 55.8)])
CELL = ("EPSG:32633", (10.0, 0.0, 300800.0, 0.0, -10.0, 6199680.0), 40, 48)
LEVELS = (4, 250, 4, 9, 250, 250, 1)


def _ramp(row: int, column: int, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Elevation that rises 3 m per column and 4 m per row."""
    rows, columns = np.mgrid[row : row + height, column : column + width]
    return 3.0 * columns + 4.0 * rows, np.ones((height, width), dtype=np.bool_)


def _scene(number: int) -> Any:
    bands = {
        "v": ("uint8", UTM20 if number % 2 else UTM10, level(LEVELS[number])),
        "p": ("int16", UTM10, pattern(number)),
    }
    return image_asset(f"test/scenes/s{number}", bands, time=number * 86_400_000)


def _month(number: int) -> Any:
    bands = {"t": ("float64", TENTH, pattern(number)), "r": ("float64", TENTH, pattern(100 * number))}
    return image_asset(f"test/months/2018{number + 1:02d}", bands, time=number)


ANALYTIC = SmallArchive(
    [
        image_asset("test/plane", {"a": ("uint16", UTM10, pattern()), "b": ("uint16", UTM20, pattern(5))}),
        image_asset("test/wedge", {"a": ("uint16", UTM10, pattern())}, WEDGE),
        image_asset("test/ramp", {"z": ("float32", UTM10, _ramp), "deg": ("float32", ARC_SECOND, _ramp)}),
        RecordedCollection("test/scenes", [_scene(i) for i in range(len(LEVELS))]),
        RecordedCollection("test/months", [_month(i) for i in range(3)]),
    ]
)


@pytest.fixture
def analytic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("log"), archive=ANALYTIC) as running, connected(running.url):
        yield running


def _native(grid: tuple[str, Coefficients, int, int], native: NativeGrid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Native row and column that contain each pixel centre, by pyproj and the affines alone."""
    crs, (a, _, c, _, e, f), height, width = grid
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = Transformer.from_crs(crs, native.crs, always_xy=True).transform(a * columns + c, e * rows + f)
    na, _, nc, _, ne, nf = native.transform
    return np.floor((y - nf) / ne).astype(int), np.floor((x - nc) / na).astype(int)


def test_masked_pixels_arrive_as_0_and_each_band_in_its_type(analytic: Running) -> None:
    image = ee.Image("test/plane")
    got = pixels(image.addBands(image.select("b").toInt8().rename("c")), *CELL)
    assert got.dtype == np.dtype([("a", "<u2"), ("b", "<u2"), ("c", "i1")])
    for band, native, offset in (("a", UTM10, 0), ("b", UTM20, 5)):
        rows, columns = _native(CELL, native)
        expected = np.where(pattern_valid(rows, columns), pattern_values(rows, columns, offset), 0)
        np.testing.assert_array_equal(got[band], expected)
    np.testing.assert_array_equal(got["c"], np.minimum(got["b"], 127))


def _in_wedge() -> NDArray[np.bool_]:
    crs, (a, _, c, _, e, f), height, width = CELL
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(a * columns + c, e * rows + f)
    return np.array(
        [[WEDGE.contains(shapely.Point(*p)) for p in zip(*r, strict=True)] for r in zip(lon, lat, strict=True)]
    )


def test_unmask_stops_at_the_footprint_unless_told_otherwise(analytic: Running) -> None:
    inside = _in_wedge()
    assert 0.1 < inside.mean() < 0.9
    rows, columns = _native(CELL, UTM10)
    known = pattern_valid(rows, columns) & inside
    values = pattern_values(rows, columns)
    image = ee.Image("test/wedge")
    asked = (
        image.rename("masked")
        .addBands(image.unmask(2000).rename("same"))
        .addBands(image.unmask(2000, False).rename("everywhere"))
        .addBands(image.unmask(3000, False).unmask(4000).rename("twice"))
    )
    got = pixels(asked, *CELL)
    np.testing.assert_array_equal(got["masked"], np.where(known, values, 0))
    np.testing.assert_array_equal(got["same"], np.where(known, values, np.where(inside, 2000, 0)))
    np.testing.assert_array_equal(got["everywhere"], np.where(known, values, 2000))
    np.testing.assert_array_equal(got["twice"], np.where(known, values, 3000))


def test_unmask_by_an_image_takes_its_mask_too(analytic: Running) -> None:
    rows, columns = _native(CELL, UTM10)
    rows20, columns20 = _native(CELL, UTM20)
    plane = ee.Image("test/plane")
    got = pixels(plane.select("a").unmask(plane.select("b")), *CELL)["a"]
    other = np.where(pattern_valid(rows20, columns20), pattern_values(rows20, columns20, 5), 0)
    np.testing.assert_array_equal(got, np.where(pattern_valid(rows, columns), pattern_values(rows, columns), other))


@pytest.mark.parametrize(
    ("cast", "dtype", "expected"),
    [
        ("toUint8", "uint8", [0, 0, 1, 255, 255]),
        ("toInt8", "int8", [-128, -1, 1, 127, 127]),
        ("toUint16", "uint16", [0, 0, 1, 300, 65535]),
        ("toInt16", "int16", [-32768, -1, 1, 300, 32767]),
        ("toUint32", "uint32", [0, 0, 1, 300, 4294967295]),
        ("toInt32", "int32", [-100000, -1, 1, 300, 2147483647]),
        ("toFloat", "float32", [np.float32(x) for x in (-1e5, -1.7, 1.7, 300.9, 1e12)]),
        ("round", "float64", [-1e5, -2, 2, 301, 1e12]),
        ("floor", "float64", [-1e5, -2, 1, 300, 1e12]),
        ("ceil", "float64", [-1e5, -1, 2, 301, 1e12]),
    ],
)
def test_casts_truncate_towards_zero_and_clamp(analytic: Running, cast: str, dtype: str, expected: list[float]) -> None:
    got = pixels(getattr(ee.Image.constant([-1e5, -1.7, 1.7, 300.9, 1e12]), cast)(), *CELL[:2], 1, 1)[0, 0]
    assert {str(got.dtype[name]) for name in got.dtype.names} == {dtype}
    assert list(got.tolist()) == expected


def test_round_takes_halves_up(analytic: Running) -> None:
    got = pixels(ee.Image.constant([-2.5, -0.5, 0.5, 2.5]).round(), *CELL[:2], 1, 1)[0, 0]
    assert list(got.tolist()) == [-2, 0, 1, 3]


def test_arithmetic_pairs_bands_by_name_and_broadcasts_single_ones(analytic: Running) -> None:
    left = ee.Image.constant([7, -3]).rename(["x", "y"])
    right = ee.Image.constant([10, 100]).rename(["y", "x"])
    cases = {
        "add": (left.add(right), [107, 7]),
        "subtract": (left.subtract(right), [-93, -13]),
        "scale": (left.multiply(3), [21, -9]),
        "divide": (left.divide(2), [3.5, -1.5]),
        "zero": (left.divide(0), [0, 0]),
        "max": (left.max(1), [7, 1]),
        "min": (ee.Image(1).min(left), [1, -3]),
        "gt": (left.gt(0), [1, 0]),
    }
    for name, (image, expected) in cases.items():
        got = pixels(image, *CELL[:2], 1, 1)[0, 0]
        assert got.dtype.names == ("x", "y"), name
        assert list(got.tolist()) == expected, name
    with pytest.raises(EEException, match="2 and 3 bands"):
        pixels(left.add(ee.Image.constant([1, 2, 3])), *CELL)


def test_update_mask_and_unmask_are_masked_as_arrays_are(analytic: Running) -> None:
    plane = ee.Image("test/plane").select("a")
    got = pixels(plane.updateMask(plane.gt(500)).unmask(9999, False), *CELL)["a"]
    rows, columns = _native(CELL, UTM10)
    values = pattern_values(rows, columns)
    np.testing.assert_array_equal(got, np.where(pattern_valid(rows, columns) & (values > 500), values, 9999))


def test_bands_are_selected_by_name_pattern_and_index_and_never_lost_by_adding(analytic: Running) -> None:
    image = ee.Image.constant([1, 2, 3]).rename(["B1", "B2", "QA"])
    assert image.select("B.").bandNames().getInfo() == ["B1", "B2"]
    assert image.select([2, "B1"], ["q", "b"]).bandNames().getInfo() == ["q", "b"]
    assert image.addBands(image.select("B1")).bandNames().getInfo() == ["B1", "B2", "QA", "B1_1"]
    replaced = image.addBands(ee.Image(9).rename("B2"), overwrite=True)
    assert list(pixels(replaced, *CELL[:2], 1, 1)[0, 0].tolist()) == [1, 9, 3]
    with pytest.raises(EEException, match="'B8' did not match any bands"):
        image.select("B8").getInfo()
    with pytest.raises(EEException, match="number of names"):
        image.rename(["a"]).getInfo()


def _stack(band: str) -> np.ma.MaskedArray[Any, Any]:
    layers = []
    for number, value in enumerate(LEVELS):
        rows, columns = _native(CELL, UTM10)
        if band == "v":
            layers.append(np.ma.array(np.full(rows.shape, float(value))))
        else:
            layers.append(np.ma.array(pattern_values(rows, columns, number), mask=~pattern_valid(rows, columns)))
    return np.ma.stack(layers)


@pytest.mark.parametrize("statistic", ["mean", "min", "max", "sum"])
def test_composites_are_numpys_over_valid_pixels(analytic: Running, statistic: str) -> None:
    got = pixels(getattr(ee.ImageCollection("test/scenes"), statistic)().unmask(-1, False), *CELL)
    for band in ("v", "p"):
        expected = getattr(_stack(band), statistic)(axis=0)
        np.testing.assert_allclose(got[band], expected.filled(-1), rtol=1e-12)


def test_the_mode_is_the_most_frequent_value_and_the_smallest_of_several(analytic: Running) -> None:
    scenes = ee.ImageCollection("test/scenes").select("v")
    assert np.unique(pixels(scenes.mode(), *CELL)["v"]).tolist() == [250]
    tie = scenes.filterDate(0, 4 * 86_400_000).merge(scenes.filterDate(4 * 86_400_000, 5 * 86_400_000))
    assert np.unique(pixels(ee.ImageCollection(tie).mode(), *CELL)["v"]).tolist() == [4]


def test_a_composite_of_nothing_has_no_bands_and_cannot_be_renamed(analytic: Running) -> None:
    nothing = ee.ImageCollection("test/scenes").filterDate("2001-01-01", "2002-01-01").mode()
    assert nothing.bandNames().getInfo() == []
    with pytest.raises(EEException, match="number of names"):
        nothing.rename(["a"]).getInfo()
    with pytest.raises(EEException, match="composite"):
        pixels(ee.ImageCollection("test/scenes").mean().resample("bilinear"), *CELL)


def test_resampling_happens_before_arithmetic_on_the_output_grid(analytic: Running) -> None:
    """The square of an interpolated ramp is not the interpolated square."""
    image = ee.Image("test/ramp").select("z")
    grid = ("EPSG:32633", (10.0, 0.0, 300204.0, 0.0, -10.0, 6199777.0), 6, 6)
    smooth = image.resample("bilinear")
    got = pixels(smooth.multiply(smooth), *grid)["z"]
    rows, columns = np.mgrid[0:6, 0:6]
    z = 3 * (columns + 20.4) + 4 * (rows + 26.3)
    np.testing.assert_allclose(got, z * z, rtol=1e-9)


def test_slope_in_degrees_uses_metres_on_the_ellipsoid(analytic: Running) -> None:
    slope = ee.Terrain.slope(ee.Image("test/ramp").select("z"))
    expected = math.degrees(math.atan(math.hypot(3, 4) / 10))
    np.testing.assert_allclose(pixels(slope, *CELL)["slope"], expected, rtol=1e-9)
    slope = ee.Terrain.slope(ee.Image("test/ramp").select("deg"))
    lon, lat, step = 15.0, 57.0, 1 / 3600
    got = pixels(slope, "EPSG:4326", (step, 0.0, lon, 0.0, -step, lat), 1, 1)["slope"][0, 0]
    geod = Geod(ellps="WGS84")
    middle = lat - step / 2
    east = geod.inv(lon, middle, lon + step, middle)[2]
    north = geod.inv(lon, middle - step / 2, lon, middle + step / 2)[2]
    assert got == pytest.approx(math.degrees(math.atan(math.hypot(3 / east, 4 / north))), rel=1e-6)


def test_linked_bands_come_from_the_twin_and_are_masked_without_one(analytic: Running) -> None:
    source = ee.Image("test/plane").select("a").set("system:index", "s3")
    linked = source.linkCollection(ee.ImageCollection("test/scenes"), ["p"])
    rows, columns = _native(CELL, UTM10)
    expected = np.where(pattern_valid(rows, columns), pattern_values(rows, columns, 3), -5)
    np.testing.assert_array_equal(pixels(linked.select("p").unmask(-5, False), *CELL)["p"], expected)
    alone = source.set("system:index", "s99").linkCollection(ee.ImageCollection("test/scenes"), ["p"])
    assert alone.bandNames().getInfo() == ["a", "p"]
    assert (pixels(alone.select("p").unmask(-5, False), *CELL)["p"] == -5).all()


def test_reducing_over_points_reads_the_pixel_that_contains_them(analytic: Running) -> None:
    points = [(12.34, 55.52), (-70.07, -10.02), (100.01, 44.98)]
    stack = ee.ImageCollection("test/months").select(["t", "r"]).toBands()
    table = ee.FeatureCollection([ee.Feature(ee.Geometry.Point(p), {"n": i}) for i, p in enumerate(points)])
    asked = stack.reduceRegions(table, ee.Reducer.first())
    rows = ee.data.computeFeatures({"expression": asked})["features"]
    assert [row["properties"]["n"] for row in rows] == [0, 1, 2]
    masked = 0
    for row, (lon, lat) in zip(rows, points, strict=True):
        at = np.array([math.floor((90.05 - lat) / 0.1)]), np.array([math.floor((lon + 180.05) / 0.1)])
        for month in range(3):
            for band, offset in (("t", month), ("r", 100 * month)):
                value = row["properties"][f"2018{month + 1:02d}_{band}"]
                expected = float(pattern_values(*at, offset)[0]) if pattern_valid(*at)[0] else None
                masked += expected is None
                assert value == expected
    assert 0 < masked < 18
    single = ee.Image("test/months/201801").select("t").reduceRegions(table.limit(1), ee.Reducer.first()).first()
    assert set(single.getInfo()["properties"]) == {"n", "first"}


def test_reducing_on_another_grid_takes_the_pixel_of_that_grid(analytic: Running) -> None:
    """A 100 m pixel is what lies under its centre, wherever in it the point is."""
    point = ee.Geometry.Point([300812.0, 6199655.0], "EPSG:32633")
    image = ee.Image("test/ramp").select("z")
    got = image.reduceRegion(
        ee.Reducer.first(), point, crs="EPSG:32633", crsTransform=[100, 0, 0, 0, -100, 0]
    ).getInfo()
    assert got == {"z": 3.0 * 85 + 4.0 * 39}
    native = image.reduceRegion(ee.Reducer.first(), point).getInfo()
    assert native == {"z": 3.0 * 81 + 4.0 * 38}
    with pytest.raises(EEException, match="Too many pixels in the region"):
        image.reduceRegion(ee.Reducer.mean(), ee.Geometry.Rectangle([0, 0, 1, 1]), 10).getInfo()


def test_a_grid_far_coarser_than_the_image_is_refused_instead_of_read(analytic: Running) -> None:
    with pytest.raises(EEException, match="no pyramids"):
        pixels(ee.Image("test/plane").select("a"), "EPSG:32633", (1e4, 0.0, 3e5, 0.0, -1e4, 6.2e6), 64, 64)


def test_a_mask_without_a_footprint_or_a_grid_is_explained(analytic: Running) -> None:
    with pytest.raises(EEException, match="could not be parsed"):
        pixels(ee.Image(1), "EPSG:999999", CELL[1], 1, 1)
    with pytest.raises(EEException, match="no pixel grid of its own"):
        ee.data.computePixels({"expression": ee.Image(1), "fileFormat": "NUMPY_NDARRAY"})
    with pytest.raises(EEException, match=r"writes NPY, GEO_TIFF, .*; got 'TF_RECORD_IMAGE'"):
        ee.data.computePixels({"expression": ee.Image(1), "fileFormat": "TFRECORD"})
