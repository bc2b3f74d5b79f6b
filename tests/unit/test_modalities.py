"""The registry agrees with RESOLVE's own file, with itself and with its documentation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyogrio
import pytest

from mmearth_data import modalities
from mmearth_data.modalities import MODALITIES, Modality

DOCS = Path(__file__).resolve().parents[2] / "docs" / "modalities.md"


def test_class_ids_follow_the_order_of_resolves_file(shared_data: Path) -> None:
    table = pyogrio.read_dataframe(shared_data / "ecoregions2017" / "Ecoregions2017.shp", read_geometry=False)
    table = table[table["ECO_NAME"] != modalities.ROCK_AND_ICE].sort_values("OBJECTID")
    biomes = list(table["BIOME_NAME"].drop_duplicates())
    assert list(modalities.BIOME_NAMES) == biomes
    expected = [name for biome in biomes for name in table["ECO_NAME"][table["BIOME_NAME"] == biome]]
    assert list(modalities.ECOREGION_NAMES) == expected
    by_name = dict(zip(table["ECO_NAME"], table["BIOME_NAME"], strict=True))
    assert by_name == modalities.ECOREGION_BIOME


@pytest.mark.parametrize("modality", MODALITIES.values(), ids=lambda m: m.name)
def test_no_data_and_classes_fit_the_dtype_and_lie_apart(modality: Modality) -> None:
    low, high = modality.valid_range
    assert math.isnan(modality.nodata) or not low <= modality.nodata <= high
    if modality.numpy_dtype.kind in "iu":
        bounds = np.iinfo(modality.numpy_dtype)
        assert bounds.min <= min(low, modality.nodata)
        assert max(high, modality.nodata) <= bounds.max
    values = [value for value, _ in modality.classes]
    assert values == sorted(set(values))
    assert bool(values) == (modality.kind == "categorical")
    assert all(low <= value <= high for value in values)
    assert len(set(modality.bands)) == len(modality.bands)


def test_valid_tells_no_data_from_data() -> None:
    radar = MODALITIES["sentinel1"]
    assert radar.valid(np.array([-32768, -1200, 0], dtype=np.int16)).tolist() == [False, True, True]
    era5 = MODALITIES["era5"]
    assert era5.valid(np.array([math.nan, 280.0], dtype=np.float32)).tolist() == [False, True]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(modalities.UnknownModalityError, match=r"unknown modality 'sentinel3'.*sentinel2.*month"):
        modalities.get("sentinel3")


@pytest.mark.parametrize("modality", MODALITIES.values(), ids=lambda m: m.name)
def test_every_modality_is_documented_as_it_is(modality: Modality) -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| {modality.name} |")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[1] == ", ".join(modality.bands)
    assert cells[2] == f"{modality.scope} {modality.kind}"
    if modality.stored:
        assert cells[3].split(", ")[0] == modality.dtype
    assert all(f"`{asset}`" in cells[6] for asset in modality.assets)
    assert cells[7] == ("yes" if modality.pretext else "no")
