"""What the procedural Earth's sensors show of one place is coherent: its cover, clouds, radar, canopy and climate."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from mmearth_data.emulator.assets import FeatureAsset, ImageAsset
from mmearth_data.emulator.world import planet, setting
from tests.procedural import FOREST, Y2019, Y2020, Place, band, collection, earth, image, places, sample

DAY = 86_400_000
L1C = "COPERNICUS/S2_HARMONIZED"
SCORE, LABELS = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED", "GOOGLE/DYNAMICWORLD/V1"
RADAR = "COPERNICUS/S1_GRD"
CANOPY = "users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1"
CANOPY_SD = "users/nlang/ETH_GlobalCanopyHeightSD_2020_10m_v1"


@pytest.mark.parametrize("biome", ["Tropical & Subtropical Moist Broadleaf Forests", FOREST])
def test_every_band_of_a_product_tells_of_the_same_clouds(biome: str) -> None:
    cloudy = clear = 0
    for place in places(biome, 14, seed=5):
        twin = collection(SCORE).image(place.product.id.rsplit("/", 1)[1])
        raw = collection(L1C).image(place.product.id.rsplit("/", 1)[1])
        if twin is None or raw is None or "MSK_CLDPRB" not in {b.name for b in place.product.bands}:
            continue
        score = place.read("cs", twin)[0]
        scene, probability = (place.read(name)[0].repeat(2, 0).repeat(2, 1) for name in ("SCL", "MSK_CLDPRB"))
        opaque = (place.read("QA60")[0].repeat(6, 0).repeat(6, 1) & 1024) > 0
        blue, blue_raw = place.read("B2")[0], place.read("B2", raw)[0]
        covered, free = score < 0.25, score > 0.9
        covered &= scene != 3
        if covered.sum() > 500:
            cloudy += 1
            assert np.isin(scene[covered], (7, 8, 9, 10)).mean() > 0.9
            assert probability[covered].mean() > 60
            # QA60 lacks the rims of clouds.
            assert opaque[covered & (score < 0.1)].mean() > 0.7
            assert blue[covered].mean() > 2500
            assert blue_raw[covered].mean() > 2500
        if free.sum() > 500:
            clear += 1
            assert np.isin(scene[free], (8, 9, 10)).mean() < 0.02
            assert probability[free].mean() < 15
            assert opaque[free].mean() < 0.02
        if covered.sum() > 500 and free.sum() > 500:
            assert blue[covered].mean() > blue[free].mean() + 1000
    assert cloudy >= 2
    assert clear >= 2


def test_dynamic_world_labels_the_ground_and_skips_clouds() -> None:
    (place,) = places(FOREST, 1)
    row, column = place.row, place.column
    product = place.product
    cover = sample(image("ESA/WorldCover/v100/2020"), *place.centres())
    votes, hidden = np.zeros((9, 132, 132), dtype=int), 0
    lon, lat = _centre(product, row, column)
    for scene in collection(LABELS).query((lon, lat, lon, lat), Y2019, Y2020):
        asset = scene.bands[0]
        if asset.grid != band(product, "B2").grid:
            continue
        values, mask = asset.read(row, column, 132, 132)
        assert set(np.unique(values[mask])) <= set(range(9))
        for label in range(9):
            votes[label] += mask & (values == label)
        raw = collection(L1C).image(scene.id.rsplit("/", 1)[1])
        assert raw is not None
        opaque = (Place(raw, row, column).read("QA60")[0] & 1024).repeat(6, 0).repeat(6, 1) > 0
        hidden += int(opaque.sum())
        assert (mask & opaque).sum() <= 0.25 * opaque.sum()
        twin = collection(SCORE).image(scene.id.rsplit("/", 1)[1])
        if twin is not None:
            score = band(twin, "cs").read(row, column, 132, 132)[0]
            assert (~mask & (score > 0.9)).mean() < 0.01
    assert hidden > 5000
    assert votes.sum(axis=0).min() > 3
    same = {10: 1, 20: 5, 30: 2, 40: 4, 50: 6, 60: 7, 70: 8, 80: 0, 90: 3, 95: 1, 100: 5}
    expected = np.vectorize(same.get)(cover)
    assert 0.55 < (votes.argmax(axis=0) == expected).mean() < 0.99


def _centre(product: ImageAsset, row: int, column: int) -> tuple[float, float]:
    grid = band(product, "B2").grid
    x, y = grid.transform[2] + 10.0 * (column + 66), grid.transform[5] - 10.0 * (row + 66)
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    return float(lon), float(lat)


def test_cover_drives_what_sensors_see() -> None:
    seen: dict[int, list[tuple[float, float]]] = {}
    tall: list[float] = []
    for biome in (FOREST, "Mediterranean Forests, Woodlands & Scrub", "Deserts & Xeric Shrublands", "Mangroves"):
        for place in places(biome, 8, seed=12, most_cloud=2.0):
            cover = sample(image("ESA/WorldCover/v100/2020"), *place.centres())
            red, near = (place.read(name)[0].astype(float) for name in ("B4", "B8"))
            index = (near - red) / (near + red)
            height = sample(image(CANOPY), *place.centres()).astype(float)
            for value in np.unique(cover):
                here = cover == value
                if here.sum() > 300:
                    seen.setdefault(int(value), []).append((float(index[here].mean()), float(near[here].mean())))
                    if value == 10:
                        tall.append(float(np.mean(height[here & (height < 255)])))
    mean = {value: np.mean(rows, axis=0) for value, rows in seen.items()}
    assert mean[10][0] > mean[60][0] + 0.3
    assert mean[80][1] < 0.5 * min(mean[10][1], mean[60][1])
    assert np.mean(tall) > 5


@pytest.mark.parametrize("asset_id", [CANOPY, CANOPY_SD])
def test_canopy_is_silent_over_water_and_nowhere_else_in_forest(asset_id: str) -> None:
    silent = {True: [0, 0], False: [0, 0]}
    for place in places("Mangroves", 8):
        lon, lat = place.centres()
        cover = sample(image("ESA/WorldCover/v100/2020"), lon, lat)
        asset = image(asset_id).bands[0]
        a, _, c, _, e, f = asset.grid.transform
        rows, columns = np.floor((lat - f) / e).astype(int), np.floor((lon - c) / a).astype(int)
        top, left = int(rows.min()), int(columns.min())
        values, mask = asset.read(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
        assert values.dtype == np.uint8
        assert (values[mask] <= 60).all()
        assert (values[~mask] == 255).all()
        for water, here in ((True, cover == 80), (False, cover == 10)):
            silent[water][0] += int((~mask[rows - top, columns - left] & here).sum())
            silent[water][1] += int(here.sum())
    assert silent[True][0] / silent[True][1] > 0.85
    assert silent[False][0] / silent[False][1] < 0.1


def test_radar_is_dark_over_water_and_speckled_and_polar_ice_has_other_polarisations() -> None:
    table = earth().lookup("RESOLVE/ECOREGIONS/2017")
    assert isinstance(table, FeatureAsset)
    ice = next(g for g, p in table.features if p["BIOME_NAME"] == "N/A")
    spots = [part.representative_point() for part in shapely.clip_by_rect(ice, -180, 60, 180, 80).geoms]
    polar = [
        scene
        for spot in spots
        for scene in collection(RADAR).query((spot.x, spot.y, spot.x, spot.y), Y2019, Y2019 + 30 * DAY)
        if abs(scene.footprint.centroid.y) > 72.5
    ]
    assert polar
    assert all({b.name for b in p.bands} <= {"HH", "HV"} for p in polar)
    wet, dry, ratio = [], [], []
    for place in places("Mangroves", 8):
        lon, lat = place.centres()
        cover = sample(image("ESA/WorldCover/v100/2020"), lon, lat)
        box = (lon.min(), lat.min(), lon.max(), lat.max())
        for scene in list(collection(RADAR).query(box, Y2019, Y2019 + 40 * DAY))[:1]:
            assert scene.properties["transmitterReceiverPolarisation"] == [b.name for b in scene.bands]
            asset = scene.bands[0]
            x, y = Transformer.from_crs(4326, asset.grid.crs, always_xy=True).transform(lon, lat)
            rows = np.floor((asset.grid.transform[5] - y) / 10).astype(int)
            columns = np.floor((x - asset.grid.transform[2]) / 10).astype(int)
            top, left = int(rows.min()), int(columns.min())
            values, mask = asset.read(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
            assert values.dtype == np.float64
            here, valid = values[rows - top, columns - left], mask[rows - top, columns - left]
            wet.extend(here[(cover == 80) & valid])
            dry.extend(here[(cover == 10) & valid])
            trees = here[(cover == 10) & valid]
            if len(trees) > 2000:
                power = 10 ** (trees / 10)
                ratio.append(power.var() / power.mean() ** 2)
    assert np.mean(wet) < np.mean(dry) - 5
    # Multi-looked speckle of about five looks on top of the forest's own variation.
    assert 0.15 < np.median(ratio) < 0.45


def test_era5_is_masked_at_sea_and_follows_season_and_latitude() -> None:
    months = [collection("ECMWF/ERA5_LAND/MONTHLY_AGGR").image(f"2019{m:02d}") for m in (1, 7)]
    assert all(m is not None for m in months)
    land = setting.world(0).planet.land
    for lat, warmer_in_july in ((50.25, True), (-35.25, False)):
        row = int((lat + 90) * 2)
        columns = np.nonzero(land[row] & np.roll(land[row], 1) & np.roll(land[row], -1))[0]
        lon = planet.LONGITUDE[columns[len(columns) // 2]]
        values = []
        for month in months:
            assert month is not None
            got = {}
            for asset in month.bands:
                a, _, c, _, e, f = asset.grid.transform
                value, mask = asset.read(int((lat - f) // e), int((lon - c) // a), 1, 1)
                assert mask.all()
                got[asset.name] = float(value[0, 0])
            assert got["temperature_2m_min"] < got["temperature_2m"] < got["temperature_2m_max"]
            assert 0 <= got["total_precipitation_sum"] < 1.5
            assert 200 < got["temperature_2m"] < 330
            values.append(got["temperature_2m"])
        assert (values[1] > values[0] + 2) == warmer_in_july
    sea = ~(land | np.roll(land, 1, 1) | np.roll(land, -1, 1) | np.roll(land, 1, 0) | np.roll(land, -1, 0))
    row, column = (int(v[len(v) // 2]) for v in np.nonzero(sea & (np.abs(planet.LATITUDE) < 60)[:, None]))
    asset = months[0].bands[0]  # type: ignore[union-attr]
    a, _, c, _, e, f = asset.grid.transform
    _, mask = asset.read(int((planet.LATITUDE[row] - f) // e), int((planet.LONGITUDE[column] - c) // a), 1, 1)
    assert not mask.any()
