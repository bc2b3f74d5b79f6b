"""One tile in one request: values, no-data, footprints and reasons, from a small archive whose every value is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import Polygon, box

from mmearth_data import grid
from mmearth_data.earthengine.images import BUILDERS
from mmearth_data.earthengine.session import connect
from mmearth_data.emulator.assets import ImageAsset, NativeGrid, Window
from mmearth_data.modalities import DOWNSTREAM, MODALITIES, PIXEL
from mmearth_data.source import Absence, Acquisition, RadarPass, Tile
from tests.emulated import RecordedCollection, SmallArchive, image_asset, level, start_emulator

CELL = int(grid.cells_at(9.5, 45.0, 16)[0])
X0, Y0 = (int(v[0]) for v in (grid.decode(CELL).x0, grid.decode(CELL).y0))
GRID = {size: NativeGrid("EPSG:32632", (size, 0, X0 - 600, 0, -size, Y0 + 600)) for size in (10.0, 20.0, 60.0)}
S1, S2 = "COPERNICUS/S1_GRD", "COPERNICUS/S2_SR_HARMONIZED"
S2_SCORE, WORLD = MODALITIES["cloud_score"].assets[0], MODALITIES["dynamic_world"].assets[0]
TIME = 1_561_939_200_000
L2A_BANDS = tuple(b for b in MODALITIES["sentinel2"].bands if b != "B10")
LON, LAT = (float(v[0]) for v in grid.centres(CELL))
EVERYWHERE, ELSEWHERE = box(LON - 1, LAT - 1, LON + 1, LAT + 1), box(LON + 2, LAT, LON + 3, LAT + 1)


def west_half() -> Polygon:
    """A footprint whose eastern edge runs through the middle of the cell."""
    transformer = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    x, y = np.array([-500, 80, 80, -500]), np.array([-700, -700, 500, 500])
    return Polygon(np.column_stack(transformer.transform(X0 + x, Y0 + y)))


def masked(row: int, column: int, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    return np.zeros((height, width)), np.zeros((height, width), dtype=np.bool_)


def product(asset: str, footprint: Polygon, **windows: Window) -> ImageAsset:
    size = {"B2": 10.0, "B3": 10.0, "B4": 10.0, "B8": 10.0, "B1": 60.0, "B9": 60.0, "QA60": 60.0}
    dtype = {"SCL": "uint8", "MSK_CLDPRB": "uint8"}
    bands = {name: (dtype.get(name, "uint16"), GRID[size.get(name, 20.0)], read) for name, read in windows.items()}
    return image_asset(asset, bands, footprint, time=TIME)


def archive(
    *,
    product_footprint: Polygon = EVERYWHERE,
    radar_footprint: Polygon = EVERYWHERE,
    labels: Sequence[Window] = (level(3), level(3), level(5)),
    scores: Sequence[str] = ("P",),
    canopy: Polygon = EVERYWHERE,
    scl: float = 4,
) -> SmallArchive:
    reflectance = {band: level(1000 + 10 * k) for k, band in enumerate(L2A_BANDS)} | {"B3": level(0)}
    masks = {"QA60": level(1024), "SCL": level(scl), "MSK_CLDPRB": level(17)}
    dem, cover = MODALITIES["aster"].assets[0], MODALITIES["esa_worldcover"].assets[0]
    height, spread = MODALITIES["canopy_height_eth"].assets
    single = {"VV": ("float64", GRID[10.0], level(-12.34)), "VH": ("float64", GRID[10.0], level(-19.87))}
    world_cover = image_asset(f"{cover}/2020", {"Map": ("uint8", GRID[10.0], level(40))}, EVERYWHERE, time=TIME)
    twins = [
        image_asset(f"{S2_SCORE}/{name}", {"cs_cdf": ("float64", GRID[10.0], level(0.876))}, EVERYWHERE, time=TIME)
        for name in scores
    ]
    world = [
        image_asset(f"{WORLD}/{k}", {"label": ("uint8", GRID[10.0], read)}, EVERYWHERE, time=TIME + k)
        for k, read in enumerate(labels)
    ]
    return SmallArchive(
        [
            RecordedCollection(S2, [product(f"{S2}/P", product_footprint, **reflectance, **masks)]),
            RecordedCollection(S1, [image_asset(f"{S1}/R", single, radar_footprint, time=TIME)]),
            RecordedCollection(S2_SCORE, twins),
            RecordedCollection(WORLD, world),
            RecordedCollection(cover, [world_cover]),
            image_asset(dem, {"b1": ("int16", GRID[10.0], plane)}, EVERYWHERE),
            image_asset(height, {"b1": ("uint8", GRID[10.0], level(21))}, canopy),
            image_asset(spread, {"b1": ("uint8", GRID[10.0], level(5))}, canopy),
        ]
    )


def plane(row: int, column: int, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Elevation that rises 3 m per pixel of 10 m eastwards."""
    columns = np.broadcast_to(np.arange(column, column + width), (height, width))
    return 100 + 3 * columns, np.ones((height, width), dtype=np.bool_)


ACQUISITION = Acquisition(
    location_id=CELL,
    year=2019,
    level="L2A",
    sentinel2_id=f"{S2}/P",
    time=TIME,
    scene_cloud=1.0,
    baseline="02.12",
    bands=(*L2A_BANDS, "QA60", "SCL", "MSK_CLDPRB"),
    ascending=RadarPass(f"{S1}/R", TIME, ("VV", "VH")),
    descending=None,
    era5=(0.0,) * 12,
)


def fetched(folder: Path, contents: SmallArchive, acquisition: Acquisition = ACQUISITION) -> Tile:
    with start_emulator(folder, archive=contents) as emulator:
        tile = connect(None, emulator.url).fetch(acquisition)
        assert len(emulator.requests("computePixels")) == 1
    return tile


def test_every_pixel_modality_has_a_builder_and_bands_of_its_own() -> None:
    everything = (*PIXEL, *(modality for modality in DOWNSTREAM if modality.scope == "pixel"))
    assert list(BUILDERS) == [modality.name for modality in everything]
    bands = [band for modality in everything for band in modality.bands]
    assert len(set(bands)) == len(bands)


def test_values_arrive_in_stored_units(tmp_path: Path) -> None:
    tile = fetched(tmp_path, archive())
    expected = {band: 1000 + 10 * k for k, band in enumerate(L2A_BANDS)} | {"B3": 1, "B10": 0}
    for index, band in enumerate(MODALITIES["sentinel2"].bands):
        assert (tile.pixels["sentinel2"][index] == expected[band]).all(), band
    for name, values in {
        "sentinel2_cloudmask": [1024],
        "sentinel2_cloudprod": [17],
        "sentinel2_scl": [4],
        "cloud_score": [88],
        "sentinel1": [-1234, -1987, *[-32768] * 6],
        "dynamic_world": [4],
        "canopy_height_eth": [21, 5],
        "esa_worldcover": [40],
    }.items():
        expected_pixels = np.broadcast_to(np.reshape(values, (-1, 1, 1)), (len(values), 16, 16))
        np.testing.assert_array_equal(tile.pixels[name], expected_pixels)
    elevation, slope = tile.pixels["aster"]
    np.testing.assert_array_equal(elevation, np.broadcast_to(100 + 3 * (np.arange(16) + 60), (16, 16)))
    assert (slope == round(100 * np.degrees(np.arctan(0.3)))).all()
    assert tile.absent == {}


def test_beyond_a_footprint_there_is_no_data_rather_than_zero(tmp_path: Path) -> None:
    tile = fetched(tmp_path, archive(product_footprint=west_half(), radar_footprint=west_half(), canopy=west_half()))
    # A 60 m band blurs the edge, in the middle of the 16 columns, by up to half a pixel of 60 m to either side.
    for name in ("sentinel2", "sentinel2_scl", "sentinel2_cloudmask", "sentinel1", "canopy_height_eth"):
        modality, got = MODALITIES[name], tile.pixels[name]
        has = [index for index, band in enumerate(modality.bands) if band in ACQUISITION.available(modality)]
        assert modality.valid(got[has][:, :, :2]).all(), name
        assert not modality.valid(got[:, :, 12:]).any(), name
    assert MODALITIES["cloud_score"].valid(tile.pixels["cloud_score"]).all()
    assert tile.absent == {}


def test_water_never_seen_is_zero_within_the_maps_footprint_and_unknown_beyond_it(tmp_path: Path) -> None:
    """An asset that is masked in the cell's upper half and ends, as the real one at 80° N, in the cell."""

    def water(row: int, column: int, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        seen = np.arange(row, row + height)[:, None] >= 60 + 8
        return np.full((height, width), 7), np.broadcast_to(seen, (height, width))

    modality = MODALITIES["jrc_surface_water"]
    bands = dict.fromkeys(modality.bands, ("uint8", GRID[10.0], water))
    contents = SmallArchive([*archive().assets, image_asset(modality.assets[0], bands, west_half())])
    with start_emulator(tmp_path, archive=contents) as emulator:
        tile = connect(None, emulator.url, modalities=(*PIXEL, modality)).fetch(ACQUISITION)
    expected = np.full((2, 16, 16), modality.nodata)
    expected[:, :8, :8], expected[:, 8:, :8] = 0, 7
    np.testing.assert_array_equal(tile.pixels[modality.name], expected)
    assert not modality.valid(tile.pixels[modality.name])[:, :, 8:].any()


@pytest.mark.parametrize(
    ("contents", "name", "reason"),
    [
        ({"labels": ()}, "dynamic_world", Absence.NO_SCENE),
        ({"labels": (masked, masked)}, "dynamic_world", Absence.MASKED),
        ({"scores": ("Q",)}, "cloud_score", Absence.NO_SCENE),
        ({"scores": ()}, "cloud_score", Absence.NO_SCENE),
        ({"canopy": ELSEWHERE}, "canopy_height_eth", Absence.MASKED),
        ({"radar_footprint": ELSEWHERE}, "sentinel1", Absence.MASKED),
        ({"scl": 0}, "sentinel2_scl", Absence.MASKED),
    ],
)
def test_what_is_absent_has_the_reason_of_the_archive(
    tmp_path: Path, contents: dict[str, object], name: str, reason: Absence
) -> None:
    tile = fetched(tmp_path, archive(**contents))
    assert tile.absent == {name: reason}
    modality = MODALITIES[name]
    assert not modality.valid(tile.pixels[name]).any()
