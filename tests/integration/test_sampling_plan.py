"""Plans from the real ecoregions, checked by other means than those that made them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS, Transformer
from scipy import stats

from mmearth_data import grid
from mmearth_data.location import COLUMNS, read_locations
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_BIOME, ECOREGION_NAMES
from mmearth_data.splits import SPLITS
from sampling.candidates import cell_streams
from sampling.config import SampleConfig, parse_years
from sampling.domains import domains
from sampling.ecoregions import read_ecoregions
from sampling.errors import SamplingError, TooFewCellsError, YearsError
from sampling.plan import sample_locations
from sampling.splits import blocks_at
from sampling.table import summary, write_locations
from tests.footprints import overlaps

CONFIG = SampleConfig(locations=2800, out=Path("locations.parquet"), ecoregions="Ecoregions2017.shp")


@pytest.fixture(scope="module")
def raw(shared_data: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(shared_data / "ecoregions2017" / "Ecoregions2017.shp")


@pytest.fixture(scope="module")
def ecoregions(shared_data: Path) -> gpd.GeoDataFrame:
    return read_ecoregions(shared_data / "ecoregions2017" / "Ecoregions2017.shp")


@pytest.fixture(scope="module")
def plan(ecoregions: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return sample_locations(CONFIG, ecoregions, None)


@pytest.fixture(scope="module")
def larger(ecoregions: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return sample_locations(replace(CONFIG, locations=2 * CONFIG.locations + 13), ecoregions, None)


def some(ecoregions: gpd.GeoDataFrame, *names: str) -> gpd.GeoDataFrame:
    return ecoregions.loc[ecoregions["ECO_NAME"].isin(names)]


def test_strata_are_equal_and_ranks_count_through_primaries_then_reserves(
    plan: gpd.GeoDataFrame, larger: gpd.GeoDataFrame
) -> None:
    for table, locations in ((plan, CONFIG.locations), (larger, 2 * CONFIG.locations + 13)):
        counts = []
        for (biome, _), stratum in table.groupby(["biome", "year"]):
            assert biome in BIOME_NAMES
            assert stratum["rank"].tolist() == list(range(len(stratum)))
            primaries = int((~stratum["reserve"]).sum())
            assert stratum["reserve"].tolist() == [False] * primaries + [True] * (len(stratum) - primaries)
            assert len(stratum) - primaries == max(4, -(-primaries // 5))
            counts.append(primaries)
        assert len(counts) == 56
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == locations


def test_every_id_is_unique_and_decodes_to_its_row(larger: gpd.GeoDataFrame) -> None:
    assert larger["location_id"].is_unique
    cells = grid.decode(larger["location_id"])
    assert (cells.pixels == 128).all()
    assert grid.eligible(larger["location_id"]).all()
    for row, epsg, x0, y0 in zip(larger.itertuples(), cells.epsg, cells.x0, cells.y0, strict=True):
        assert (row.epsg, row.x0, row.y0) == (epsg, x0, y0)
    for epsg, rows in larger.groupby("epsg"):
        lon, lat = Transformer.from_crs(int(epsg), 4326, always_xy=True).transform(rows["x0"] + 640, rows["y0"] - 640)
        assert np.allclose(rows["lon"], lon, atol=1e-12)
        assert np.allclose(rows["lat"], lat, atol=1e-12)
    assert (larger.geometry.x == larger["lon"]).all()
    assert (larger.geometry.y == larger["lat"]).all()


def test_every_centre_lies_in_its_ecoregion(larger: gpd.GeoDataFrame, raw: gpd.GeoDataFrame) -> None:
    polygons = dict(zip(raw["ECO_NAME"], raw.geometry, strict=True))
    inside = [polygons[name].contains(point) for name, point in zip(larger["ecoregion"], larger.geometry, strict=True)]
    assert all(inside)
    named = raw.set_index("ECO_NAME")
    assert (larger["biome"].to_numpy() == named.loc[larger["ecoregion"], "BIOME_NAME"].to_numpy()).all()
    assert (larger["realm"].to_numpy() == named.loc[larger["ecoregion"], "REALM"].to_numpy()).all()


def test_blocks_are_never_mixed_and_every_biome_is_in_every_split(
    plan: gpd.GeoDataFrame, larger: gpd.GeoDataFrame
) -> None:
    for table in (plan, larger):
        block = blocks_at(table["lon"].to_numpy(), table["lat"].to_numpy())
        assert table["split"].groupby(block).nunique().max() == 1
        assert (table.loc[~table["reserve"]].groupby("biome")["split"].nunique() == 3).all()
        shares = table["split"].value_counts(normalize=True)
        assert 0.75 < shares["train"] < 0.85
        assert 0.07 < shares["val"] < 0.13
        assert 0.07 < shares["test"] < 0.13


def test_a_tiny_plan_has_every_biome_in_every_split(ecoregions: gpd.GeoDataFrame) -> None:
    table = sample_locations(replace(CONFIG, locations=56), ecoregions, None)
    assert (table.loc[~table["reserve"]].groupby("biome")["split"].nunique() == 3).all()


def test_a_plan_is_contained_in_a_larger_one(plan: gpd.GeoDataFrame, larger: gpd.GeoDataFrame) -> None:
    constant = [name for name in COLUMNS if name != "reserve"]
    both = plan.merge(larger, on=constant, suffixes=("", "_larger"))
    assert len(both) == len(plan)
    assert not (both["reserve_larger"] & ~both["reserve"]).any()


def test_the_same_inputs_and_seed_give_the_same_bytes_in_another_process(
    plan: gpd.GeoDataFrame, shared_data: Path, tmp_path: Path
) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from sampling.config import SampleConfig\nfrom sampling.ecoregions import read_ecoregions\n"
        "from sampling.plan import sample_locations\n"
        "from sampling.table import write_locations\n"
        "config = SampleConfig(locations=2800, out=Path(sys.argv[2]), ecoregions=sys.argv[1])\n"
        "write_locations(sample_locations(config, read_ecoregions(sys.argv[1]), None), config.out)\n"
    )
    layer, other = shared_data / "ecoregions2017" / "Ecoregions2017.shp", tmp_path / "sub" / "other.parquet"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", script, str(layer), str(other)], check=True, env=environment)
    write_locations(plan, tmp_path / "one.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "sub"]


def test_the_order_of_the_layer_does_not_matter_but_the_seed_does(raw: gpd.GeoDataFrame) -> None:
    config, part = replace(CONFIG, locations=112), raw.loc[raw["BIOME_NAME"].isin(BIOME_NAMES[8:12])]
    one = sample_locations(config, part, None)
    other = sample_locations(config, part.sample(frac=1, random_state=0), None)
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other))
    assert one.attrs == other.attrs
    reseeded = sample_locations(replace(config, seed=1), part, None)
    assert len(set(one["location_id"]) & set(reseeded["location_id"])) < 3


def test_the_file_is_geoparquet_that_says_what_it_was_made_from(plan: gpd.GeoDataFrame, tmp_path: Path) -> None:
    file = tmp_path / "locations.parquet"
    write_locations(plan, file)
    read = read_locations(file)
    assert {name: str(read[name].dtype) for name in COLUMNS} == COLUMNS
    assert read.crs == "EPSG:4326"
    assert set(read["split"]) == set(SPLITS) - {"held_out"}
    pd.testing.assert_frame_equal(pd.DataFrame(read)[[*COLUMNS]], pd.DataFrame(plan)[[*COLUMNS]])
    assert read.geometry.geom_equals(plan.geometry).all()
    metadata = pq.read_schema(file).metadata
    geo = json.loads(metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert CRS.from_json_dict(geo["columns"]["geometry"]["crs"]) == CRS("EPSG:4326")
    made = json.loads(metadata[b"mmearth"])
    assert (made["seed"], made["locations"], made["years"]) == (0, 2800, [2017, 2018, 2019, 2020])
    assert made["ecoregions"]["source"] == "Ecoregions2017.shp"


def test_no_footprints_of_a_plan_overlap(larger: gpd.GeoDataFrame) -> None:
    assert overlaps(larger["location_id"].to_numpy())[0] == 0


def test_no_footprints_overlap_where_every_cell_is_taken(ecoregions: gpd.GeoDataFrame) -> None:
    """Ecoregions cut down to strips along zone borders, the antimeridian, Svalbard and 32V, to the last cell."""
    strips = shapely.union_all(
        [
            shapely.box(5.95, 44, 6.05, 50),
            shapely.box(2.9, 50, 12.1, 50.03),
            shapely.box(11.9, 58, 12.1, 63.9),
            shapely.box(5.5, 58, 6.2, 61),
            shapely.box(8.8, 77, 9.2, 80),
            shapely.box(20.8, 77, 21.2, 81),
            shapely.box(-180, 64, -179.9, 72),
            shapely.box(179.9, 64, 180, 72),
            shapely.box(29.97, -4, 30.03, 4),
        ]
    )
    cut = shapely.intersection(ecoregions.geometry.to_numpy(), strips)
    cut = cut[shapely.area(cut) > 0]
    streams = cell_streams(cut, domains(cut, 128), list(range(len(cut))))
    found = np.concatenate([stream.take(stream.bound) for stream in streams])
    assert len(np.unique(found)) == len(found) > 5000
    largest, crossing = overlaps(found)
    assert crossing > 50
    assert largest < 1e-3
    # The same measure sees an overlap where there is one: a cell of half the size within the first.
    cells = grid.decode(found[:1])
    within = grid.Cells(cells.zone, cells.south, cells.column * 2 + 1, cells.row * 2, cells.pixels // 2)
    assert overlaps(np.concatenate([found[:1], grid.encode(within)]))[0] == pytest.approx(640**2)


def test_cells_lie_evenly_over_the_sphere(ecoregions: gpd.GeoDataFrame) -> None:
    """A polygon over several zones and 60° of latitude: longitude and sine of latitude are uniform."""
    wide = some(ecoregions, ECOREGION_NAMES[0]).assign(geometry=[shapely.box(-11, 5, 31, 65)])
    table = sample_locations(replace(CONFIG, locations=4000), wide, None)
    low, high = np.sin(np.radians([5, 65]))
    z = (np.sin(np.radians(table["lat"])) - low) / (high - low)
    assert stats.kstest(z, "uniform").pvalue > 1e-3
    assert stats.kstest((table["lon"] + 11) / 42, "uniform").pvalue > 1e-3


def test_ecoregions_share_their_biome_by_area_with_small_ones_lifted(
    larger: gpd.GeoDataFrame, ecoregions: gpd.GeoDataFrame
) -> None:
    """Against shares from areas that geopandas measures in another equal-area projection."""
    biome = "Temperate Conifer Forests"
    members = ecoregions.loc[ecoregions["BIOME_NAME"] == biome]
    area = members.to_crs("ESRI:54034").geometry.area
    weight = np.maximum(area, area.mean() / 10)
    held = larger.loc[larger["biome"] == biome, "ecoregion"].value_counts()
    seats = members["ECO_NAME"].map(held).fillna(0)
    assert np.abs(seats - seats.sum() * weight / weight.sum()).max() < 4.5  # a round of years cut short


def test_years_and_ecoregions_are_independent(larger: gpd.GeoDataFrame) -> None:
    for biome in ("Tropical & Subtropical Coniferous Forests", "Mangroves"):
        counts = larger.loc[larger["biome"] == biome].groupby(["ecoregion", "year"]).size().unstack(fill_value=0)
        counts = counts.loc[counts.sum(axis=1) >= 20]
        assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_a_biome_of_few_cells_is_taken_whole_and_no_further(ecoregions: gpd.GeoDataFrame) -> None:
    mangroves = ecoregions.loc[ecoregions["BIOME_NAME"] == "Mangroves"].head(4)
    with pytest.raises(TooFewCellsError, match=r"Mangroves has [\d,]+ eligible ones; ask for at most") as caught:
        sample_locations(replace(CONFIG, locations=10**9), mangroves, None)
    message = str(caught.value)
    assert "\n" not in message
    most = int(message.split("ask for at most ")[1].split()[0].replace(",", ""))
    table = sample_locations(replace(CONFIG, locations=most), mangroves, None)
    assert table["location_id"].is_unique
    assert table["ecoregion"].nunique() == 4
    assert int((~table["reserve"]).sum()) == most
    with pytest.raises(TooFewCellsError, match="cells by biome: Mangroves"):
        sample_locations(replace(CONFIG, locations=most + 4), mangroves, None)


def test_a_layer_without_some_biomes_is_balanced_over_the_others(
    ecoregions: gpd.GeoDataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    two = some(ecoregions, ECOREGION_NAMES[0], ECOREGION_NAMES[-1])
    table = sample_locations(replace(CONFIG, locations=80, years="2018-2019"), two.iloc[-1:], None)
    assert table.groupby("year")["reserve"].apply(lambda reserve: int((~reserve).sum())).to_dict() == {
        2018: 40,
        2019: 40,
    }
    assert set(table["biome"]) == {ECOREGION_BIOME[ECOREGION_NAMES[-1]]}
    assert "no polygon of Tundra" in caplog.text


def test_an_ecoregion_beyond_coverage_is_named_and_the_others_take_its_share(
    ecoregions: gpd.GeoDataFrame,
) -> None:
    tundra = ecoregions.loc[ecoregions["BIOME_NAME"] == "Tundra"]
    table = sample_locations(replace(CONFIG, locations=400), tundra, None)
    beyond = set(tundra.loc[tundra.bounds["maxy"] < -56, "ECO_NAME"])
    assert len(beyond) == 16
    without = table.attrs["plan"]["ecoregions"]["without_cells"]
    assert set(without) == beyond
    assert set(without.values()) == {"lies wholly beyond Sentinel-2's coverage"}
    lost = tundra.clip(shapely.box(-180, -90, 180, -56)).to_crs("ESRI:54034").area.sum() / 1e6
    lost += tundra.clip(shapely.box(-180, 82.8, 180, 90)).to_crs("ESRI:54034").area.sum() / 1e6
    excluded = table.attrs["plan"]["excluded"]
    assert excluded["beyond_coverage_km2"] == pytest.approx(lost, rel=0.01)
    assert excluded["beyond_coverage_cells"] == pytest.approx(lost / 1.28**2, rel=0.01)
    assert not beyond & set(table["ecoregion"])


def test_countries_fill_country_and_continent(ecoregions: gpd.GeoDataFrame, shared_data: Path) -> None:
    countries = gpd.read_file(shared_data / "natural_earth").set_crs("EPSG:4326")
    table = sample_locations(replace(CONFIG, locations=560), ecoregions, countries)
    joined = gpd.sjoin(table[["geometry"]], countries[["ADMIN", "CONTINENT", "geometry"]], predicate="within")
    joined = joined[~joined.index.duplicated(keep=False)]
    assert len(joined) > 700
    assert (table.loc[joined.index, "country"] == joined["ADMIN"]).all()
    assert (table.loc[joined.index, "continent"] == joined["CONTINENT"]).all()
    assert (table["country"] != "").mean() > 0.99


def test_the_summary_counts_the_table(plan: gpd.GeoDataFrame) -> None:
    rows = summary(plan)
    assert [row["biome"] for row in rows] == [*BIOME_NAMES, "all"]
    for row in rows:
        part = plan if row["biome"] == "all" else plan.loc[plan["biome"] == row["biome"]]
        assert row["ecoregions"] == len(set(part["ecoregion"]))
        assert sum(int(row[str(year)]) for year in range(2017, 2021)) + int(row["reserves"]) == len(part)
        assert sum(int(row[split]) for split in SPLITS) == len(part)
        assert row["2019"] == len(part.query("year == 2019 and not reserve"))


def test_progress_reaches_its_end(ecoregions: gpd.GeoDataFrame) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    sample_locations(
        replace(CONFIG, locations=56),
        some(ecoregions, *ECOREGION_NAMES[100:110]),
        None,
        lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    assert list(seen) == ["blocks", "cells", "table"]
    for steps in seen.values():
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]
        assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"years": "2017..2020"}, YearsError, "a range such as 2017-2020"),
        ({"years": "2020-2017"}, YearsError, "run forward"),
        ({"years": "2014-2017"}, YearsError, "from 2016"),
        ({"locations": 0}, SamplingError, "at least 1"),
        ({"tile_size": 8}, SamplingError, "16 to 4096"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(
    ecoregions: gpd.GeoDataFrame, change: dict[str, object], error: type[SamplingError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        sample_locations(replace(CONFIG, **change), ecoregions, None)
    assert "\n" not in str(caught.value)


def test_a_single_year_is_a_range() -> None:
    assert parse_years("2019") == (2019,)
    assert parse_years(" 2017 - 2020 ") == (2017, 2018, 2019, 2020)


def test_a_place_that_cannot_be_written_is_refused_in_one_line(plan: gpd.GeoDataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SamplingError, match="cannot write") as caught:
        write_locations(plan, tmp_path / "file" / "locations.parquet")
    assert "\n" not in str(caught.value)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(SamplingError, match="cannot write"):
        write_locations(plan, tmp_path / "folder.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.parquet"]


@pytest.mark.parametrize("pixels", [64, 256])
def test_other_tile_sizes_give_cells_of_their_own(ecoregions: gpd.GeoDataFrame, pixels: int) -> None:
    part = ecoregions.loc[ecoregions["BIOME_NAME"] == "Mangroves"]
    table = sample_locations(replace(CONFIG, locations=560, tile_size=pixels), part, None)
    assert (grid.decode(table["location_id"]).pixels == pixels).all()
    assert (table["x0"] % (pixels * 10) == 0).all()
    assert overlaps(table["location_id"].to_numpy())[0] == 0
