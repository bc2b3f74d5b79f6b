"""What is refused, what is clear, what is complete: each rule against a plain count of pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from mmearth_data import checks, grid
from mmearth_data.modalities import MODALITIES, STORED
from mmearth_data.source import Absence, Corrupt, Location, RadarPass, Tile
from mmearth_data.store.schema import Status
from tests.collecting import PIXELS, acquisition, tile

EVEN = int(grid.cells_at(9.0, 45.0, PIXELS)[0]) & ~1


def good(level: str = "L2A") -> Tile:
    place = Location(EVEN if level == "L2A" else EVEN + 1, 2019)
    return tile(acquisition(place, 0))


@pytest.mark.parametrize("level", ["L2A", "L1C"])
def test_a_good_tile_passes(level: str) -> None:
    it = good(level)
    checks.check_content(it)
    assert it.acquisition.level == level
    assert checks.clear_fraction(it) == 1.0
    assert checks.gap_pixels(it) == 0
    assert checks.refusal(it) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("esa_worldcover", 85, "class 85"),
        ("dynamic_world", 10, "within 1…9"),
        ("sentinel2_scl", 12, "within 1…11"),
        ("canopy_height_eth", 101, "within 0…100"),
        ("sentinel1", 10001, "within -10000…10000"),
        ("cloud_score", 254, "within 0…100"),
        ("aster", -501, "within -500…9000"),
        ("sentinel2_cloudprod", 101, "within 0…100"),
    ],
)
def test_one_impossible_pixel_is_corrupt(name: str, value: int, said: str) -> None:
    it = good()
    it.pixels[name][0, 5, 7] = value
    with pytest.raises(Corrupt, match=f"{name}.*{said}"):
        checks.check_content(it)


def test_shape_and_dtype_are_the_registrys() -> None:
    for name, wrong in (
        ("aster", lambda a: a[:1]),
        ("aster", lambda a: a.astype(np.int32)),
        ("aster", lambda a: a[:, :-1]),
        ("cloud_score", lambda a: a.astype(np.int8)),
    ):
        it = good()
        it.pixels[name] = wrong(it.pixels[name])
        with pytest.raises(Corrupt, match=f"{name} must be"):
            checks.check_content(it)
    it = good()
    del it.pixels["sentinel1"]
    with pytest.raises(Corrupt, match=r"sentinel1 must be .* not nothing"):
        checks.check_content(it)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_clear_pixels_are_counted_by_score_and_by_bits_where_there_is_none(data: st.DataObject) -> None:
    it = good()
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    it.pixels["cloud_score"][0] = draw.choice([0, 59, 60, 100, 255], (PIXELS, PIXELS))
    it.pixels["sentinel2_cloudmask"][0] = draw.choice([0, 1024, 2048, 3072, 65535], (PIXELS, PIXELS))
    it.pixels["sentinel2"][:, draw.random((PIXELS, PIXELS)) < 0.2] = 0
    clear = seen = 0
    for y in range(PIXELS):
        for x in range(PIXELS):
            if not it.pixels["sentinel2"][:, y, x].any():
                continue
            score, flags = int(it.pixels["cloud_score"][0, y, x]), int(it.pixels["sentinel2_cloudmask"][0, y, x])
            seen += 1
            clear += score >= 60 if score != 255 else flags == 0
    assert checks.clear_fraction(it) == pytest.approx(clear / seen, abs=1e-12)


def test_the_limit_of_clear_is_ninety_percent() -> None:
    total = PIXELS**2
    for unclear, refusal in ((int(0.1 * total), None), (int(0.1 * total) + 1, Absence.CLOUDY)):
        it = good()
        it.pixels["cloud_score"].reshape(-1)[:unclear] = 59
        assert checks.refusal(it) == refusal


def test_gaps_count_any_band_that_the_level_has() -> None:
    for level, band, gap in (("L2A", "B9", 1), ("L1C", "B10", 1), ("L2A", "B10", 0)):
        it = good(level)
        it.pixels["sentinel2"][MODALITIES["sentinel2"].bands.index(band), 2, 3] = 0
        assert checks.gap_pixels(it) == gap
        assert checks.refusal(it) == (Absence.GAPS if gap else None)


def test_a_swath_edge_is_a_gap_and_cloud_beside_it_is_cloud() -> None:
    it = good()
    for name in ("sentinel2", "cloud_score", "sentinel2_cloudmask"):
        it.pixels[name][:, :, 4:] = MODALITIES[name].nodata
    assert checks.refusal(it) == Absence.GAPS
    it.pixels["cloud_score"][:, :, :2] = 0
    assert checks.refusal(it) == Absence.CLOUDY
    it.pixels["sentinel2"][:] = 0
    assert checks.refusal(it) == Absence.GAPS


VV_VH = RadarPass("COPERNICUS/S1_GRD/X", 0, ("VV", "VH"))
HH_HV = RadarPass("COPERNICUS/S1_GRD/Y", 0, ("HH", "HV"))
VV = RadarPass("COPERNICUS/S1_GRD/Z", 0, ("VV",))


@pytest.mark.parametrize(
    ("ascending", "descending", "with_data", "expected"),
    [
        (VV_VH, VV_VH, {"asc_VV", "asc_VH", "desc_VV", "desc_VH"}, Status.COMPLETE),
        (HH_HV, VV_VH, {"asc_HH", "asc_HV", "desc_VV", "desc_VH"}, Status.COMPLETE),
        (VV, VV, {"asc_VV", "desc_VV"}, Status.COMPLETE),
        (VV_VH, VV_VH, {"asc_VV", "desc_VV", "desc_VH"}, Status.PARTIAL),
        (VV_VH, None, {"asc_VV", "asc_VH"}, Status.PARTIAL),
        (None, HH_HV, {"desc_HH", "desc_HV"}, Status.PARTIAL),
        (VV_VH, None, set(), Status.ABSENT),
        (None, None, set(), Status.ABSENT),
    ],
)
def test_radar_is_complete_with_both_passes_in_their_own_polarisations(
    ascending: RadarPass | None, descending: RadarPass | None, with_data: set[str], expected: Status
) -> None:
    modality = MODALITIES["sentinel1"]
    taken = dataclasses.replace(good().acquisition, ascending=ascending, descending=descending)
    stored = np.full((8, PIXELS, PIXELS), modality.nodata, dtype=np.int16)
    for band in with_data:
        stored[modality.bands.index(band), 0, 0] = -900
    assert checks.status_of(modality, stored, taken) == expected


def test_status_of_the_other_modalities_follows_level_and_data() -> None:
    for level, has_masks in (("L2A", True), ("L1C", False)):
        it = good(level)
        values = it.pixels | {
            "era5": np.array([1.0] * 11 + [np.nan], dtype=np.float32),
            "biome": np.array([3], dtype=np.uint8),
            "eco_region": np.array([65535], dtype=np.uint16),
        }
        values["canopy_height_eth"][1] = 255
        status = dict(zip((m.name for m in STORED), checks.statuses(values, it.acquisition), strict=True))
        assert status["sentinel2"] == Status.COMPLETE
        assert status["sentinel2_scl"] == (Status.COMPLETE if has_masks else Status.ABSENT)
        assert status["sentinel2_cloudprod"] == (Status.COMPLETE if has_masks else Status.ABSENT)
        assert status["era5"] == Status.PARTIAL
        assert status["canopy_height_eth"] == Status.PARTIAL
        assert status["biome"] == Status.COMPLETE
        assert status["eco_region"] == Status.ABSENT
    it = good("L2A")
    it.pixels["sentinel2"][0] = 0
    assert checks.status_of(MODALITIES["sentinel2"], it.pixels["sentinel2"], it.acquisition) == Status.PARTIAL


def test_nothing_valid_in_any_modality_is_corrupt_and_in_all_but_one_it_is_not() -> None:
    it = good()
    for modality in STORED:
        if modality.name in it.pixels:
            it.pixels[modality.name][:] = modality.nodata
    with pytest.raises(Corrupt, match="no modality has a single valid pixel"):
        checks.check_content(it)
    it.pixels["aster"][0, 0, 0] = 7
    checks.check_content(it)
    assert checks.refusal(it) == Absence.GAPS


def with_cirrus_band(value: int, baseline: str, level: str = "L1C", unclear: int = 0) -> Tile:
    it = good(level)
    it = dataclasses.replace(it, acquisition=dataclasses.replace(it.acquisition, baseline=baseline))
    it.pixels["sentinel2"][MODALITIES["sentinel2"].bands.index("B10")] = value
    it.pixels["cloud_score"].reshape(-1)[:unclear] = 0
    return it


def test_the_offset_is_judged_by_the_cirrus_band_of_clear_tiles_that_can_carry_it() -> None:
    with pytest.raises(Corrupt, match=r"B10 must be near 0 in a clear L1C tile; it is 1004 or more"):
        checks.check_content(with_cirrus_band(1004, "04.00"))
    checks.check_content(with_cirrus_band(999, "05.10"))
    checks.check_content(with_cirrus_band(1004, "02.07"))
    cloudy = with_cirrus_band(1004, "04.00", unclear=PIXELS**2 // 2)
    checks.check_content(cloudy)
    assert checks.refusal(cloudy) == Absence.CLOUDY


def test_of_real_tiles_those_with_the_offset_are_told_apart(shared_data: Path) -> None:
    corrupt = []
    for file in sorted((shared_data / "terramesh" / "S2L1C").glob("*.tif")):
        it = with_cirrus_band(1, "04.00")
        with rasterio.open(file) as opened:  # B1 to B8, B8A, B9, B10
            it.pixels["sentinel2"][MODALITIES["sentinel2"].bands.index("B10")] = opened.read(11)[:PIXELS, :PIXELS]
        try:
            checks.check_content(it)
            corrupt.append(False)
        except Corrupt:
            corrupt.append(True)
    assert sorted(corrupt) == [False, False, True, True, True]


def test_what_may_be_honest_is_only_suspected() -> None:
    assert checks.suspicions(good("L1C")) == ()
    snow = good()
    snow.pixels["sentinel2"][1] = 65535
    checks.check_content(snow)
    assert checks.suspicions(snow) == (checks.Suspicion.CONSTANT,)
    masked = good()
    masked.pixels["sentinel1"][:] = MODALITIES["sentinel1"].nodata
    assert checks.suspicions(masked) == ()
    masked.pixels["sentinel1"][0] = -1200
    assert checks.suspicions(masked) == (checks.Suspicion.CONSTANT,)
    desert = good()
    desert.pixels["sentinel2"][:] = np.maximum(desert.pixels["sentinel2"], 1000)
    bands = [MODALITIES["sentinel2"].bands.index(band) for band in desert.acquisition.bands if band.startswith("B")]
    desert.pixels["sentinel2"][MODALITIES["sentinel2"].bands.index("B10")] = 0
    desert.pixels["sentinel2"][bands, 0, 0] += 1
    assert checks.suspicions(desert) == (checks.Suspicion.OFFSET,)
    desert.pixels["sentinel2"][bands[3], 4, 4] = 999
    assert checks.suspicions(desert) == ()


def test_a_fingerprint_is_the_reflectances_and_constant_tiles_have_none() -> None:
    one, other = good(), good()
    assert checks.fingerprint(one) == checks.fingerprint(other) is not None
    other.pixels["aster"][0, 0, 0] += 1
    assert checks.fingerprint(one) == checks.fingerprint(other)
    other.pixels["sentinel2"][3, 2, 1] += 1
    assert checks.fingerprint(one) != checks.fingerprint(other)
    for level in ("L1C", "L2A"):
        flat = good(level)
        values = np.arange(1, 14, dtype=np.uint16)[:, None, None]
        flat.pixels["sentinel2"][:] = np.where(flat.pixels["sentinel2"].any(axis=(1, 2), keepdims=True), values, 0)
        assert checks.fingerprint(flat) is None
