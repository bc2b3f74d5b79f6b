"""Real files through the real client: every pixel against rasterio's own warp of the same file onto the same grid.

The files' 10 m grids lie off the cells' grid (by up to half a pixel), so here even Sentinel-2's 10 m bands are
resampled: to the nearest pixel, as the other copied and categorical bands, where the answer must be equal; the 20 m and
60 m bands, radar and elevation bilinearly, where stored integers must be the warped value rounded.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from shapely.geometry import Point

from mmearth_data import grid
from mmearth_data.collection import collect_shard, resolve_plan
from mmearth_data.earthengine.images import NATIVE_10M_BANDS
from mmearth_data.earthengine.regions import ECOREGIONS, ecoregions
from mmearth_data.earthengine.resolve import preferred_level
from mmearth_data.earthengine.session import connect
from mmearth_data.modalities import MODALITIES
from mmearth_data.plan import Plan
from mmearth_data.source import Acquisition, Level, RadarPass
from mmearth_data.store import shards
from tests.emulated import Running, start_emulator

PIXELS = 100
"""A cell of 1 km: the largest of which each collected place holds one per Sentinel-2 level."""
COLLECTED = ("38D_378R_2_3", "433D_629L_3_1", "637U_59R_1_3")
PIXELS_ONLY = ("609U_541L_3_0", "282D_485L_3_3")
L1C_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
FILE_BANDS: dict[Level, tuple[str, ...]] = {"L1C": L1C_BANDS, "L2A": tuple(b for b in L1C_BANDS if b != "B10")}
COLLECTIONS: dict[Level, str] = {"L1C": "COPERNICUS/S2_HARMONIZED", "L2A": "COPERNICUS/S2_SR_HARMONIZED"}
RADAR, SCORE = "COPERNICUS/S1_GRD", "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
WORLDCOVER_OF = {1: 80, 2: 10, 3: 90, 4: 40, 5: 50, 6: 60, 7: 70, 8: 0, 9: 30}
"""WorldCover classes of TerraMesh's: water, trees, flooded vegetation, crops, built, bare, snow, clouds, rangeland."""
ROUNDING = 0.5 + 2e-3
"""Half a stored unit, and what single precision adds at reflectances of 10⁴."""


@dataclass(frozen=True)
class Place:
    """The files of one place; each modality is a folder of the same file name."""

    folder: Path
    name: str

    def file(self, modality: str) -> Path:
        return self.folder / modality / f"{self.name}.tif"

    def time(self, modality: str) -> int:
        """The acquisition that the file names, in ms: Sentinel-2's stands in the land use file."""
        with rasterio.open(self.file(modality)) as source:
            moment = dt.datetime.fromisoformat(source.tags()["datetime"][:19]).replace(tzinfo=dt.UTC)
        return int(moment.timestamp() * 1000)

    @property
    def year(self) -> int:
        return dt.datetime.fromtimestamp(self.time("LULC") / 1000, tz=dt.UTC).year

    def cells(self) -> list[int]:
        """Cells that lie in the file with room for every interpolation."""
        with rasterio.open(self.file("S2L2A")) as source:
            box, epsg = source.bounds, source.crs.to_epsg()
        size, room = PIXELS * 10, 25
        columns = range(math.ceil((box.left + room) / size), math.floor((box.right - room) / size))
        rows = range(math.ceil((box.bottom + room) / size), math.floor((box.top - room) / size))
        corners = np.array([(c, r) for c in columns for r in rows])
        zone, south = np.full(len(corners), epsg % 100), np.full(len(corners), epsg >= 32700)
        pixels = np.full(len(corners), PIXELS)
        return [int(i) for i in grid.encode(grid.Cells(zone, south, corners[:, 0], corners[:, 1], pixels))]

    def cell(self, level: Level) -> int:
        return next(cell for cell in self.cells() if preferred_level(cell) == level)

    def warped(self, modality: str, band: int, cell: int, how: Resampling) -> np.ndarray:
        """A band of a file on a cell's grid, by rasterio, in double precision; NaN where the file does not reach."""
        with rasterio.open(self.file(modality)) as source:
            return warp(source.read(band).astype(np.float64), source.transform, source.crs, cell, how)


def warp(values: np.ndarray, transform: Affine, crs: rasterio.crs.CRS, cell: int, how: Resampling) -> np.ndarray:
    result = np.full((PIXELS, PIXELS), np.nan)
    reproject(
        values,
        result,
        src_transform=transform,
        src_crs=crs,
        dst_transform=Affine(*grid.pixel_transform(cell)),
        dst_crs=crs,
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=how,
        tolerance=0,
    )
    return result


@pytest.fixture(scope="module")
def places(shared_data: Path) -> list[Place]:
    return [Place(shared_data / "terramesh", name) for name in (*COLLECTED, *PIXELS_ONLY)]


def describe(folder: Path, source: Path, name: str, **sidecar: object) -> None:
    """Put a file, or a link to it, with its sidecar into a folder to mount."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.tif"
    if source != target:
        target.symlink_to(source)
    target.with_suffix(".json").write_text(json.dumps(sidecar))


def write_like(source: Path, target: Path, values: np.ndarray) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(source) as like:
        profile = {**like.profile, "count": 1, "dtype": values.dtype, "nodata": None}
    with rasterio.open(target, "w", **profile) as file:
        file.write(values, 1)
    return target


def mounts(folder: Path, places: Sequence[Place], shared_data: Path) -> list[str]:
    """Sidecars for every file, cloud scores and land cover classes that the files do not have; what to mount."""
    for place in places:
        name, radar = place.name, {"instrumentMode": "IW", "orbitProperties_pass": "ASCENDING"}
        product = {"CLOUDY_PIXEL_PERCENTAGE": 1.5, "PROCESSING_BASELINE": "02.08"}
        time = place.time("LULC")
        for level, bands in FILE_BANDS.items():
            source = place.file(f"S2{level}")
            describe(folder / level, source, name, id=name, time=time, bands=bands, properties=product)
        radar_properties = {**radar, "transmitterReceiverPolarisation": ["VV", "VH"]}
        passed = {"id": name, "time": place.time("S1RTC"), "bands": ["VV", "VH"], "properties": radar_properties}
        describe(folder / "radar", place.file("S1RTC"), name, **passed)
        describe(folder / "dem", place.file("DEM"), name, image=True, bands=["b1"])
        with rasterio.open(place.file("LULC")) as source:
            land_use = source.read(1)
        classes = np.zeros(10, dtype=np.uint8)
        classes[list(WORLDCOVER_OF)] = list(WORLDCOVER_OF.values())
        cover = write_like(place.file("LULC"), folder / "cover" / f"{name}.tif", classes[land_use])
        describe(folder / "cover", cover, name, id="2020", time="2020-01-01", bands=["Map"], nodata=0)
        score = write_like(place.file("LULC"), folder / "score" / f"{name}.tif", np.full(land_use.shape, 0.75, "f4"))
        describe(folder / "score", score, name, id=name, time=time, bands=["cs_cdf"])
    return [
        *(f"{COLLECTIONS[level]}={folder / level}" for level in FILE_BANDS),
        f"{RADAR}={folder / 'radar'}",
        f"{MODALITIES['aster'].assets[0]}={folder / 'dem'}",
        f"{MODALITIES['esa_worldcover'].assets[0]}={folder / 'cover'}",
        f"{SCORE}={folder / 'score'}",
        f"{ECOREGIONS}={next((shared_data / 'ecoregions2017').glob('*.shp'))}",
    ]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory, places: list[Place], shared_data: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("mounts")
    with start_emulator(folder, "flat", mounts=mounts(folder, places, shared_data)) as running:
        yield running


@pytest.fixture(scope="module")
def regions(emulator: Running) -> gpd.GeoDataFrame:
    return ecoregions(connect(None, emulator.url))


def compare(place: Place, cell: int, level: Level, pixels: dict[str, np.ndarray]) -> None:
    """Every pixel of what a file provides against rasterio's warp of it."""
    for index, band in enumerate(MODALITIES["sentinel2"].bands):
        got = pixels["sentinel2"][index]
        if band not in FILE_BANDS[level]:
            assert (got == 0).all(), band
            continue
        how = Resampling.nearest if band in NATIVE_10M_BANDS else Resampling.bilinear
        expected = place.warped(f"S2{level}", FILE_BANDS[level].index(band) + 1, cell, how)
        if how == Resampling.nearest:
            np.testing.assert_array_equal(got, expected, err_msg=band)
        else:
            assert np.abs(got - expected).max() <= ROUNDING, band
    bands = MODALITIES["sentinel1"].bands
    for number, band in enumerate(("asc_VV", "asc_VH"), start=1):
        decibels = place.warped("S1RTC", number, cell, Resampling.bilinear)
        assert np.abs(pixels["sentinel1"][bands.index(band)] - 100 * decibels).max() <= ROUNDING, band
    land_use = place.warped("LULC", 1, cell, Resampling.nearest).astype(int)
    expected_cover = np.vectorize(WORLDCOVER_OF.__getitem__)(land_use)
    np.testing.assert_array_equal(pixels["esa_worldcover"][0], expected_cover)
    elevation, slope = pixels["aster"]
    assert np.abs(elevation - place.warped("DEM", 1, cell, Resampling.bilinear)).max() <= ROUNDING
    with rasterio.open(place.file("DEM")) as source:
        heights, transform, crs = source.read(1).astype(np.float64), source.transform, source.crs
    steepness = np.full(heights.shape, np.nan)
    dy, dx = ((heights[2:, 1:-1] - heights[:-2, 1:-1]) / 20, (heights[1:-1, 2:] - heights[1:-1, :-2]) / 20)
    steepness[1:-1, 1:-1] = np.degrees(np.arctan(np.hypot(dx, dy)))
    expected_slope = warp(steepness, transform, crs, cell, Resampling.bilinear)
    assert np.isfinite(expected_slope).all()
    assert np.abs(slope - 100 * expected_slope).max() <= ROUNDING
    assert (pixels["cloud_score"] == 75).all()


def test_ecoregions_arrive_as_the_file_has_them(regions: gpd.GeoDataFrame, shared_data: Path) -> None:
    file = gpd.read_file(next((shared_data / "ecoregions2017").glob("*.shp")))
    assert len(regions) == len(file) == 847
    for name in ("ECO_NAME", "BIOME_NAME", "REALM"):
        assert regions[name].tolist() == file[name].tolist()
    np.testing.assert_allclose(shapely.area(regions.geometry), shapely.area(file.geometry), rtol=1e-6)


def test_the_places_are_where_they_should_be(places: list[Place], regions: gpd.GeoDataFrame) -> None:
    for place in places:
        lon, lat = grid.centres(place.cells())
        land = regions.geometry.intersects(Point(lon[0], lat[0])).any()
        usable = bool(grid.eligible(place.cells()).all() and land)
        assert usable == (place.name in COLLECTED), place.name


def location_table(path: Path, places: Sequence[Place], regions: gpd.GeoDataFrame) -> None:
    """A cell per place and level, with the real ecoregion at its centre."""
    ids = np.array([place.cell(level) for place in places for level in ("L1C", "L2A")])
    cells, (lon, lat) = grid.decode(ids), grid.centres(ids)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(lon, lat), crs="EPSG:4326")
    found = gpd.sjoin(points, regions, predicate="within")
    year = np.repeat([place.year for place in places], 2).astype(np.int16)
    strata = list(zip(found["BIOME_NAME"], year, strict=True))
    table = points.assign(
        location_id=ids,
        lon=lon,
        lat=lat,
        epsg=cells.epsg.astype(np.int32),
        x0=cells.x0.astype(np.int32),
        y0=cells.y0.astype(np.int32),
        biome=found["BIOME_NAME"],
        ecoregion=found["ECO_NAME"],
        realm=found["REALM"],
        country="",
        continent="",
        year=year,
        reserve=False,
        rank=np.array([strata[:k].count(stratum) for k, stratum in enumerate(strata)], dtype=np.int32),
        split="train",
    )
    table.to_parquet(path)


def test_real_places_go_through_collection_pixel_by_pixel(
    places: list[Place], regions: gpd.GeoDataFrame, emulator: Running, tmp_path: Path
) -> None:
    chosen = [place for place in places if place.name in COLLECTED]
    location_table(tmp_path / "locations.parquet", chosen, regions)
    plan = Plan.prepare(tmp_path / "store", tmp_path / "locations.parquet", max_shard_rows=6)
    source = connect(None, emulator.url)
    resolve_plan(plan, source)
    while todo := plan.pending() or plan.next_round():
        for shard in todo:
            collect_shard(plan.store, plan.spec(shard), source, 3)
    rows = [r for s in sorted(shards.committed(plan.store)) for r in shards.row_table(plan.store, s).to_pylist()]
    stored = {row["location_id"]: row for row in rows if row["outcome"] == "stored"}
    store = xr.open_zarr(plan.store, mask_and_scale=False).load()
    assert len(stored) == 2 * len(chosen)
    for place in chosen:
        for level in FILE_BANDS:
            cell = place.cell(level)
            row = stored[cell]
            assert (row["level"], row["time"]) == (level, place.time("LULC"))
            assert row["sentinel2_id"] == f"{COLLECTIONS[level]}/{place.name}"
            assert row["sentinel1_asc_id"] == f"{RADAR}/{place.name}"
            names = ("sentinel2", "sentinel1", "esa_worldcover", "aster", "cloud_score")
            pixels = {name: store[name][row["row"]].to_numpy() for name in names}
            compare(place, cell, level, pixels)
            centre = Point(row["lon"], row["lat"])
            expected = regions[regions.geometry.contains(centre)].iloc[0]
            assert (row["biome"], row["ecoregion"]) == (expected["BIOME_NAME"], expected["ECO_NAME"])


def test_places_outside_the_tile_grids_domain_agree_in_compute_pixels(places: list[Place], emulator: Running) -> None:
    source = connect(None, emulator.url)
    for place in places:
        for level, bands in FILE_BANDS.items():
            cell = place.cells()[0]
            acquisition = Acquisition(
                location_id=cell,
                year=place.year,
                level=level,
                sentinel2_id=f"{COLLECTIONS[level]}/{place.name}",
                time=place.time("LULC"),
                scene_cloud=1.5,
                baseline="02.08",
                bands=bands,
                ascending=RadarPass(f"{RADAR}/{place.name}", place.time("S1RTC"), ("VV", "VH")),
                descending=None,
                era5=(math.nan,) * 12,
            )
            compare(place, cell, level, source.fetch(acquisition).pixels)
