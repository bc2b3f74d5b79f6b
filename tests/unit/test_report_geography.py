"""The report's geography: shares counted here from the row table, the plan's from its own file, and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.report import ReportConfig, write_report
from mmearth_data.report.geography import geography
from mmearth_data.report.sections import read_rows
from mmearth_data.store import StoreError
from sampling.countries import check_countries
from sampling.ecoregions import read_ecoregions
from sampling.plan import SampleConfig, sample_locations
from sampling.table import write_locations
from tests.synthetic import make_store
from tests.unit.report_page import Page

PLACES = [("Brazil", "South America", "Neotropic"), ("Kenya", "Africa", "Afrotropic"), ("", "", "Palearctic")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose rows lie in two countries and beyond them, in turn."""
    path = make_store(tmp_path_factory.mktemp("geography") / "store.zarr", rows=56, tile_pixels=16, shard_rows=28)
    file = path / "locations.parquet"
    table = pq.read_table(file)
    for at, name in enumerate(("country", "continent", "realm")):
        column = pa.array([PLACES[row % 3][at] for row in range(table.num_rows)])
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, file)
    return path


@pytest.fixture(scope="module")
def ecoregions(shared_data: Path) -> gpd.GeoDataFrame:
    return read_ecoregions(shared_data / "ecoregions2017" / "Ecoregions2017.shp")


def page(store: Path, out: Path, plan: gpd.GeoDataFrame | None) -> Page:
    """The report on the store following this plan."""
    file = store / "_plan" / "locations.parquet"
    file.unlink(missing_ok=True)
    if plan is not None:
        write_locations(plan, file)
    return Page.of(write_report(ReportConfig(store=store, out=out / "report.html")))


@pytest.fixture(scope="module")
def plan(ecoregions: gpd.GeoDataFrame, shared_data: Path) -> gpd.GeoDataFrame:
    countries = check_countries(gpd.read_file(shared_data / "natural_earth").set_crs(4326), "Natural Earth")
    return sample_locations(SampleConfig(locations=560, out=Path("x")), ecoregions, countries)


@pytest.fixture(scope="module")
def shown(store: Path, plan: gpd.GeoDataFrame, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(store, tmp_path_factory.mktemp("page"), plan)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def stored_rows(store: Path) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(store / "locations.parquet").to_pylist() if row["outcome"] == "stored"]


@pytest.mark.parametrize("grouping", ["continent", "realm"])
def test_tiles_and_plan_are_counted_from_their_tables(
    shown: Page, store: Path, plan: gpd.GeoDataFrame, grouping: str
) -> None:
    header, *lines = shown.table(f"geography-{grouping}")
    rows = stored_rows(store)
    tiles = Counter(row[grouping] or "no country" for row in rows)
    primaries = plan.loc[~plan["reserve"], grouping].replace("", "no country").value_counts()
    found = {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}
    assert {name: int(line["tiles"]) for name, line in found.items() if line["tiles"] != "0"} == tiles
    for name, line in found.items():
        assert line["of tiles"] == percent(tiles[name] / len(rows))
        assert line["of the plan"] == percent(primaries.get(name, 0) / 560)
    land = sum(float(line["of the land"].removesuffix("%")) for line in found.values())
    assert land == pytest.approx(100, abs=0.5)


def test_published_data_sets_stand_beside_their_continents(shown: Page) -> None:
    header, *lines = shown.table("geography-continent")
    column = header.index("published data sets")
    published = {line[0]: line[column] for line in lines}
    assert published["Europe"] == "21.0 %"
    assert published["Africa"] == "5.0 %"
    assert published["Asia"] == "–"
    assert "doi:10.1109/MGRS.2023.3293459" in shown.sections["geography"]
    assert "the other 51% are worldwide" in shown.sections["geography"]
    europe = next(line for line in lines if line[0] == "Europe")
    assert europe[-1].startswith("Russia ")


def test_latitude_bands_run_from_north_to_south(shown: Page, store: Path) -> None:
    _, *lines = shown.table("geography-latitude")
    rows = stored_rows(store)
    for name, south in (("40°N to 50°N", 40), ("10°S to 0°", -10)):
        line = next(line for line in lines if line[0] == name)
        assert int(line[1]) == sum(south <= row["lat"] < south + 10 for row in rows)
    assert sum(int(line[1]) for line in lines) <= len(rows)
    assert lines[0][0] == "80°N to 90°N"


def test_the_largest_countries_are_named_and_all_are_in_the_plan(shown: Page, plan: gpd.GeoDataFrame) -> None:
    _, *lines = shown.table("geography-country")
    assert len(lines) == 15
    counted = plan.loc[~plan["reserve"] & (plan["country"] != ""), "country"].value_counts()
    assert lines[0][0] == counted.index[0]
    metadata = plan.attrs["plan"]["geography"]
    assert len(metadata["shares"]["country"]) > 150


def test_figures_of_merit_are_the_plans(shown: Page, plan: gpd.GeoDataFrame) -> None:
    merit = plan.attrs["plan"]["geography"]["merit"]
    lines = {line[0]: line[1:] for line in shown.table("geography-merit")[1:]}
    assert list(lines) == ["continent", "country", "realm", "biome", "latitude"]
    assert lines["realm"][0] == percent(merit["realm"]["from_land"])
    assert lines["biome"][1] == "0.0 %"
    state, value, note = shown.facts["Off the land's continents"]
    assert (state, value.split()) == ("plain", percent(merit["continent"]["from_land"]).split())
    assert all(merit["continent"][end]["name"] in note for end in ("densest", "sparsest"))


def test_there_is_a_map_of_the_density(shown: Page) -> None:
    labels = [given.get("aria-label", "") for tag, given in shown.tags if tag == "svg"]
    assert "Map of the density of stored tiles" in labels


def test_a_plan_without_countries_says_so(store: Path, ecoregions: gpd.GeoDataFrame, tmp_path: Path) -> None:
    without = sample_locations(SampleConfig(locations=560, out=Path("x")), ecoregions, None)
    found = page(store, tmp_path, without)
    assert "mmearth sample --countries" in found.sections["geography"]
    assert "geography-continent" not in found.tables
    assert "geography-realm" in found.tables
    assert "Off the land's realms" in found.facts


def test_a_store_without_a_plan_says_so(store: Path, tmp_path: Path) -> None:
    found = page(store, tmp_path, None)
    assert "no plan that says where its locations lie" in found.sections["geography"]
    assert not [name for name in found.tables if name.startswith("geography")]


def test_a_plan_that_says_nothing_of_geography_is_one_without(
    store: Path, plan: gpd.GeoDataFrame, tmp_path: Path
) -> None:
    older = plan.copy()
    older.attrs["plan"] = {name: value for name, value in plan.attrs["plan"].items() if name != "geography"}
    assert "no plan that says" in page(store, tmp_path, older).sections["geography"]


def test_a_damaged_plan_is_one_line_with_a_remedy(store: Path, tmp_path: Path) -> None:
    file = store / "_plan" / "locations.parquet"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"PAR1 is not enough")
    with pytest.raises(StoreError, match="is damaged") as caught:
        write_report(ReportConfig(store=store, out=tmp_path / "report.html"))
    assert "\n" not in str(caught.value)
    file.unlink()


def test_a_store_without_a_tile_has_no_map(plan: gpd.GeoDataFrame, store: Path, tmp_path: Path) -> None:
    rows = read_rows(store).assign(stored=False)
    section = geography(rows, json.loads(json.dumps(plan.attrs["plan"]["geography"])))
    assert not [block for block in section.blocks if hasattr(block, "savefig")]
    continents = next(
        part for block in section.blocks if isinstance(block, list) for part in block if hasattr(part, "attrs")
    )
    assert not np.any(continents["tiles"])
