"""The report's data sections say what is in the store, counted here from its pixels and commits."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.report import ReportConfig, ReportError, render, write_report
from mmearth_data.modalities import BIOME_NAMES, MODALITIES, STORED
from mmearth_data.report.pictures import PALETTES, View, paint, views
from mmearth_data.report.places import places
from mmearth_data.store import StoreError, consolidate, layout
from mmearth_data.store.commits import row_table
from mmearth_data.store.rows import row_table as row_table_of
from mmearth_data.store.shards import ShardData, commit_shard, no_data
from tests.synthetic import make_store
from tests.unit.report_page import Page

ROWS, SHARD_ROWS = 112, 56


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("report") / "store.zarr", rows=ROWS, shard_rows=SHARD_ROWS)


@pytest.fixture(scope="module")
def file(store: Path) -> Path:
    return write_report(ReportConfig(store=store, out=store.parent / "report.html"))


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page.of(file)


@pytest.fixture(scope="module")
def pixels(store: Path) -> dict[str, Any]:
    """Every array of the store as plain xarray reads it, undecoded."""
    group = xr.open_zarr(store, mask_and_scale=False, decode_times=False)
    return {name: array.to_numpy() for name, array in group.variables.items()}


@pytest.fixture(scope="module")
def records(store: Path) -> list[dict[str, Any]]:
    return [line for shard in range(ROWS // SHARD_ROWS) for line in row_table(store, shard).to_pylist()]


@pytest.fixture(scope="module")
def with_pixels(pixels: dict[str, Any]) -> list[int]:
    """Rows in which a pixel of sentinel2 is not 0."""
    return [row for row in range(ROWS) if pixels["sentinel2"][row].any()]


def test_strata_count_rows_that_have_pixels(page: Page, pixels: dict[str, Any], with_pixels: list[int]) -> None:
    header, *lines = page.table("strata")
    counted = Counter((int(pixels["biome"][row, 0]), int(pixels["year"][row])) for row in with_pixels)
    years = sorted({year for _, year in counted})
    assert header == ["biome", *map(str, years), "all"]
    assert [line[0] for line in lines] == [*BIOME_NAMES, "all"]
    for biome, line in enumerate(lines[:-1]):
        expected = [counted[biome, year] for year in years]
        assert list(map(int, line[1:])) == [*expected, sum(expected)]
    assert int(lines[-1][-1]) == len(with_pixels)


def test_header_states_tiles_strata_and_vacant_rows(page: Page, with_pixels: list[int]) -> None:
    assert page.facts["Stored tiles"][:2] == ("good", str(len(with_pixels)))
    assert page.facts["Vacant rows"] == ("plain", str(ROWS - len(with_pixels)), f"cloudy {ROWS - len(with_pixels)}")
    # Every 29th row is vacant, so strata cannot be equal.
    assert page.facts["Equal strata"][:2] == ("bad", "no")
    assert page.verdict_state == "bad"
    assert "equal strata" in page.verdict


def test_equal_strata_pass(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", rows=28, tile_pixels=16, shard_rows=28)
    page = Page.of(write_report(ReportConfig(store=store, out=tmp_path / "report.html")))
    assert page.facts["Equal strata"][0] == "good"
    assert page.verdict_state == "missing", "nothing was pretrained"


def test_splits_and_vacancies_are_counted_from_commits(page: Page, records: list[dict[str, Any]]) -> None:
    stored = [record for record in records if record["outcome"] == "stored"]
    splits = Counter(record["split"] for record in stored)
    shown = {line[0]: (int(line[1]), line[2]) for line in page.table("splits")[1:]}
    assert shown == {name: (n, f"{100 * n / len(stored):.1f} %") for name, n in splits.items()}
    reasons = Counter(record["reason"] for record in records if record["outcome"] != "stored")
    assert {line[0]: int(line[1]) for line in page.table("vacant")[1:]} == reasons


def test_completeness_is_counted_from_pixels(
    page: Page, pixels: dict[str, Any], with_pixels: list[int], records: list[dict[str, Any]]
) -> None:
    lines = {line[0]: line[1:] for line in page.table("absences")[1:]}
    assert list(lines) == [modality.name for modality in STORED]
    absences = 0
    for modality in STORED:
        empty = [row for row in with_pixels if not modality.valid(pixels[modality.name][row]).any()]
        complete, partial, absent = map(int, lines[modality.name][:3])
        assert absent == len(empty)
        assert complete + partial + absent == len(with_pixels)
        reasons = Counter(records[row][f"absent_{modality.name}"] for row in empty)
        assert lines[modality.name][3] == ", ".join(f"{why} {n}" for why, n in sorted(reasons.items()))
        absences += len(empty)
    one_pass = [
        row for row in with_pixels
        if MODALITIES["sentinel1"].valid(pixels["sentinel1"][row]).any(axis=(1, 2)).sum() == 2
    ]  # fmt: skip
    assert int(lines["sentinel1"][1]) == len(one_pass) > 0
    assert page.facts["Absences explained"][:2] == ("good", f"{absences} of {absences}")


def test_tiles_show_every_modality_in_its_own_pixels(
    page: Page, pixels: dict[str, Any], with_pixels: list[int]
) -> None:
    rows = page.tables["tiles-table"]
    assert {cell.text.split()[0] for cell, *_ in rows[1:]} == {modality.name for modality in STORED}
    first = {int(pixels["biome"][row, 0]): row for row in reversed(with_pixels)}
    drawn = next(row for row in rows if row[0].text == "esa_worldcover map")
    for heading, cell in zip(rows[0][1:-1], drawn[1:-1], strict=True):
        row = next(row for biome, row in first.items() if heading.text.startswith(BIOME_NAMES[biome]))
        picture, stored = cell.pixels("esa_worldcover map"), pixels["esa_worldcover"][row, 0]
        for value, colour in zip(MODALITIES["esa_worldcover"].class_values, PALETTES["esa_worldcover"], strict=True):
            rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
            assert ((picture == [*rgb, 255]).all(axis=-1) == (stored == value)).all()
        month = pd.Timestamp(int(pixels["time"][row]), unit="ms").strftime("%Y-%m-%d")
        assert month in heading.text


def test_era5_is_shown_in_degrees_and_millimetres(page: Page, pixels: dict[str, Any], with_pixels: list[int]) -> None:
    line = next(row for row in page.table("tiles-table") if row[0] == "era5")
    first_tundra = next(row for row in with_pixels if pixels["biome"][row, 0] == 0)
    bands = MODALITIES["era5"].bands
    values = pixels["era5"][first_tundra].astype(float)
    mean, rain = (values[bands.index(name)] for name in ("month_temperature_2m", "month_total_precipitation_sum"))
    assert f" month {mean - 273.15:.1f} °C" in line[1]
    assert f"{1000 * rain:.0f} mm" in line[1]


def test_radar_composite_is_drawn_in_fixed_decibel_ranges() -> None:
    view = next(view for view in views() if view.title == "ascending")
    stored = np.full((4, 2, 2), np.nan)
    stored[0], stored[1] = -1000.0, -1800.0
    stored[:2, 0, 0] = np.nan
    drawn = paint(view, stored, stored)
    assert drawn is not None
    picture = np.asarray(drawn[0])
    # VV −10 dB of −20…0, VH −18 dB of −28…−8, VV − VH 8 dB of 2…16.
    assert picture[1, 1].tolist() == [128, 128, round(255 * 6 / 14), 255]
    assert picture[0, 0, 3] == 0
    assert drawn[1] == "VV -10, VH -18 dB"


def test_no_data_is_transparent_and_a_flat_tile_is_drawn() -> None:
    elevation = next(view for view in views() if view.bands == ("elevation",))
    stored = np.array([[[np.nan, 7.0], [7.0, 7.0]]])
    drawn = paint(elevation, stored, stored)
    assert drawn is not None
    assert np.asarray(drawn[0])[..., 3].tolist() == [[0, 255], [255, 255]]
    assert drawn[1] == "7 to 7 m"
    assert paint(elevation, stored * np.nan, stored * np.nan) is None


def test_slope_is_shown_in_degrees() -> None:
    slope = next(view for view in views() if view.bands == ("slope",))
    stored = np.array([[[1000.0, 3000.0], [1000.0, 3000.0]]])
    drawn = paint(slope, stored, stored)
    assert drawn is not None
    assert drawn[1] == "10 to 30 degree"


def test_every_view_names_bands_of_its_modality() -> None:
    shown: list[View] = list(views())
    assert all(set(view.bands) <= set(view.modality.bands) for view in shown)
    assert {view.modality.name for view in shown} == {m.name for m in STORED if m.scope == "pixel"}


def test_large_maps_are_one_picture() -> None:
    rng = np.random.default_rng(1)
    count = 20_000
    rows = pd.DataFrame(
        {
            "stored": True, "lon": rng.uniform(-180, 180, count), "lat": rng.uniform(-55, 80, count),
            "biome": rng.choice(BIOME_NAMES, count), "ecoregion": "x",
        }
    )  # fmt: skip
    text = render([places(rows)], "t", "s")
    assert len(text) < 1_500_000
    assert "data:image/png;base64," in text


def test_file_needs_nothing_outside_itself(file: Path, page: Page) -> None:
    text = file.read_text(encoding="utf-8")
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=\s]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", without_pictures)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"} == set()
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:image/png;base64,")), f"{tag} refers to {target[:80]}"
    anchors = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors == set(page.sections)


def test_same_store_gives_the_same_page(store: Path, file: Path, tmp_path: Path) -> None:
    again = write_report(ReportConfig(store=store, out=tmp_path / "again.html"))
    assert again.read_bytes() == file.read_bytes()


def test_without_a_run_the_page_says_which_command_makes_one(page: Page) -> None:
    assert page.facts["Pretraining"][0] == "missing"
    assert "mmearth pretrain --store" in page.sections["pretraining"]


def test_a_store_that_is_not_finalized_says_so(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store.zarr"
    shutil.copytree(store, copy)
    (copy / "locations.parquet").unlink()
    page = Page.of(write_report(ReportConfig(store=copy, out=tmp_path / "report.html")))
    assert f"mmearth finalize --store {copy}" in page.sections["data"]
    assert page.verdict_state == "missing"


@pytest.mark.parametrize("rows", [0, 28])
def test_a_store_without_a_tile_says_so(tmp_path: Path, rows: int) -> None:
    """Planned but not collected, or with nothing but rows whose locations gave way."""
    store = tmp_path / "store.zarr"
    layout.create(store, tile_pixels=16, shard_rows=28, attrs={})
    layout.resize(store, 28)
    if rows:
        gave_way = {"location_id": 1, "biome": "Tundra", "year": 2018, "lon": 0.0, "lat": 70.0, "reason": "cloudy"}
        table = row_table_of([{"row": row, **gave_way} for row in range(14)] + [{"row": row} for row in range(14, 28)])
        status = np.zeros((28, len(STORED)), dtype=np.uint8)
        commit_shard(store, 0, ShardData(no_data(16, 28), status, table))
    consolidate(store)
    page = Page.of(write_report(ReportConfig(store=store, out=tmp_path / "report.html")))
    assert page.facts["Stored tiles"][:2] == ("bad", "0")
    assert "mmearth collect" in page.sections["places"]
    if rows:
        assert page.table("vacant")[1:] == [["cloudy", "14"], ["no location was due", "14"]]
    else:
        assert "28 not collected" in page.facts["Stored tiles"][2]


def test_bad_input_is_one_line_with_a_remedy(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"^\S+ does not exist; make the store with: mmearth collect .*$"):
        write_report(ReportConfig(store=tmp_path / "none", out=tmp_path / "r.html"))
    with pytest.raises(ReportError, match=r"^\S+ does not exist; make the run with: mmearth pretrain .*$"):
        write_report(ReportConfig(store=store, out=tmp_path / "r.html", run=(tmp_path / "none",)))
    with pytest.raises(StoreError):
        write_report(ReportConfig(store=tmp_path, out=tmp_path / "r.html"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(ReportConfig(store=store, out=tmp_path / "file" / "r.html"))


def test_neither_prefect_nor_torch_is_needed_without_runs() -> None:
    code = "import sys, flows.report; sys.exit(bool({'prefect', 'torch', 'ee', 'geopandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
