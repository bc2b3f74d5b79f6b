"""Resolving through the real client, against a brute-force search of the emulator's own archive."""

from __future__ import annotations

import calendar
import datetime as dt
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ee
import numpy as np
import pytest
from pyproj import Transformer
from shapely.geometry import Polygon

from mmearth_data import grid
from mmearth_data.earthengine import resolve as rules
from mmearth_data.earthengine.errors import TooLarge
from mmearth_data.earthengine.session import connect
from mmearth_data.emulator import limits, world
from mmearth_data.emulator.assets import ImageAsset
from mmearth_data.plan.resolution import BATCH_LOCATIONS
from mmearth_data.source import Acquisition, Corrupt, Location, Resolved
from tests.emulated import Running, start_emulator

PLACES = ((-100.0, 40.0), (140.0, -25.0), (-3.0, 66.0), (9.0, 45.0))
"""Plains with both passes, an inland with one, a coast in the north, and open sea."""
ARCHIVE = world.build("earth", 0)
DAY = 86_400_000


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def locations() -> list[Location]:
    draw = np.random.default_rng(2)
    lon, lat = (np.array(PLACES)[np.arange(80) % 4] + draw.uniform(-1, 1, (80, 2))).T
    ids = grid.cells_at(lon, lat)
    chosen = ids[grid.eligible(ids)][:56]
    return [Location(int(i), 2017 + k % 4) for k, i in enumerate(chosen)]


@pytest.fixture(scope="module")
def pages() -> list[Counter[int]]:
    """Rows of each location in each request of resolving them."""
    return []


@pytest.fixture(scope="module")
def answer(emulator: Running, locations: list[Location], pages: list[Counter[int]]) -> tuple[list[Resolved], int]:
    """What was resolved, and the number of requests it took."""
    source = connect(None, emulator.url)

    def counted(collection: ee.FeatureCollection) -> list[dict[str, Any]]:
        rows = source.features(collection)
        pages.append(Counter(row["properties"]["cell"] for row in rows))
        return rows

    before = len(emulator.requests())
    resolved = rules.resolve(counted, locations)
    return resolved, len(emulator.requests()) - before


def cell_polygon(location_id: int) -> Polygon:
    lon, lat = grid.footprints(location_id, per_edge=8)
    return Polygon(np.column_stack([lon[0], lat[0]]))


def milliseconds(year: int) -> int:
    return calendar.timegm((year, 1, 1, 0, 0, 0)) * 1000


def covering(asset: str, location_id: int, start: int, end: int) -> list[ImageAsset]:
    """Every image of a collection in [start, end) whose footprint holds the whole cell."""
    cell = cell_polygon(location_id)
    return [
        image
        for image in ARCHIVE.lookup(asset).query(cell.bounds, start, end)
        if start <= image.properties["system:time_start"] < end and image.footprint.contains(cell)
    ]


def eligible(asset: str, place: Location) -> dict[str, ImageAsset]:
    epsg = f"EPSG:{int(grid.decode(place.location_id).epsg[0])}"
    found = covering(asset, place.location_id, milliseconds(place.year), milliseconds(place.year + 1))
    return {
        image.id: image
        for image in found
        if image.properties["CLOUDY_PIXEL_PERCENTAGE"] < 10
        and next(band for band in image.bands if band.name == "B2").grid.crs == epsg
    }


def test_two_requests_resolve_a_batch_in_its_order(
    answer: tuple[list[Resolved], int], locations: list[Location]
) -> None:
    resolved, requests = answer
    assert requests == 2
    assert [entry.location_id for entry in resolved] == [place.location_id for place in locations]
    assert {len(entry.acquisitions) for entry in resolved} >= {0, 8}


def test_a_batch_of_locations_with_products_in_plenty_fits_one_page(
    answer: tuple[list[Resolved], int], pages: list[Counter[int]]
) -> None:
    assert [max(page.values()) for page in pages] == [8, 9]
    assert max(max(page.values()) for page in pages) * BATCH_LOCATIONS <= limits.MAX_PAGE_ROWS


def test_products_are_those_of_a_brute_force_search(
    answer: tuple[list[Resolved], int], locations: list[Location]
) -> None:
    levels = set()
    for entry, place in zip(answer[0], locations, strict=True):
        preferred = rules.preferred_level(place.location_id)
        found = {level: eligible(asset, place) for level, asset in rules._ASSET.items()}
        expected = found["L2A"] if preferred == "L2A" and found["L2A"] else found["L1C"]
        assert len(entry.acquisitions) == min(len(expected), 8)
        assert len({a.sentinel2_id for a in entry.acquisitions}) == len(entry.acquisitions)
        for taken in entry.acquisitions:
            image = expected[taken.sentinel2_id]
            assert taken.time == image.properties["system:time_start"]
            assert taken.scene_cloud == image.properties["CLOUDY_PIXEL_PERCENTAGE"]
            assert taken.baseline == image.properties["PROCESSING_BASELINE"]
            assert taken.bands == tuple(band.name for band in image.bands)
            assert taken.sentinel2_id.startswith(rules._ASSET[taken.level])
            levels.add((preferred, taken.level))
    assert levels == {("L2A", "L2A"), ("L2A", "L1C"), ("L1C", "L1C")}


def nearest(place: Location, time: int, orbit: str) -> tuple[int, set[str]] | None:
    """The smallest distance in time of a pass that holds the cell, and the ids at that distance."""
    window = 30 * DAY
    found = [
        (abs(image.properties["system:time_start"] - time), image.id)
        for image in covering(rules.SENTINEL1, place.location_id, time - window, time + window + 1)
        if image.properties["instrumentMode"] == "IW" and image.properties["orbitProperties_pass"] == orbit
    ]
    if not found:
        return None
    least = min(distance for distance, _ in found)
    return least, {image_id for distance, image_id in found if distance == least}


def test_radar_is_the_nearest_pass_of_each_direction(
    answer: tuple[list[Resolved], int], locations: list[Location]
) -> None:
    seen = {"found": 0, "none": 0}
    for entry, place in list(zip(answer[0], locations, strict=True))[::3]:
        for taken in entry.acquisitions[:2]:
            for orbit, radar in (("ASCENDING", taken.ascending), ("DESCENDING", taken.descending)):
                expected = nearest(place, taken.time, orbit)
                if expected is None:
                    assert radar is None
                    seen["none"] += 1
                    continue
                assert radar is not None
                assert (abs(radar.time - taken.time), radar.image_id in expected[1]) == (expected[0], True)
                image = ARCHIVE.lookup(radar.image_id)
                assert set(radar.polarisations) == {band.name for band in image.bands} - {"angle"}
                seen["found"] += 1
    assert all(seen.values())


def era5_month(year: int, month: int, variable: str, lon: float, lat: float) -> float:
    """The value of the archive's own pixel at a point, NaN where masked."""
    image = ARCHIVE.lookup(f"{rules.ERA5}/{year}{month:02d}")
    band = next(band for band in image.bands if band.name == variable)
    x, y = Transformer.from_crs("EPSG:4326", band.grid.crs, always_xy=True).transform(lon, lat)
    a, _, c, _, e, f = band.grid.transform
    values, mask = band.read(math.floor((y - f) / e), math.floor((x - c) / a), 1, 1)
    return float(values[0, 0]) if mask[0, 0] else math.nan


def expected_era5(taken: Acquisition) -> list[float]:
    lon, lat = (float(v[0]) for v in grid.centres(taken.location_id))
    moment = dt.datetime.fromtimestamp(taken.time / 1000, tz=dt.UTC)
    months = [(moment.year, moment.month)]
    while len(months) < 12:
        year, month = months[-1]
        months.append((year, month - 1) if month > 1 else (year - 1, 12))

    def of(variable: str, period: list[tuple[int, int]]) -> np.ndarray:
        return np.array([era5_month(year, month, variable, lon, lat) for year, month in period])

    return [
        float(summary(of(variable, period)))
        for period in (months[1:2], months[:1], months)
        for variable, summary in (
            ("temperature_2m", np.mean),
            ("temperature_2m_min", np.min),
            ("temperature_2m_max", np.max),
            ("total_precipitation_sum", np.sum),
        )
    ]


def test_climate_sums_up_the_twelve_months_before_and_of_the_acquisition(answer: tuple[list[Resolved], int]) -> None:
    checked = 0
    for entry in answer[0][::6]:
        for taken in entry.acquisitions[:1]:
            np.testing.assert_allclose(taken.era5, expected_era5(taken), rtol=1e-6)
            checked += 1
    assert checked >= 5


def test_the_order_is_the_locations_own_and_does_not_depend_on_the_batch(
    answer: tuple[list[Resolved], int], locations: list[Location], emulator: Running
) -> None:
    source = connect(None, emulator.url)
    some = [0, 5, 2, 14]
    again = source.resolve([locations[k] for k in some])
    assert repr(again) == repr([answer[0][k] for k in some])
    in_time = [[a.time for a in e.acquisitions] == sorted(a.time for a in e.acquisitions) for e in answer[0]]
    assert not all(in_time), "products are tried in random order, not in order of time"


@pytest.mark.parametrize("lost", ["cell", "index", "ASCENDING_index", "ASCENDING_time", "DESCENDING_polarisations"])
def test_a_row_that_lacks_what_was_asked_for_is_corrupt(
    emulator: Running, locations: list[Location], lost: str
) -> None:
    source = connect(None, emulator.url)

    def features(collection: ee.FeatureCollection) -> list[dict[str, Any]]:
        rows = source.features(collection)
        return [row | {"properties": {k: v for k, v in row["properties"].items() if k != lost}} for row in rows]

    with pytest.raises(Corrupt, match=rf"arrived without .*{lost}"):
        rules.resolve(features, locations[:4])


def test_a_batch_that_is_too_heavy_is_halved(emulator: Running, locations: list[Location]) -> None:
    source = connect(None, emulator.url)
    asked: list[int] = []

    def refusing_more_than_four(collection: ee.FeatureCollection) -> list[dict[str, Any]]:
        rows = source.features(collection)
        asked.append(len({row["properties"]["cell"] for row in rows}))
        if asked[-1] > 4:
            raise TooLarge("Too many concurrent aggregations.")
        return rows

    assert repr(rules.resolve(refusing_more_than_four, locations[:8])) == repr(source.resolve(locations[:8]))
    assert max(asked) > 4

    def refusing_all(collection: ee.FeatureCollection) -> list[dict[str, Any]]:
        raise TooLarge("Computation timed out.")

    with pytest.raises(TooLarge, match="timed out"):
        rules.resolve(refusing_all, locations[:8])
