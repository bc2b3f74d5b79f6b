"""Pixels of the procedural Earth: deterministic, aligned across projections, masked where they should be, coherent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from mmearth_data.emulator.assets import Archive, BandAsset, CollectionAsset, FeatureAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world import blocks, build, charts, planet, setting, terrain

DAY = 86_400_000
Y2019, Y2020 = 1_546_300_800_000, 1_577_836_800_000
L1C, L2A = "COPERNICUS/S2_HARMONIZED", "COPERNICUS/S2_SR_HARMONIZED"
SCORE, LABELS = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED", "GOOGLE/DYNAMICWORLD/V1"
RADAR = "COPERNICUS/S1_GRD"
DEM, CANOPY = "projects/sat-io/open-datasets/ASTER/GDEM", "users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1"
CANOPY_SD = "users/nlang/ETH_GlobalCanopyHeightSD_2020_10m_v1"


@cache
def earth(copy: int = 0) -> Archive:
    """The archive; another ``copy`` is built anew."""
    return build("earth", 0)


def collection(asset_id: str, copy: int = 0) -> CollectionAsset:
    found = earth(copy).lookup(asset_id)
    assert found is not None
    assert not isinstance(found, ImageAsset | FeatureAsset)
    return found


def image(asset_id: str) -> ImageAsset:
    found = earth().lookup(asset_id)
    assert isinstance(found, ImageAsset)
    return found


def band(of: ImageAsset, name: str) -> BandAsset:
    return next(b for b in of.bands if b.name == name)


@dataclass(frozen=True)
class Place:
    """A 1280 m square inside a tile, in pixels of 10 m from the tile's corner (multiples of 6, so of every grid)."""

    product: ImageAsset
    row: int
    column: int

    def read(self, name: str, of: ImageAsset | None = None, size: int = 132) -> tuple[np.ndarray, np.ndarray]:
        chosen = band(of or self.product, name)
        step = round(chosen.grid.transform[0] / 10)
        return chosen.read(self.row // step, self.column // step, size // step, size // step)

    def centres(self, size: int = 132) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of the 10 m pixels."""
        grid = band(self.product, "B2").grid
        x = grid.transform[2] + 10.0 * (self.column + np.arange(size) + 0.5)
        y = grid.transform[5] - 10.0 * (self.row + np.arange(size) + 0.5)
        return Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))


@cache
def places(biome: str, count: int, seed: int = 3, level: str = L2A, most_cloud: float = 100.0) -> tuple[Place, ...]:
    """Random places on land of a biome, each in a product of 2019."""
    table = earth().lookup("RESOLVE/ECOREGIONS/2017")
    assert isinstance(table, FeatureAsset)
    land = shapely.union_all([g for g, p in table.features if p["BIOME_NAME"] == biome])
    rng = np.random.default_rng(seed)
    west, south, east, north = land.bounds
    found: list[Place] = []
    while len(found) < count:
        lon, lat = rng.uniform(west, east), rng.uniform(max(south, -55), min(north, 80))
        if not land.contains(shapely.Point(lon, lat)):
            continue
        products = [
            p
            for p in collection(level).query((lon, lat, lon, lat), Y2019, Y2020)
            if p.properties["CLOUDY_PIXEL_PERCENTAGE"] <= most_cloud and p.footprint is not None
            and p.footprint.buffer(-0.05).contains(shapely.Point(lon, lat))
        ]  # fmt: skip
        if not products:
            continue
        product = products[int(rng.integers(len(products)))]
        grid = band(product, "B2").grid
        x, y = Transformer.from_crs(4326, grid.crs, always_xy=True).transform(lon, lat)
        row, column = int((grid.transform[5] - y) // 10) // 6 * 6, int((x - grid.transform[2]) // 10) // 6 * 6
        if 0 <= row < 10_800 and 0 <= column < 10_800:
            found.append(Place(product, row, column))
    return tuple(found)


FOREST = "Temperate Broadleaf & Mixed Forests"
EVERY_KIND = (FOREST, "Tundra", "Mangroves", "Deserts & Xeric Shrublands", "Montane Grasslands & Shrublands")


@pytest.mark.parametrize("biome", EVERY_KIND)
def test_a_part_of_a_window_is_the_same_as_the_window_read_alone(biome: str) -> None:
    (place,) = places(biome, 1)
    for asset in place.product.bands:
        step = round(asset.grid.transform[0] / 10)
        row, column = place.row // step, place.column // step
        whole, mask = asset.read(row - 20, column - 15, 90, 100)
        part, part_mask = asset.read(row + 11, column + 7, 31, 17)
        np.testing.assert_array_equal(part, whole[31:62, 22:39])
        np.testing.assert_array_equal(part_mask, mask[31:62, 22:39])


def test_a_world_built_anew_yields_the_same_pixels() -> None:
    (place,) = places(FOREST, 1)
    twin = collection(L2A, 1).image(place.product.id.rsplit("/", 1)[1])
    assert twin is not None
    assert dict(twin.properties) == dict(place.product.properties)
    for asset in place.product.bands:
        np.testing.assert_array_equal(place.read(asset.name)[0], place.read(asset.name, twin)[0])


def _sample(of: ImageAsset, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Nearest pixels of a map in degrees, its window found by plain arithmetic."""
    asset = of.bands[0]
    a, _, c, _, e, f = asset.grid.transform
    rows, columns = np.floor((lat - f) / e).astype(int), np.floor((lon - c) / a).astype(int)
    top, left = rows.min(), columns.min()
    values, _ = asset.read(int(top), int(left), int(rows.max() - top + 1), int(columns.max() - left + 1))
    return values[rows - top, columns - left]


@pytest.mark.parametrize("biome", ["Temperate Grasslands, Savannas & Shrublands", "Tundra"])
def test_the_map_in_degrees_lies_where_the_utm_grid_has_it(biome: str) -> None:
    world, shifts = setting.world(0), [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
    total = np.zeros(len(shifts))
    for place in places(biome, 8):
        grid = band(place.product, "B2").grid
        utm = blocks.window(grid, 1, place.row, place.column, 132, 132, lambda b: charts.worldcover(world, b))
        degrees = _sample(image("ESA/WorldCover/v100/2020"), *place.centres())
        assert (utm == degrees).mean() > 0.75
        inner = utm[2:-2, 2:-2]
        total += [(degrees[2 + i : 130 + i, 2 + j : 130 + j] == inner).mean() for i, j in shifts]
    assert shifts[int(np.argmax(total))] == (0, 0)


@pytest.mark.parametrize("south", [False, True])
def test_coarse_bands_lie_on_the_fine_ones(south: bool) -> None:
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    total = {name: np.zeros(len(shifts)) for name in ("B1", "B5")}
    for place in places("Mediterranean Forests, Woodlands & Scrub", 24, seed=2, most_cloud=1.0):
        if (band(place.product, "B2").grid.crs >= "EPSG:327") != south:
            continue
        for name, like in (("B1", "B2"), ("B5", "B4")):
            coarse, fine = place.read(name)[0].astype(float), place.read(like)[0].astype(float)
            step = 132 // len(coarse)
            mean = fine.reshape(len(coarse), step, len(coarse), step).mean(axis=(1, 3))
            inner, size = mean[1:-1, 1:-1].ravel(), len(coarse) - 2
            total[name] += [
                np.corrcoef(inner, coarse[1 + i : 1 + i + size, 1 + j : 1 + j + size].ravel())[0, 1] for i, j in shifts
            ]
    for scores in total.values():
        assert scores.max() > 0
        assert shifts[int(np.argmax(scores))] == (0, 0)


def test_elevation_agrees_between_the_zones_of_one_place() -> None:
    world = setting.world(0)
    # 6° E is the border of zones 31 and 32; both grids ask for the same points on either side of it.
    to_31, to_32 = (Transformer.from_crs(4326, epsg, always_xy=True) for epsg in (32631, 32632))
    lat = float(planet.LATITUDE[np.nonzero(world.planet.land[:, 372])[0]][-40])
    for lon in (5.9, 6.1):
        (x1, y1), (x2, y2) = to_31.transform(lon, lat), to_32.transform(lon, lat)
        first = NativeGrid("EPSG:32631", (10.0, 0.0, x1 // 10 * 10.0, 0.0, -10.0, y1 // 10 * 10.0))
        values = blocks.window(first, 1, 0, 0, 100, 100, lambda b: terrain.make(world, b, world.setting(b)).elevation)
        east, north = np.meshgrid(
            first.transform[2] + 10.0 * (np.arange(100) + 0.5), first.transform[5] - 10.0 * (np.arange(100) + 0.5)
        )
        there_x, there_y = to_32.transform(*to_31.transform(east, north, direction="INVERSE"))
        second = NativeGrid("EPSG:32632", (10.0, 0.0, x2 // 10 * 10.0 - 300, 0.0, -10.0, y2 // 10 * 10.0 + 300))
        wide = blocks.window(second, 1, 0, 0, 200, 200, lambda b: terrain.make(world, b, world.setting(b)).elevation)
        rows = np.floor((second.transform[5] - there_y) / 10).astype(int)
        columns = np.floor((there_x - second.transform[2]) / 10).astype(int)
        difference = np.abs(wide[rows, columns] - values)
        # Nearest neighbours in two grids are up to a pixel apart, so heights differ by what a pixel's slope makes.
        slope = max(np.abs(np.diff(values, axis=0)).max(), np.abs(np.diff(values, axis=1)).max())
        assert difference.max() <= 2.0 * slope + 1e-3


def _outside(of: ImageAsset, asset: BandAsset, row: int, column: int, size: int) -> np.ndarray:
    """Which pixel centres lie outside the footprint, by shapely."""
    grid = asset.grid
    x = grid.transform[2] + grid.transform[0] * (column + np.arange(size) + 0.5)
    y = grid.transform[5] + grid.transform[4] * (row + np.arange(size) + 0.5)
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    return ~shapely.contains_xy(of.footprint, lon, lat)


def test_products_are_masked_where_the_swath_ends() -> None:
    cut = next(
        p.product for p in places(FOREST, 30, seed=8)
        if p.product.footprint is not None and p.product.footprint.area < 0.6 * p.product.footprint.envelope.area
    )  # fmt: skip
    asset = band(cut, "B9")
    seen = np.zeros(2, dtype=int)
    for row in range(0, 1800, 300):
        for column in range(0, 1800, 300):
            _, mask = asset.read(row, column, 20, 20)
            outside = _outside(cut, asset, row, column, 20)
            assert (mask == ~outside).mean() > 0.9
            seen += [int(mask.all()), int(not mask.any())]
    assert seen.min() > 0


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
            assert opaque[covered].mean() > 0.7
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
    cover = _sample(image("ESA/WorldCover/v100/2020"), *place.centres())
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
            cover = _sample(image("ESA/WorldCover/v100/2020"), *place.centres())
            red, near = (place.read(name)[0].astype(float) for name in ("B4", "B8"))
            index = (near - red) / (near + red)
            height = _sample(image(CANOPY), *place.centres()).astype(float)
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
        cover = _sample(image("ESA/WorldCover/v100/2020"), lon, lat)
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
        cover = _sample(image("ESA/WorldCover/v100/2020"), lon, lat)
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


def test_dtypes_are_the_services() -> None:
    (place,) = places(FOREST, 1)
    for asset in place.product.bands:
        assert asset.dtype == ("uint8" if asset.name in ("SCL", "MSK_CLDPRB") else "uint16")
        assert asset.read(60, 60, 8, 8)[0].dtype == np.dtype(asset.dtype)
    elevation, mask = image(DEM).bands[0].read(200_000, 300_000, 40, 40)
    assert elevation.dtype == np.int16
    assert mask.dtype == np.bool_


def test_clear_products_still_hide_some_cells() -> None:
    hidden = total = 0
    for place in places(FOREST, 60, seed=21, most_cloud=10.0):
        twin = collection(SCORE).image(place.product.id.rsplit("/", 1)[1])
        if twin is not None:
            total += 1
            hidden += (place.read("cs_cdf", twin, 126)[0] >= 0.6).mean() < 0.9
    assert 0.02 <= hidden / total <= 0.25
