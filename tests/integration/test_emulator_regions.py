"""Regions, samples, columns, joins and shapes, through the real client, against shapely, pyproj and NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ee
import numpy as np
import pytest
import shapely
from ee.ee_exception import EEException
from googleapiclient.errors import HttpError
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from mmearth_data.emulator import limits
from mmearth_data.emulator.assets import FeatureAsset, NativeGrid
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

DAY = 86_400_000
SIZE = 64
UTM = NativeGrid("EPSG:32633", (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0), (SIZE, SIZE))
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
VALID, P = pattern_valid(ROWS, COLUMNS), pattern_values(ROWS, COLUMNS)
TRIANGLE = shapely.Polygon([(300033, 6199951), (300512, 6199777), (300207, 6199402)])
GEOD = Geod(ellps="WGS84")
TIMES = {"a": (0, 10, 25, 60), "b": (3, 12, 31, 200)}


def _listing(name: str) -> RecordedCollection:
    images = [
        image_asset(f"test/{name}/{k}", {"p": ("int16", UTM, pattern(k))}, time=time * DAY, day=float(time), k=k)
        for k, time in enumerate(TIMES[name])
    ]
    return RecordedCollection(f"test/{name}", images)


@pytest.fixture(scope="module", autouse=True)
def _connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    places = FeatureAsset(
        "test/places", tuple((shapely.Point(10 + i / 10, 50), {"v": i * i % 7, "g": "xy"[i % 2]}) for i in range(11))
    )
    image = image_asset("test/image", {"p": ("int16", UTM, pattern(0)), "q": ("int16", UTM, pattern(500))})
    archive = SmallArchive([image, places, _listing("a"), _listing("b")])
    with start_emulator(tmp_path_factory.mktemp("log"), archive=archive) as running, connected(running.url):
        yield


def _projected(shape: shapely.Polygon) -> ee.Geometry:
    return ee.Geometry.Polygon(list(shape.exterior.coords), proj="EPSG:32633", geodesic=False)


def _parts(shape: Any) -> NDArray[np.float64]:
    """How much of each pixel a shape covers, one intersection after another."""
    parts = np.zeros((SIZE, SIZE))
    for row in range(SIZE):
        for column in range(SIZE):
            x, y = 300000 + 10 * column, 6200000 - 10 * row
            parts[row, column] = shapely.box(x, y - 10, x + 10, y).intersection(shape).area / 100
    return np.where(parts < 0.005, 0, parts)


def _image() -> ee.Image:
    return ee.Image("test/image").select("p")


def test_weighted_statistics_weigh_pixels_by_their_part_in_the_region() -> None:
    weights = _parts(TRIANGLE) * VALID
    mean = (P * weights).sum() / weights.sum()
    variance = ((P - mean) ** 2 * weights).sum() / weights.sum()
    reducer = ee.Reducer.mean().combine(ee.Reducer.sum(), "", True).combine(ee.Reducer.variance(), "", True)
    got = _image().reduceRegion(reducer, _projected(TRIANGLE)).getInfo()
    assert got == pytest.approx({"p_mean": mean, "p_sum": (P * weights).sum(), "p_variance": variance}, rel=1e-9)


def test_unweighted_statistics_take_pixels_whose_centre_is_inside() -> None:
    x, y = 300005 + 10 * COLUMNS, 6199995 - 10 * ROWS
    inside = shapely.contains_xy(TRIANGLE, x, y) & VALID
    reducer = ee.Reducer.count().combine(ee.Reducer.max(), "", True).combine(ee.Reducer.mean().unweighted(), "", True)
    got = _image().reduceRegion(reducer, _projected(TRIANGLE)).getInfo()
    assert got == pytest.approx({"p_count": inside.sum(), "p_max": P[inside].max(), "p_mean": P[inside].mean()})
    listed = _image().reduceRegion(ee.Reducer.toList(), _projected(TRIANGLE)).getInfo()["p"]
    assert sorted(listed) == sorted(P[inside].tolist())
    counts = _image().mod(5).reduceRegion(ee.Reducer.frequencyHistogram().unweighted(), _projected(TRIANGLE)).getInfo()
    values, numbers = np.unique(P[inside] % 5, return_counts=True)
    assert counts["p"] == {str(v): n for v, n in zip(values, numbers, strict=True)}


def test_combined_reducers_each_take_the_pixels_that_they_take_alone() -> None:
    weights = _parts(TRIANGLE) * VALID
    inside = shapely.contains_xy(TRIANGLE, 300005 + 10 * COLUMNS, 6199995 - 10 * ROWS) & VALID
    total, extremes = ee.Reducer.sum(), ee.Reducer.count().combine(ee.Reducer.minMax(), "", True)
    wanted = {"sum": (P * weights).sum(), "count": inside.sum(), "min": P[inside].min(), "max": P[inside].max()}
    for reducer in (total.combine(extremes, "", True), extremes.combine(total, "", True)):
        got = _image().reduceRegion(reducer, _projected(TRIANGLE)).getInfo()
        assert got == pytest.approx({f"p_{name}": value for name, value in wanted.items()}, rel=1e-9)
        (feature,) = _image().reduceRegions(ee.Feature(_projected(TRIANGLE)), reducer).getInfo()["features"]
        assert feature["properties"] == pytest.approx(wanted, rel=1e-9)
    apart = ee.Image("test/image").reduceRegion(total.combine(ee.Reducer.count()), _projected(TRIANGLE)).getInfo()
    assert apart == pytest.approx({"sum": wanted["sum"], "count": wanted["count"]}, rel=1e-9)


def test_groups_have_statistics_of_their_own() -> None:
    x, y = 300005 + 10 * COLUMNS, 6199995 - 10 * ROWS
    inside = shapely.contains_xy(TRIANGLE, x, y) & VALID
    image = _image().addBands(_image().mod(3).rename("class"))
    got = image.reduceRegion(ee.Reducer.max().group(1, "class"), _projected(TRIANGLE)).getInfo()
    assert got["groups"] == [{"class": c, "max": P[inside & (c == P % 3)].max()} for c in range(3)]


def test_features_are_measured_and_sampled() -> None:
    shapes = [shapely.box(300020, 6199800, 300090, 6199900), shapely.box(300300, 6199500, 300345, 6199600)]
    regions = ee.FeatureCollection([ee.Feature(_projected(s), {"id": k}) for k, s in enumerate(shapes)])
    got = _image().reduceRegions(regions, ee.Reducer.mean()).getInfo()["features"]
    for feature, shape in zip(got, shapes, strict=True):
        weights = _parts(shape) * VALID
        assert feature["properties"]["mean"] == pytest.approx((P * weights).sum() / weights.sum())
    samples = ee.Image("test/image").sampleRegions(regions, ["id"], 10, "EPSG:32633", 1, True).getInfo()["features"]
    for k, shape in enumerate(shapes):
        inside = shapely.contains_xy(shape, 300005 + 10 * COLUMNS, 6199995 - 10 * ROWS) & VALID
        own = [s["properties"] for s in samples if s["properties"]["id"] == k]
        assert [s["p"] for s in own] == P[inside].tolist()
        assert [s["q"] for s in own] == pattern_values(ROWS, COLUMNS, 500)[inside].tolist()
    lon, lat = samples[0]["geometry"]["coordinates"]
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(lon, lat)
    assert P[int((6200000 - y) // 10), int((x - 300000) // 10)] == samples[0]["properties"]["p"]


def test_a_table_of_a_region_has_every_image_and_pixel() -> None:
    region = _projected(shapely.box(300020, 6199960, 300050, 6199990))
    header, *rows = ee.ImageCollection("test/a").getRegion(region, 10, "EPSG:32633").getInfo()
    assert header == ["id", "longitude", "latitude", "time", "p"]
    assert len(rows) == 4 * 9
    values = [row[4] for row in rows if row[0] == "2"]
    expected = np.where(VALID, pattern_values(ROWS, COLUMNS, 2), -1)[1:4, 2:5].ravel()
    assert [-1 if value is None else value for value in values] == expected.tolist()


def test_regions_too_large_are_refused_unless_best_effort_will_do() -> None:
    region = _projected(shapely.box(300000, 6199400, 300600, 6200000))
    with pytest.raises(EEException, match=r"Too many pixels in the region\. Found 3600, but maxPixels allows only 100"):
        _image().reduceRegion(ee.Reducer.mean(), region, maxPixels=100).getInfo()
    coarse = _image().unmask(0).reduceRegion(ee.Reducer.count(), region, bestEffort=True, maxPixels=100).getInfo()
    assert 50 <= coarse["p"] <= 121
    with pytest.raises(EEException, match="Unbounded image"):
        ee.Image(1).reduceRegion(ee.Reducer.mean()).getInfo()


def test_nested_aggregations_are_refused_beyond_a_number() -> None:
    places = ee.FeatureCollection("test/places")
    few = places.map(lambda f: f.set("n", places.filter(ee.Filter.lt("v", f.get("v"))).aggregate_sum("v")))
    values = [i * i % 7 for i in range(11)]
    assert few.aggregate_array("n").getInfo() == [sum(w for w in values if w < v) for v in values]
    many = ee.FeatureCollection([ee.Feature(None, {"v": k}) for k in range(limits.MAX_NESTED_AGGREGATIONS + 1)])
    region = _projected(shapely.box(300000, 6199970, 300030, 6200000))
    nested: list[Any] = [
        lambda f: places.filter(ee.Filter.lt("v", f.get("v"))).aggregate_sum("v"),
        lambda f: places.filter(ee.Filter.lt("v", f.get("v"))).aggregate_array("v"),
        lambda f: _image().add(ee.Number(f.get("v"))).reduceRegion(ee.Reducer.sum(), region),
    ]
    for ask in nested:
        with pytest.raises(EEException, match=r"Too many concurrent aggregations\.$") as caught:
            many.map(lambda f, ask=ask: f.set("n", ask(f))).getInfo()
        assert isinstance(caught.value.__context__, HttpError)
        assert caught.value.__context__.status_code == 429


def test_columns_are_numpys() -> None:
    places = ee.FeatureCollection("test/places")
    v = np.array([i * i % 7 for i in range(11)])
    asked = ee.Dictionary(
        {
            "stats": places.aggregate_stats("v"),
            "mean": places.aggregate_mean("v"),
            "max": places.aggregate_max("v"),
            "distinct": places.aggregate_count_distinct("v"),
            "histogram": places.aggregate_histogram("g"),
            "lists": places.reduceColumns(ee.Reducer.toList().repeat(2), ["v", "g"]).get("list"),
            "both": places.reduceColumns(ee.Reducer.minMax(), ["v"]),
            "by": places.reduceColumns(ee.Reducer.sum().group(1, "g"), ["v", "g"]).get("groups"),
            "weighted": places.reduceColumns(ee.Reducer.mean(), ["v"], ["v"]).get("mean"),
            "iterated": places.iterate(lambda f, total: ee.Number(total).add(ee.Feature(f).getNumber("v")), 100),
            "listed": places.toList(3, 4).map(lambda f: ee.Feature(f).get("v")),
            "unique": places.distinct(["v"]).aggregate_array("v"),
            "remapped": places.remap(["x"], [1], "g").aggregate_array("g"),
        }
    ).getInfo()
    assert asked["stats"]["total_sd"] == pytest.approx(v.std())
    assert asked["stats"]["sample_var"] == pytest.approx(v.var(ddof=1))
    assert asked["stats"]["sum_sq"] == (v**2).sum()
    assert (asked["mean"], asked["max"], asked["distinct"]) == (pytest.approx(v.mean()), v.max(), len(set(v.tolist())))
    assert asked["histogram"] == {"x": 6, "y": 5}
    assert asked["lists"] == [v.tolist(), ["xy"[i % 2] for i in range(11)]]
    assert asked["both"] == {"min": v.min(), "max": v.max()}
    assert asked["by"] == [{"g": "x", "sum": v[::2].sum()}, {"g": "y", "sum": v[1::2].sum()}]
    assert asked["weighted"] == pytest.approx(np.average(v, weights=v))
    assert asked["iterated"] == 100 + v.sum()
    assert asked["listed"] == v[4:7].tolist()
    assert asked["unique"] == list(dict.fromkeys(v.tolist()))
    assert asked["remapped"] == [1] * 6


def test_joins_by_time_are_those_of_brute_force() -> None:
    first, second = ee.ImageCollection("test/a"), ee.ImageCollection("test/b")
    near = ee.Filter.maxDifference(7 * DAY, leftField="system:time_start", rightField="system:time_start")
    best = ee.Join.saveBest("match", "apart").apply(first, second, near)
    found = {k: min((abs(t - u), j) for j, u in enumerate(TIMES["b"])) for k, t in enumerate(TIMES["a"])}
    expected = {k: (apart, j) for k, (apart, j) in found.items() if apart <= 7}
    got = {image["properties"]["k"]: image["properties"]["match"]["properties"] for image in best.getInfo()["features"]}
    assert {k: (m["apart"] / DAY, m["k"]) for k, m in got.items()} == expected
    without = ee.Join.inverted().apply(first, second, near)
    assert ee.ImageCollection(without).aggregate_array("k").getInfo() == [k for k in range(4) if k not in expected]
    pairs = ee.Join.inner("left", "right").apply(first, second, ee.Filter.lessThan(leftField="day", rightField="day"))
    couples = ee.FeatureCollection(pairs).map(
        lambda pair: ee.Feature(
            None, {"l": ee.Image(pair.get("left")).get("k"), "r": ee.Image(pair.get("right")).get("k")}
        )
    )
    listed = couples.reduceColumns(ee.Reducer.toList(2), ["l", "r"]).get("list").getInfo()
    assert listed == [[i, j] for i, t in enumerate(TIMES["a"]) for j, u in enumerate(TIMES["b"]) if t < u]
    saved = ee.Join.saveAll("all", "day", False).apply(first, second, near).getInfo()["features"]
    assert [m["properties"]["k"] for m in saved[1]["properties"]["all"]] == [1, 0]


def test_geodesic_edges_follow_great_circles_and_planar_ones_do_not() -> None:
    corners = [[0, 50], [20, 50], [20, 55], [0, 55]]
    bent, flat = ee.Geometry.Polygon(corners), ee.Geometry.Polygon(corners, geodesic=False)
    middle = GEOD.npts(0, 50, 20, 50, 1)[0]
    inside = ee.Geometry.Point([middle[0], middle[1] - 0.05])
    assert middle[1] > 50.3
    assert ee.List([bent.contains(inside, 1), flat.contains(inside, 1)]).getInfo() == [False, True]
    areas = ee.List([bent.area(1), flat.area(1)]).getInfo()
    assert areas[0] == pytest.approx(abs(GEOD.polygon_area_perimeter(*zip(*corners, strict=True))[0]), rel=2e-3)
    straight = shapely.segmentize(shapely.Polygon(corners), 0.1)
    assert areas[1] == pytest.approx(abs(GEOD.geometry_area_perimeter(straight)[0]), rel=1e-4)


def test_shapes_are_shapelys_and_measures_are_geodesic() -> None:
    box1, box2 = shapely.box(10, 50, 11, 51), shapely.box(10.5, 50.5, 12, 52)
    one, two = (ee.Geometry.Rectangle(list(b.bounds), geodesic=False) for b in (box1, box2))
    asked = ee.Dictionary(
        {
            "union": one.union(two, 1), "intersection": one.intersection(two, 1), "difference": one.difference(two, 1),
            "symmetric": one.symmetricDifference(two, 1), "hull": one.union(two, 1).convexHull(1),
            "feature": ee.Feature(one, {"v": 3}).intersection(ee.Feature(two), 1),
            "intersects": one.intersects(two, 1), "contains": one.contains(ee.Geometry.Point([10.2, 50.2]), 1),
            "distance": ee.Geometry.Point([10, 50]).distance(ee.Geometry.Point([11, 51]), 1),
            "length": ee.Geometry.LineString([[10, 50], [11, 51]]).length(1), "perimeter": one.perimeter(1),
            "type": ee.Geometry.MultiPoint([[1, 2], [3, 4]]).type(),
            "parts": ee.Geometry.MultiPoint([[1, 2], [3, 4]]).geometries().size(),
            "near": ee.Geometry.Point([10, 50]).withinDistance(ee.Geometry.Point([10, 50.01]), 1200),
            "moved": ee.Geometry.Point([15, 55]).transform("EPSG:32633", 1).projection().crs(),
        }
    ).getInfo()  # fmt: skip
    for name, expected in (
        ("union", box1 | box2), ("intersection", box1 & box2), ("difference", box1 - box2),
        ("symmetric", box1 ^ box2), ("hull", (box1 | box2).convex_hull),
    ):  # fmt: skip
        assert shapely.equals(shapely.geometry.shape(asked[name]), expected), name
    assert asked["feature"]["properties"] == {"v": 3}
    assert shapely.equals(shapely.geometry.shape(asked["feature"]["geometry"]), box1 & box2)
    line = GEOD.inv(10, 50, 11, 51)[2]
    assert asked["distance"] == pytest.approx(line, rel=1e-6)
    assert asked["length"] == pytest.approx(line, rel=1e-5)
    ring = shapely.segmentize(box1, 0.01).exterior
    assert asked["perimeter"] == pytest.approx(GEOD.geometry_length(ring), rel=1e-5)
    others = {key: asked[key] for key in ("intersects", "contains", "type", "parts", "near", "moved")}
    wanted = {"intersects": True, "contains": True, "type": "MultiPoint", "parts": 2, "near": True}
    assert others == {**wanted, "moved": "EPSG:32633"}


@pytest.mark.parametrize(("lon", "lat", "radius"), [(9.0, 48.0, 100), (179.9, -60.0, 1280), (25.0, 80.0, 20_000)])
def test_buffers_reach_as_far_on_the_ellipsoid(lon: float, lat: float, radius: float) -> None:
    ring = ee.Geometry.Point([lon, lat]).buffer(radius).coordinates().getInfo()[0]
    distances = [GEOD.inv(lon, lat, x, y)[2] for x, y in ring]
    np.testing.assert_allclose(distances, radius, rtol=1e-3)


def test_random_points_fill_a_region_evenly_and_depend_on_the_seed() -> None:
    region = ee.Geometry.Polygon([[0, 0], [40, 0], [0, 60]], geodesic=False)
    drawn = ee.FeatureCollection.randomPoints(region, 3000, 5)
    points = np.array([f["geometry"]["coordinates"] for f in drawn.getInfo()["features"]])
    again = ee.FeatureCollection.randomPoints(region, 3000, 5).first().geometry().coordinates().getInfo()
    other = ee.FeatureCollection.randomPoints(region, 3000, 6).first().geometry().coordinates().getInfo()
    assert again == points[0].tolist() != other
    assert shapely.contains_xy(shapely.Polygon([(0, 0), (40, 0), (0, 60)]), points[:, 0], points[:, 1]).all()
    lower = (points[:, 1] < 20).mean()
    ring = shapely.segmentize(shapely.Polygon([(0, 0), (40, 0), (0, 60)]), 0.1)
    part = shapely.segmentize(ring & shapely.box(0, 0, 40, 20), 0.1)
    expected = abs(GEOD.geometry_area_perimeter(part)[0]) / abs(GEOD.geometry_area_perimeter(ring)[0])
    assert abs(lower - expected) < 4 * np.sqrt(expected * (1 - expected) / 3000)
