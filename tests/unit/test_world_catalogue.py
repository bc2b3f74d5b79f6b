"""The archive lists what orbits, dates and weather give: nothing missed by a query, nothing that does not belong."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from mmearth_data import grid
from mmearth_data.emulator.assets import Archive, CollectionAsset, FeatureAsset, ImageAsset
from mmearth_data.emulator.world import build
from mmearth_data.emulator.world.catalogue import mgrs
from mmearth_data.emulator.world.catalogue.products import ORBITS
from mmearth_data.emulator.world.catalogue.sentinel1 import DIRECTIONS

DAY = 86_400_000
L1C, L2A = "COPERNICUS/S2_HARMONIZED", "COPERNICUS/S2_SR_HARMONIZED"
SCORE, LABELS = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED", "GOOGLE/DYNAMICWORLD/V1"
RADAR, CLIMATE = "COPERNICUS/S1_GRD", "ECMWF/ERA5_LAND/MONTHLY_AGGR"
LISTED = (L1C, L2A, SCORE, LABELS, RADAR)


def ms(year: int, month: int = 1, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000


@cache
def earth() -> Archive:
    return build("earth", 0)


def collection(asset_id: str, archive: Archive | None = None) -> CollectionAsset:
    found = (archive or earth()).lookup(asset_id)
    assert found is not None
    assert not isinstance(found, ImageAsset | FeatureAsset)
    return found


def indices(images: Iterable[ImageAsset]) -> list[str]:
    return [image.id.rsplit("/", 1)[1] for image in images]


def land_points(count: int, seed: int) -> np.ndarray:
    """Random points in ecoregions within Sentinel-2's coverage, shape (count, 2)."""
    table = earth().lookup("RESOLVE/ECOREGIONS/2017")
    assert isinstance(table, FeatureAsset)
    land = shapely.union_all([g for g, p in table.features if p["BIOME_NAME"] != "N/A"])
    rng = np.random.default_rng(seed)
    points = np.stack(
        [rng.uniform(-180, 180, 40 * count), np.degrees(np.arcsin(rng.uniform(-0.82, 0.98, 40 * count)))], 1
    )
    return points[shapely.contains_xy(land, points[:, 0], points[:, 1])][:count]


def test_every_eligible_cell_lies_in_a_tile_of_its_own_projection() -> None:
    rng = np.random.default_rng(2)
    lon = rng.uniform(-180, 180, 3000)
    lat = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-56)), np.sin(np.radians(82.8)), 3000)))
    lon[:600], lat[:600] = rng.uniform(2.5, 12.5, 600), rng.uniform(55.5, 64.5, 600)
    lon[600:900], lat[600:900] = rng.uniform(0, 42, 300), rng.uniform(72, 82.7, 300)
    ids = grid.cells_at(lon, lat)
    ids = ids[grid.eligible(ids)]
    cells, (corner_lon, corner_lat) = grid.decode(ids), grid.footprints(ids)
    for k in range(len(ids)):
        bounds = corner_lon[k].min(), corner_lat[k].min(), corner_lon[k].max(), corner_lat[k].max()
        assert any(
            tile.epsg == cells.epsg[k]
            and tile.left <= cells.x0[k] and cells.x0[k] + cells.size[k] <= tile.left + mgrs.EXTENT
            and tile.top >= cells.y0[k] and cells.y0[k] - cells.size[k] >= tile.top - mgrs.EXTENT
            for tile in mgrs.tiles_touching(bounds)
        )  # fmt: skip


def test_tiles_are_named_and_placed_as_in_reality() -> None:
    # Upper-left corners of real products of these tiles.
    for name, epsg, left, top in (
        ("31UDQ", 32631, 399_960, 5_500_020),
        ("31TCJ", 32631, 300_000, 4_900_020),
        ("32TQM", 32632, 699_960, 4_700_040),
        ("56HLH", 32756, 300_000, 6_300_040),
    ):
        found = mgrs.tile(name)
        assert found is not None
        assert (found.epsg, found.left, found.top) == (epsg, left, top)
    names = [tile.name for zone in range(1, 61) for tile in mgrs.zone_tiles(zone).tiles]
    assert len(names) == len(set(names))
    assert 55_000 < len(names) < 60_000
    for zone in (1, 32, 60):
        for tile in mgrs.zone_tiles(zone).tiles:
            # Sixty-metre pixels count from the equator; southern northings begin 10,000 km south of it.
            equator = 10_000_000 if tile.epsg > 32700 else 0
            assert tile.left % 60 == 0
            assert (tile.top - equator) % 60 == 0
            assert tile.top % 20 == 0


@pytest.mark.parametrize("asset_id", LISTED)
def test_a_small_query_finds_all_that_a_wide_one_finds_there(asset_id: str) -> None:
    points = land_points(400, 1)
    near = points[np.abs(points - points[7]).max(axis=1) < 4.0]
    west, south = near.min(axis=0) - 0.5
    east, north = near.max(axis=0) + 0.5
    start, end = ms(2019, 5, 3), ms(2019, 5, 9)
    wide = {image.id: image for image in collection(asset_id).query((west, south, east, north), start, end)}
    assert wide
    rng = np.random.default_rng(3)
    met = 0
    for _ in range(25):
        lon, lat = rng.uniform(west, east), rng.uniform(south, north)
        box = (lon, lat, min(lon + 0.02, east), min(lat + 0.02, north))
        got = {image.id for image in collection(asset_id).query(box, start, end)}
        area = shapely.box(*box)
        truth = {key for key, image in wide.items() if image.footprint is None or image.footprint.intersects(area)}
        assert truth <= got <= set(wide)
        met += len(truth)
    assert met > 0


@pytest.mark.parametrize("asset_id", LISTED)
def test_queries_are_cut_by_time_half_open_and_listed_by_index(asset_id: str) -> None:
    lon, lat = land_points(60, 5)[11]
    bounds = (lon, lat, lon + 0.02, lat + 0.02)
    year = list(collection(asset_id).query(bounds, ms(2019), ms(2020)))
    assert indices(year) == sorted(indices(year))
    times = sorted(image.properties["system:time_start"] for image in year)
    assert len(times) > 4
    assert ms(2019) <= times[0]
    assert times[-1] < ms(2020)
    first, last = times[1], times[-2]
    part = list(collection(asset_id).query(bounds, first, last))
    assert sorted(i.properties["system:time_start"] for i in part) == [t for t in times if first <= t < last]
    assert list(collection(asset_id).query(bounds, first, first)) == []
    assert list(collection(asset_id).query(bounds, ms(2030), None)) == []
    for index, image in zip(indices(year), year, strict=True):
        again = collection(asset_id).image(index)
        assert again is not None
        assert again.id == image.id == f"{asset_id}/{index}"
        assert dict(again.properties) == dict(image.properties)
        assert image.properties["system:index"] == index


@pytest.mark.parametrize("asset_id", LISTED)
@pytest.mark.parametrize(
    "index", ["", "nonsense", "20190704T103031_20190704T103025_T32UPE", "20190704T996031_x_T99ZZZ"]
)
def test_what_was_never_acquired_is_none(asset_id: str, index: str) -> None:
    assert collection(asset_id).image(index) is None
    assert earth().lookup(f"{asset_id}/{index}") is None


def test_unknown_assets_are_none() -> None:
    assert earth().lookup("NOT/THERE") is None
    assert earth().lookup("") is None


def test_passes_come_every_five_days_in_the_morning() -> None:
    for lon, lat in land_points(30, 8):
        if abs(lat) > 60:
            continue
        by_orbit: dict[tuple[int, str], list[int]] = {}
        for image in collection(L1C).query((lon, lat, lon, lat), ms(2019), ms(2020)):
            p = image.properties
            by_orbit.setdefault((p["SENSING_ORBIT_NUMBER"], p["MGRS_TILE"]), []).append(p["system:time_start"])
            hour = (p["system:time_start"] % DAY) / 3_600_000 + lon / 15
            assert 9.3 < hour % 24 < 12.2
        assert by_orbit
        for times in by_orbit.values():
            gaps = np.diff(sorted(times)) / DAY
            # Lost acquisitions make a gap longer; nothing makes one shorter.
            assert np.allclose(gaps, np.round(gaps / 5) * 5, atol=0.01)
            assert np.median(gaps) == pytest.approx(5, abs=0.01)


def test_the_second_satellite_flies_from_mid_2017() -> None:
    lon, lat = land_points(30, 8)[3]
    of = {
        half: {i.properties["SPACECRAFT_NAME"] for i in collection(L1C).query((lon, lat, lon, lat), *span)}
        for half, span in {"first": (ms(2017), ms(2017, 7)), "second": (ms(2017, 7), ms(2018))}.items()
    }
    assert of == {"first": {"Sentinel-2A"}, "second": {"Sentinel-2A", "Sentinel-2B"}}


def test_every_place_on_land_is_imaged_whole_by_some_pass() -> None:
    for lon, lat in land_points(120, 9):
        products = list(collection(L1C).query((lon, lat, lon, lat), ms(2020, 3, 1), ms(2020, 3, 12)))
        assert any(
            p.footprint is not None and p.footprint.buffer(-0.02).contains(shapely.Point(lon, lat)) for p in products
        )


def test_surface_reflectance_came_late_outside_europe() -> None:
    europe = other = 0
    for lon, lat in land_points(400, 10):
        inside = -13 < lon < 43 and 36 < lat < 70
        outside = not (-17 < lon < 47 and 32 < lat < 74)
        found = list(collection(L2A).query((lon, lat, lon, lat), ms(2018, 5), ms(2018, 8)))
        if inside:
            europe += 1
            assert found
        elif outside:
            other += 1
            assert not found
    assert europe > 0
    assert other > 50


def test_levels_share_their_products_but_not_their_bands() -> None:
    lon, lat = land_points(30, 8)[3]
    span = ms(2019), ms(2020)
    by = {
        key: {i.id.rsplit("/", 1)[1]: i for i in collection(key).query((lon, lat, lon, lat), *span)}
        for key in LISTED[:4]
    }
    assert by[L2A].keys() <= by[L1C].keys()
    assert by[SCORE].keys() <= by[L1C].keys()
    assert by[SCORE].keys() != by[L1C].keys()
    assert by[LABELS].keys() == {
        index for index, image in by[L1C].items() if image.properties["CLOUDY_PIXEL_PERCENTAGE"] < 35
    }
    optical = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12", "QA60"]
    without = 0
    for index, image in by[L1C].items():
        assert [b.name for b in image.bands] == optical
        sizes = {b.name: b.grid.transform[0] for b in image.bands}
        assert [sizes[n] for n in ("B2", "B8", "B5", "B12", "B1", "QA60")] == [10, 10, 20, 20, 60, 60]
        if index in by[L2A]:
            names = [b.name for b in by[L2A][index].bands]
            assert "B10" not in names
            assert "SCL" in names
            without += "MSK_CLDPRB" not in names
            assert by[L2A][index].properties["CLOUDY_PIXEL_PERCENTAGE"] == image.properties["CLOUDY_PIXEL_PERCENTAGE"]
            assert "_MSIL2A_" in by[L2A][index].properties["PRODUCT_ID"]
    assert 0 <= without < 0.2 * len(by[L2A])


def test_most_places_have_clear_products_and_wet_ones_few() -> None:
    def clear_products(lon: float, lat: float) -> int:
        listed = collection(L1C).query((lon, lat, lon, lat), ms(2019), ms(2020))
        return sum(image.properties["CLOUDY_PIXEL_PERCENTAGE"] < 10 for image in listed)

    counts = np.array([clear_products(lon, lat) for lon, lat in land_points(150, 12)])
    assert np.median(counts) > 8
    assert (counts >= 3).mean() > 0.9
    assert (counts < 6).any()


def test_radar_plans_differ_by_region_and_europe_has_both() -> None:
    plans = set()
    for lon, lat in land_points(250, 14):
        scenes = list(collection(RADAR).query((lon, lat, lon, lat), ms(2019), ms(2019, 3)))
        passes = {s.properties["orbitProperties_pass"] for s in scenes}
        plans.add(frozenset(passes))
        assert all(s.properties["instrumentMode"] == "IW" for s in scenes)
        assert all(s.bands[0].grid.crs.startswith("EPSG:32") for s in scenes)
        if -12 < lon < 42 and 37 < lat < 69:
            assert passes == {"ASCENDING", "DESCENDING"}
    assert plans >= {
        frozenset({"ASCENDING"}),
        frozenset({"DESCENDING"}),
        frozenset({"ASCENDING", "DESCENDING"}),
        frozenset(),
    }


def test_footprints_stay_on_the_globe_and_cover_both_sides_of_the_antimeridian() -> None:
    table = build("flat", 0)
    for lon in (-179.95, 179.95):
        for asset_id in (L1C, RADAR):
            scenes = list(collection(asset_id, table).query((lon, 10.0, lon, 10.0), ms(2019), ms(2019, 3)))
            over = [s for s in scenes if s.footprint is not None and s.footprint.contains(shapely.Point(lon, 10.0))]
            assert over
            for scene in scenes:
                assert scene.footprint is not None
                assert scene.footprint.is_valid
                west, _, east, _ = scene.footprint.bounds
                assert west >= -180
                assert east <= 180


@pytest.mark.parametrize("constellation", [ORBITS, *DIRECTIONS.values()])
@pytest.mark.parametrize("lat", [-50.0, 0.0, 35.0, 65.0])
def test_ground_tracks_follow_the_sphere(constellation, lat: float) -> None:
    # The satellite's position as a rotating vector: an independent path to longitude and latitude.
    tilt = np.radians(constellation.inclination)
    spin = 2 * np.pi * constellation.cycle_days / constellation.orbits
    for orbit in (0, 17):
        phase = constellation.crossing(orbit, lat) / constellation.per_orbit_ms - orbit
        u = 2 * np.pi * phase if constellation.ascending else np.pi + 2 * np.pi * phase
        x, y, z = np.cos(u), np.sin(u) * np.cos(tilt), np.sin(u) * np.sin(tilt)
        assert np.degrees(np.arcsin(z)) == pytest.approx(lat, abs=1e-6)
        start = 0.0 if constellation.ascending else np.pi
        east = np.degrees(np.arctan2(y, x) - np.arctan2(np.sin(start) * np.cos(tilt), np.cos(start)) - phase * spin)
        track = constellation.nodes()[orbit] + east
        assert (constellation.offsets(float(track), lat)[orbit] + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)


def test_months_and_maps_are_as_listed() -> None:
    months = list(collection(CLIMATE).query((0, 0, 1, 1), ms(2018, 12), ms(2019, 4)))
    assert indices(months) == ["201812", "201901", "201902", "201903"]
    assert collection(CLIMATE).image("201513") is None
    assert indices(collection("ESA/WorldCover/v100").query(None, None, None)) == ["2020"]
    assert not list(collection("ESA/WorldCover/v100").query(None, ms(2021), None))
    for asset_id in ("users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1", "projects/sat-io/open-datasets/ASTER/GDEM"):
        image = earth().lookup(asset_id)
        assert isinstance(image, ImageAsset)
        assert image.footprint is None
        assert [b.name for b in image.bands] == ["b1"]


def test_footprints_follow_tiles_within_metres() -> None:
    lon, lat = land_points(30, 8)[3]
    for product in collection(L1C).query((lon, lat, lon, lat), ms(2019), ms(2019, 2)):
        asset = product.bands[1]
        to = Transformer.from_crs(4326, asset.grid.crs, always_xy=True)
        assert product.footprint is not None
        x, y = to.transform(*np.array(product.footprint.exterior.coords).T)
        left, top = asset.grid.transform[2], asset.grid.transform[5]
        assert x.min() >= left - 1
        assert x.max() <= left + mgrs.EXTENT + 1
        assert y.max() <= top + 1
        assert y.min() >= top - mgrs.EXTENT - 1


def test_the_flat_world_has_the_same_catalogue_without_clouds() -> None:
    flat = build("flat", 0)
    for asset_id in (L1C, L2A, SCORE, LABELS, RADAR, CLIMATE, "ESA/WorldCover/v100"):
        images = list(collection(asset_id, flat).query((-40.0, 20.0, -39.98, 20.02), ms(2019), ms(2020, 2)))
        assert images
        for image in images[:2]:
            for asset in image.bands:
                values, mask = asset.read(10, 10, 6, 7)
                assert values.shape == mask.shape == (6, 7)
                assert mask.all()
                assert (values == values[0, 0]).all()
                assert values.dtype == np.dtype(asset.dtype)
    assert {
        i.properties["CLOUDY_PIXEL_PERCENTAGE"]
        for i in collection(L1C, flat).query((-40, 20, -39.9, 20.1), ms(2019), ms(2019, 3))
    } == {0.0}
