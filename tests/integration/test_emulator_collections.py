"""Collections, filters, dates and features through the real client, and what an archive is asked meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import ee
import numpy as np
import pytest
import shapely
from ee.ee_exception import EEException
from pyproj import Transformer

from mmearth_data.emulator.assets import FeatureAsset, NativeGrid
from tests.emulated import RecordedCollection, SmallArchive, connected, image_asset, level, start_emulator

DAY = 86_400_000
START = int(datetime(2018, 1, 1, tzinfo=UTC).timestamp() * 1000)
COUNT = 40
ZONES = ("EPSG:32632", "EPSG:32633")


def _footprint(number: int) -> Any:
    """Squares of 2°, one every half degree."""
    west = 8 + number / 2
    return shapely.box(west, 50, west + 2, 52)


def _scene(number: int) -> Any:
    grid = NativeGrid(ZONES[number % 2], (10.0, 0.0, 300000.0, 0.0, -10.0, 6200000.0))
    return image_asset(
        f"test/scenes/s{number:02d}",
        {"B2": ("uint16", grid, level(number)), "B3": ("uint16", grid, level(number))},
        _footprint(number),
        time=START + number * DAY,
        cloud=float(number % 10),
        pols=["VV", "VH"] if number % 3 else ["HH"],
        mode="IW",
    )


@pytest.fixture(scope="module")
def recorded() -> RecordedCollection:
    return RecordedCollection("test/scenes", [_scene(i) for i in range(COUNT)])


@pytest.fixture(scope="module", autouse=True)
def _connection(recorded: RecordedCollection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    table = FeatureAsset(
        "test/table", tuple((shapely.box(i, 0, i + 1, 1), {"NAME": f"n{i}", "NUM": i % 4}) for i in range(12))
    )
    archive = SmallArchive([recorded, table])
    with start_emulator(tmp_path_factory.mktemp("log"), archive=archive) as running, connected(running.url):
        yield


def _scenes() -> ee.ImageCollection:
    return ee.ImageCollection("test/scenes")


def _indices(collection: Any) -> list[int]:
    return [int(index[1:]) for index in collection.aggregate_array("system:index").getInfo()]


def _numbers(keep: Callable[[int], bool]) -> list[int]:
    return [number for number in range(COUNT) if keep(number)]


@pytest.mark.parametrize(
    ("condition", "keep"),
    [
        (lambda: ee.Filter.lt("cloud", 3), lambda i: i % 10 < 3),
        (lambda: ee.Filter.lte("cloud", 3), lambda i: i % 10 <= 3),
        (lambda: ee.Filter.gt("cloud", 3), lambda i: i % 10 > 3),
        (lambda: ee.Filter.gte("cloud", 3), lambda i: i % 10 >= 3),
        (lambda: ee.Filter.eq("cloud", 3), lambda i: i % 10 == 3),
        (lambda: ee.Filter.neq("cloud", 3), lambda i: i % 10 != 3),
        (lambda: ee.Filter.eq("mode", "IW"), lambda i: True),
        (lambda: ee.Filter.eq("mode", 1), lambda i: False),
        (lambda: ee.Filter.lt("absent", 1), lambda i: False),
        (lambda: ee.Filter.listContains("pols", "VH"), lambda i: i % 3 != 0),
        (lambda: ee.Filter.inList("cloud", [1, 2]), lambda i: i % 10 in (1, 2)),
        (lambda: ee.Filter.notNull(["cloud"]), lambda i: True),
        (lambda: ee.Filter.lt("cloud", 3).Not(), lambda i: i % 10 >= 3),
        (lambda: ee.Filter.And(ee.Filter.lt("cloud", 5), ee.Filter.gt("cloud", 2)), lambda i: 2 < i % 10 < 5),
        (lambda: ee.Filter.Or(ee.Filter.lt("cloud", 2), ee.Filter.gt("cloud", 7)), lambda i: not 2 <= i % 10 <= 7),
        (lambda: ee.Filter.date("2018-01-05", "2018-01-09"), lambda i: 4 <= i < 8),
    ],
)
def test_filters_keep_what_their_conditions_say(
    condition: Callable[[], ee.Filter], keep: Callable[[int], bool]
) -> None:
    assert _indices(_scenes().filter(condition())) == _numbers(keep)


def _utm_square(lon: float, lat: float, size: float) -> tuple[ee.Geometry, Any]:
    """A square in UTM zone 32 as the client has it, and densely in degrees by shapely and pyproj."""
    x, y = Transformer.from_crs(4326, 32632, always_xy=True).transform(lon, lat)
    square = shapely.segmentize(shapely.box(x, y, x + size, y + size), size / 50)
    back = Transformer.from_crs(32632, 4326, always_xy=True)
    degrees = shapely.transform(square, lambda xy: np.column_stack(back.transform(xy[:, 0], xy[:, 1])))
    return ee.Geometry.Rectangle([x, y, x + size, y + size], proj="EPSG:32632", geodesic=False), degrees


@pytest.mark.parametrize(("lon", "lat", "size"), [(10.95, 51.0, 1280), (9.99, 51.9995, 1280), (9.0, 50.5, 120_000)])
def test_spatial_filters_are_shapelys(lon: float, lat: float, size: float) -> None:
    region, degrees = _utm_square(lon, lat, size)
    touching = _numbers(lambda i: _footprint(i).intersects(degrees))
    containing = _numbers(lambda i: _footprint(i).contains(degrees))
    assert 0 < len(touching) < COUNT
    assert _indices(_scenes().filterBounds(region)) == touching
    assert _indices(_scenes().filter(ee.Filter.contains(".geo", region))) == containing
    within = _numbers(lambda i: degrees.contains(_footprint(i)))
    assert _indices(_scenes().filter(ee.Filter.isContained(".geo", region))) == within


def test_dates_and_bounds_reach_the_archive_past_select_set_and_sort(recorded: RecordedCollection) -> None:
    recorded.queries.clear()
    recorded.listed.clear()
    region = ee.Geometry.Rectangle([11, 50.5, 11.5, 51], geodesic=False)
    scenes = (
        _scenes()
        .filter(ee.Filter.lt("cloud", 9))
        .select(["B2"], ["blue"])
        .map(lambda image: image.set("epsg", image.select("blue").projection().crs()))
        .filter(ee.Filter.eq("epsg", ZONES[0]))
        .sort("cloud")
        .filterBounds(region)
        .filterDate("2018-01-03", "2018-01-11")
    )
    got = _indices(scenes)
    expected = [i for i in range(2, 10) if i % 2 == 0 and i % 10 < 9 and 8 + i / 2 <= 11.5 and 10 + i / 2 >= 11]
    assert sorted(got) == expected
    ((bounds, start, end),) = recorded.queries
    assert bounds == pytest.approx((11, 50.5, 11.5, 51))
    assert (start, end) == (START + 2 * DAY, START + 10 * DAY)
    assert len(recorded.listed) == 8


def test_nothing_is_pushed_past_what_changes_time_or_order(recorded: RecordedCollection) -> None:
    """A later filter must see every element where the step before it depends on, or changes, what it asks."""
    later = _scenes().map(lambda image: image.set("system:time_start", ee.Date(START + 500 * DAY).millis()))
    assert later.filterDate("2019-05-01", "2019-06-01").size().getInfo() == COUNT
    first_five = _scenes().limit(5)
    assert _indices(first_five.filterDate("2018-01-04", "2018-02-01")) == [3, 4]
    shrunk = ee.FeatureCollection(_scenes().map(lambda image: ee.Feature(ee.Geometry.Point([0, 0]), {"i": 1})))
    assert shrunk.filterBounds(ee.Geometry.Rectangle([-1, -1, 1, 1])).size().getInfo() == COUNT


def test_an_impossible_period_asks_for_nothing(recorded: RecordedCollection) -> None:
    recorded.listed.clear()
    nothing = _scenes().filterDate("2018-01-01", "2018-01-05").filterDate("2018-02-01", "2018-02-05")
    assert nothing.size().getInfo() == 0
    assert recorded.listed == []


def test_the_first_of_nothing_is_null_and_no_image() -> None:
    nothing = _scenes().filterDate("2001-01-01", "2001-02-01").first()
    assert nothing.getInfo() is None
    with pytest.raises(EEException, match=r"Image.select: Parameter 'input' is required and may not be null"):
        nothing.select("B2").bandNames().getInfo()


def test_sorting_and_limiting_order_by_the_property() -> None:
    assert _indices(_scenes().sort("cloud").limit(8)) == [0, 10, 20, 30, 1, 11, 21, 31]
    assert _indices(_scenes().limit(3, "system:time_start", False)) == [39, 38, 37]
    times = np.abs(np.arange(COUNT) * DAY - 17.4 * DAY)
    moment = ee.Date(START + round(17.4 * DAY))
    near = _scenes().map(lambda image: image.set("away", image.date().difference(moment, "second").abs()))
    assert _indices(near.limit(4, "away")) == np.argsort(times)[:4].tolist()


def test_random_columns_depend_on_seed_and_element_alone() -> None:
    def column(seed: int, scenes: ee.ImageCollection) -> dict[int, float]:
        shuffled = scenes.randomColumn("r", seed)
        return dict(zip(_indices(shuffled), shuffled.aggregate_array("r").getInfo(), strict=True))

    whole = column(3, _scenes())
    part = column(3, _scenes().filterDate("2018-01-11", "2018-01-21"))
    assert part == {index: whole[index] for index in range(10, 20)}
    assert whole != column(4, _scenes())
    values = np.array(list(whole.values()))
    assert ((values >= 0) & (values < 1)).all()
    assert len(set(values)) == COUNT
    assert abs(values.mean() - 0.5) < 4 / np.sqrt(12 * COUNT)


def test_nested_maps_flatten_with_the_outer_arguments_at_hand() -> None:
    cells = [(11.2, 51.0, 0), (13.2, 51.0, 5)]
    table = ee.FeatureCollection(
        [ee.Feature(ee.Geometry.Point([lon, lat]), {"cell": n, "first": n}) for n, (lon, lat, _) in enumerate(cells)]
    )

    def of_cell(cell: ee.Feature) -> ee.ImageCollection:
        scenes = _scenes().filterBounds(cell.geometry()).limit(2)
        return scenes.map(
            lambda image: ee.Feature(None, {"cell": cell.get("cell"), "scene": image.get("system:index")})
        )

    rows = ee.data.computeFeatures({"expression": table.map(of_cell).flatten()})["features"]
    expected = [
        (n, f"s{i:02d}")
        for n, (lon, lat, _) in enumerate(cells)
        for i in [i for i in range(COUNT) if _footprint(i).intersects(shapely.Point(lon, lat))][:2]
    ]
    assert [(row["properties"]["cell"], row["properties"]["scene"]) for row in rows] == expected
    assert [row["id"] for row in rows] == [f"{n}_{scene}" for n, scene in expected]
    assert all(row["geometry"] is None for row in rows)


def test_an_error_within_a_map_names_the_element() -> None:
    with pytest.raises(EEException, match=r"Error in map\(ID=s00\):\nImage.select: Band pattern 'B9'"):
        _scenes().map(lambda image: image.select("B9")).getInfo()


def test_merging_prefixes_indices_and_mapping_may_drop_nulls() -> None:
    first, second = _scenes().filterDate("2018-01-01", "2018-01-03"), _scenes().filterDate("2018-01-03", "2018-01-04")
    merged = first.merge(second).aggregate_array("system:index").getInfo()
    assert merged == ["1_s00", "1_s01", "2_s02"]
    table = ee.FeatureCollection("test/table")
    some = table.map(lambda row: ee.Algorithms.If(ee.Number(row.get("NUM")), row, None), True)
    assert some.size().getInfo() == 9


def test_tables_are_filtered_selected_and_sent_as_geojson() -> None:
    rows = ee.FeatureCollection("test/table").filter(ee.Filter.eq("NUM", 2)).select(["NAME"])
    features = ee.data.computeFeatures({"expression": rows})["features"]
    assert [row["properties"] for row in features] == [{"NAME": f"n{i}"} for i in (2, 6, 10)]
    assert shapely.geometry.shape(features[0]["geometry"]).equals(shapely.box(2, 0, 3, 1))
    bare = rows.select(["NA.*"], ["name"], False).first().getInfo()
    assert (bare["geometry"], bare["properties"]) == (None, {"name": "n2"})


def test_images_tell_their_bands_ids_and_properties() -> None:
    image = ee.Image("test/scenes/s07")
    info = image.getInfo()
    assert info["id"] == "test/scenes/s07"
    assert info["properties"]["system:index"] == "s07"
    assert [band["id"] for band in info["bands"]] == ["B2", "B3"]
    assert info["bands"][0]["data_type"] == {"type": "PixelType", "precision": "int", "min": 0, "max": 65535}
    assert image.id().getInfo() == "s07"
    assert image.get("absent").getInfo() is None
    assert image.projection().getInfo()["transform"] == [10, 0, 300000, 0, -10, 6200000]
    assert image.date().getInfo() == {"type": "Date", "value": START + 7 * DAY}
    assert shapely.geometry.shape(image.geometry().getInfo()).equals(_footprint(7))
    assert image.set({"a": 1, "b": ee.Date(5)}).get("b").getInfo() == 5
    assert image.set("a", [1, "x"]).get("a").getInfo() == [1, "x"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ee.Date("2020-02-29T12:00:00").millis(), datetime(2020, 2, 29, 12, tzinfo=UTC)),
        (lambda: ee.Date.fromYMD(2019, 3, 1).advance(-1, "day").millis(), datetime(2019, 2, 28, tzinfo=UTC)),
        (lambda: ee.Date("2020-01-31").advance(1, "month").millis(), datetime(2020, 2, 29, tzinfo=UTC)),
        (lambda: ee.Date("2020-02-29").advance(-1, "year").millis(), datetime(2019, 2, 28, tzinfo=UTC)),
        (lambda: ee.Date("2020-01-01").advance(1.5, "hour").millis(), datetime(2020, 1, 1, 1, 30, tzinfo=UTC)),
        (lambda: ee.Date("2020-01-01").advance(2, "week").millis(), datetime(2020, 1, 15, tzinfo=UTC)),
    ],
)
def test_dates_are_the_calendars(make: Callable[[], ee.Number], expected: datetime) -> None:
    assert make().getInfo() == expected.timestamp() * 1000


def test_parts_and_differences_of_dates() -> None:
    date = ee.Date("2020-12-31T23:59:58")
    assert [date.get(unit).getInfo() for unit in ("year", "month", "day", "hour", "minute", "second")] == [
        2020, 12, 31, 23, 59, 58,
    ]  # fmt: skip
    assert date.difference(ee.Date("2020-12-30"), "hour").getInfo() == pytest.approx(48 - 2 / 3600)
    assert ee.Date("2021-01-01").difference(ee.Date("2017-01-01"), "year").getInfo() == pytest.approx(4, abs=1e-3)
    with pytest.raises(EEException, match="Bad date/time 'yesterday'"):
        ee.Date("yesterday").millis().getInfo()


def test_geometries_arrive_in_any_form_the_client_has() -> None:
    ring = [[10, 50], [12, 50], [12, 51], [10, 51], [10, 50]]
    square = shapely.box(10, 50, 12, 51)
    forms = [
        ee.Geometry.Rectangle([10, 50, 12, 51], geodesic=False),
        ee.Geometry.BBox(10, 50, 12, 51),
        ee.Geometry.Polygon([ring], geodesic=False),
        ee.Geometry.Polygon(ring, geodesic=False),
        ee.Geometry.Polygon([10, 50, 12, 50, 12, 51, 10, 51], geodesic=False),
        ee.Geometry({"type": "Polygon", "coordinates": [ring], "geodesic": False}),
        ee.Geometry.MultiPolygon([[ring]], geodesic=False),
        ee.Feature(ee.Geometry.Rectangle([10, 50, 12, 51], geodesic=False)).geometry(),
    ]
    for form in forms:
        (x0, y0), _, (x1, y1), *_ = form.bounds().coordinates().getInfo()[0]
        assert {(min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))} == {(10, 50), (12, 51)}
        assert form.centroid().coordinates().getInfo() == pytest.approx([square.centroid.x, square.centroid.y])
        assert ee.ImageCollection("test/scenes").filterBounds(form).size().getInfo() == len(
            _numbers(lambda i: _footprint(i).intersects(square))
        )
    region, _ = _utm_square(11.0, 51.0, 1280)
    x, y = Transformer.from_crs(4326, 32632, always_xy=True).transform(11.0, 51.0)
    centre = Transformer.from_crs(32632, 4326, always_xy=True).transform(x + 640, y + 640)
    assert region.centroid(1).coordinates().getInfo() == pytest.approx(centre, abs=1e-9)
