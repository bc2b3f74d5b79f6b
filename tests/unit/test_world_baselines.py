"""Sentinel-2 as delivered and harmonised, what products say about themselves, and two versions of WorldCover."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from mmearth_data.emulator.assets import ImageAsset
from tests.procedural import FOREST, collection, image, places, sample

PAIRS = (("COPERNICUS/S2", "COPERNICUS/S2_HARMONIZED"), ("COPERNICUS/S2_SR", "COPERNICUS/S2_SR_HARMONIZED"))
MASKS = ("QA60", "SCL", "MSK_CLDPRB")


def ms(year: int, month: int = 1, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000


def listed(asset_id: str, start: int, end: int) -> list[ImageAsset]:
    (place,) = places(FOREST, 1)
    lon, lat = (float(part[66, 66]) for part in place.centres())
    return list(collection(asset_id).query((lon, lat, lon, lat), start, end))


@pytest.mark.parametrize(("delivered", "harmonised"), PAIRS)
@pytest.mark.parametrize(
    ("start", "end", "offset"), [(ms(2021, 11), ms(2022, 1, 25), 0), (ms(2022, 2), ms(2022, 4), 1000)]
)
def test_an_offset_came_with_a_baseline_and_harmonised_products_lack_it(
    delivered: str, harmonised: str, start: int, end: int, offset: int
) -> None:
    as_delivered, without = listed(delivered, start, end), listed(harmonised, start, end)
    assert [product.id.rpartition("/")[2] for product in as_delivered] == [p.id.rpartition("/")[2] for p in without]
    assert len(as_delivered) > 3
    for one, other in zip(as_delivered[:2], without[:2], strict=True):
        assert one.properties == other.properties
        assert (one.properties["PROCESSING_BASELINE"] >= "04.00") == bool(offset)
        for shifted, band in zip(one.bands, other.bands, strict=True):
            (values, valid), (plain, plain_valid) = (asset.read(300, 300, 40, 40) for asset in (shifted, band))
            assert values.dtype == plain.dtype == band.dtype
            np.testing.assert_array_equal(valid, plain_valid)
            difference = values.astype(int) - plain.astype(int)
            assert (difference == (0 if band.name in MASKS else offset)).all()


@pytest.mark.parametrize(("level", "asset_id"), [("L1C", PAIRS[0][1]), ("L2A", PAIRS[1][1])])
def test_products_say_the_same_in_every_name(level: str, asset_id: str) -> None:
    for product in listed(asset_id, ms(2018, 12, 14), ms(2022, 3))[::9]:
        own = product.properties
        begun, sensed, tile = own["system:index"].split("_")
        names = re.fullmatch(
            r"(S2[AB])_MSI(L\w\w)_(\w{15})_N(\d\d)(\d\d)_R(\d{3})_(T\w{5})_(\w{15})", own["PRODUCT_ID"]
        )
        assert names is not None
        short, kind, start, major, minor, orbit, where, processed = names.groups()
        assert own["SPACECRAFT_NAME"] == f"Sentinel-2{short[2]}"
        assert (kind, start, where, tile) == (level, begun, tile, f"T{own['MGRS_TILE']}")
        assert f"{major}.{minor}" == own["PROCESSING_BASELINE"]
        assert int(orbit) == own["SENSING_ORBIT_NUMBER"]
        made = datetime.fromtimestamp(own["GENERATION_TIME"] / 1000, UTC)
        assert made.strftime("%Y%m%dT%H%M%S") == processed
        assert own["GENERATION_TIME"] > own["system:time_start"]
        assert own["GRANULE_ID"].startswith(f"{level}_{tile}_A")
        assert own["GRANULE_ID"].endswith(sensed)
        assert own["DATATAKE_IDENTIFIER"] == f"G{short}_{begun}_{own['GRANULE_ID'][12:18]}_N{major}.{minor}"
        assert own["DATASTRIP_ID"] == f"{short}_OPER_MSI_{level}_DS_EPAE_{processed}_S{begun}_N{major}.{minor}"
        assert own["CLOUD_COVERAGE_ASSESSMENT"] == own["CLOUDY_PIXEL_PERCENTAGE"]


def test_an_archive_of_one_radar_satellite_after_the_other_failed() -> None:
    europe, radar = (-10.0, 60.0, 28.0, 70.0), collection("COPERNICUS/S1_GRD")
    found = {
        year: {product.properties["platform_number"] for product in radar.query(europe, ms(year, 11), ms(year, 11, 9))}
        for year in (2021, 2022)
    }
    assert found == {2021: {"A", "B"}, 2022: {"A"}}


def test_the_second_worldcover_is_another_map_of_the_same_ground() -> None:
    first, second = image("ESA/WorldCover/v100/2020"), image("ESA/WorldCover/v200/2021")
    assert second.properties["system:time_start"] == ms(2021)
    assert not list(collection("ESA/WorldCover/v200").query(None, ms(2020), ms(2021)))
    agreement = []
    for place in places("Temperate Grasslands, Savannas & Shrublands", 4):
        old, new = (sample(one, *place.centres()) for one in (first, second))
        agreement.append(float((old == new).mean()))
    assert 0.6 < np.mean(agreement) < 0.97


@pytest.mark.parametrize("asset_id", [asset_id for pair in PAIRS for asset_id in pair])
def test_qa60_is_masked_throughout_while_products_came_without_its_mask(asset_id: str) -> None:
    """From 25 January 2022 (to 28 February 2024, after the archive's end), as the catalogue's page says."""
    for start, end, anything in ((ms(2021, 12), ms(2022, 1, 25), True), (ms(2022, 1, 25), ms(2022, 2, 20), False)):
        products = listed(asset_id, start, end)
        assert len(products) > 1
        for product in products[:3]:
            flags, blue = (next(b for b in product.bands if b.name == name) for name in ("QA60", "B2"))
            valid = flags.read(100, 100, 30, 30)[1]
            assert valid.any() == (anything and blue.read(600, 600, 180, 180)[1].any())
