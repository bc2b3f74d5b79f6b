"""Buffers, places held out, balance by realm or continent, and the published scheme, on the real ecoregions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import CRS, Geod, Transformer

from mmearth_data import grid
from mmearth_data.location import LocationTableError, read_locations
from sampling.config import SampleConfig
from sampling.countries import read_countries
from sampling.ecoregions import areas, read_ecoregions
from sampling.errors import SamplingError
from sampling.plan import sample_locations
from sampling.reference import overlap_summary, overlapping_pairs, reference_points
from sampling.splits import blocks_at
from sampling.table import write_locations

CONFIG = SampleConfig(locations=2800, out=Path("locations.parquet"), ecoregions="Ecoregions2017.shp")
BIOME = "Tropical & Subtropical Coniferous Forests"


@pytest.fixture(scope="module")
def ecoregions(shared_data: Path) -> gpd.GeoDataFrame:
    return read_ecoregions(shared_data / "ecoregions2017" / "Ecoregions2017.shp")


@pytest.fixture(scope="module")
def countries(shared_data: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(shared_data / "natural_earth").set_crs("EPSG:4326")


def biome(ecoregions: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    return ecoregions.loc[ecoregions["BIOME_NAME"] == name]


def test_tiles_of_different_blocks_keep_the_buffer(ecoregions: gpd.GeoDataFrame) -> None:
    """Distances between footprints' borders on the ellipsoid, for every pair within 0.13° in different blocks."""
    part = biome(ecoregions, BIOME)
    table = sample_locations(replace(CONFIG, locations=4000, buffer_km=10), part, None)
    lon, lat = (part.ravel() for part in grid.footprints(table["location_id"], per_edge=4))
    block = np.repeat(blocks_at(table["lon"].to_numpy(), table["lat"].to_numpy()), 16)
    points = shapely.points(lon, lat)
    one, other = shapely.STRtree(points).query(points, predicate="dwithin", distance=0.13)
    apart = block[one] < block[other]
    one, other = one[apart], other[apart]
    _, _, metres = Geod(ellps="WGS84").inv(lon[one], lat[one], lon[other], lat[other])
    assert len(metres) > 100
    assert 10_000 <= metres.min() < 13_000
    assert table.attrs["plan"]["excluded"]["candidates_in_buffer"] > 100
    longer = sample_locations(replace(CONFIG, locations=4500, buffer_km=10), part, None)
    assert set(table["location_id"]) <= set(longer["location_id"])


def test_a_continent_is_held_out_whole(ecoregions: gpd.GeoDataFrame, countries: gpd.GeoDataFrame) -> None:
    part = ecoregions.loc[ecoregions["BIOME_NAME"].isin([BIOME, "Mangroves", "Deserts & Xeric Shrublands"])]
    config = replace(CONFIG, locations=1200, countries="countries.shp", hold_out="Africa, South America")
    table = sample_locations(config, part, countries)
    held = table["split"] == "held_out"
    assert held[table["continent"].isin(["Africa", "South America"])].all()
    away = countries.loc[countries["CONTINENT"].isin(["Africa", "South America"])].union_all()
    distance = shapely.distance(table.loc[held].geometry.to_numpy(), away)
    assert distance.max() < 0.5 + 1.3 / np.cos(np.radians(60))  # as far as a block that comes within reach extends
    block = blocks_at(table["lon"].to_numpy(), table["lat"].to_numpy())
    assert table["split"].groupby(block).nunique().max() == 1
    rest = table.loc[~held & ~table["reserve"]]
    assert (rest.groupby("biome")["split"].nunique() == 3).all()
    larger = sample_locations(replace(config, locations=2000), part, countries)
    both = table.merge(larger, on="location_id", suffixes=("", "_larger"))
    assert len(both) == len(table)
    assert (both["split"] == both["split_larger"]).all()


def test_a_realm_is_held_out_without_countries(ecoregions: gpd.GeoDataFrame) -> None:
    table = sample_locations(replace(CONFIG, locations=400, hold_out="Neotropic"), biome(ecoregions, "Mangroves"), None)
    assert (table.loc[table["realm"] == "Neotropic", "split"] == "held_out").all()
    assert set(table["split"]) == {"train", "val", "test", "held_out"}


def test_realms_share_each_biome_equally_and_plans_stay_nested(ecoregions: gpd.GeoDataFrame) -> None:
    """A realm of a biome with cells enough gets an equal share of it, whatever land it has."""
    config = replace(CONFIG, balance="realm")
    table = sample_locations(config, ecoregions, None)
    for name, rows in table.groupby("biome"):
        realms = ecoregions.loc[ecoregions["BIOME_NAME"] == name, "REALM"].unique()
        reachable = [realm for realm in realms if realm != "Antarctica"]
        assert set(rows["realm"]) >= set(reachable)
        assert np.ptp([int((rows["realm"] == realm).sum()) for realm in reachable]) <= 1
    by_area = sample_locations(CONFIG, ecoregions, None)
    assert np.ptp(by_area.loc[by_area["biome"] == "Mangroves", "realm"].value_counts()) > 20
    larger = sample_locations(replace(config, locations=3500), ecoregions, None)
    assert set(table["location_id"]) <= set(larger["location_id"])


def test_continents_share_each_biome_equally(ecoregions: gpd.GeoDataFrame, countries: gpd.GeoDataFrame) -> None:
    """By the continent of most of each ecoregion, as an overlay in another projection measures it."""
    part = biome(ecoregions, "Mangroves")
    table = sample_locations(replace(CONFIG, locations=600, balance="continent", countries="c.shp"), part, countries)
    flat = "ESRI:54034"
    merged = countries.dissolve("CONTINENT").reset_index()[["CONTINENT", "geometry"]].to_crs(flat)
    pieces = gpd.overlay(part[["ECO_NAME", "geometry"]].to_crs(flat), merged, how="intersection")
    area = pieces.assign(area=pieces.area).pivot_table(index="ECO_NAME", columns="CONTINENT", values="area")
    clear = area.fillna(0).apply(lambda row: row.nlargest(2).iloc[1] < 0.5 * row.max(), axis=1)
    assert clear.mean() > 0.8
    continent = area.idxmax(axis=1)
    counts = table["ecoregion"].map(continent).value_counts()
    share = len(table) / counts.size
    assert counts.size == 4
    assert (np.abs(counts - share) <= 0.1 * share + 1).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hold_out": "Atlantis"}, "'Atlantis' cannot be held out; choose from: Afrotropic.*for continents give"),
        ({"balance": "continent"}, "needs countries; give --countries"),
        ({"buffer_km": 90}, "buffer must be 0 to 60 km, not 90"),
        ({"val_share": 0.5, "test_share": 0.5}, "together, not 1.0; lower"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(
    ecoregions: gpd.GeoDataFrame, change: dict[str, object], says: str
) -> None:
    with pytest.raises(SamplingError, match=says) as caught:
        sample_locations(replace(CONFIG, **change), ecoregions, None)
    assert "\n" not in str(caught.value)


def test_the_published_scheme_overlaps_as_uniform_points_do(ecoregions: gpd.GeoDataFrame) -> None:
    """Pairs of n even points whose squares of side s meet on an area A: n²/2 · (2s)² / A expected, nearly Poisson."""
    table = reference_points(replace(CONFIG, locations=300_000, preset="reference"), ecoregions)
    area = pd.Series(areas(ecoregions), index=ecoregions["ECO_NAME"])
    count = table["ecoregion"].value_counts()
    expected = float((count**2 / 2 * 2.6**2 / area[count.index]).sum())
    pairs = table.attrs["plan"]["pairs"]
    assert pairs == int(table["overlaps"].sum()) // 2
    assert abs(pairs - expected) < 6 * np.sqrt(expected) + 0.02 * expected  # pairs over borders come on top
    assert table.attrs["plan"]["overlapping"] == int((table["overlaps"] > 0).sum()) > 10_000
    assert np.ptp(table["year"].value_counts()) < 6 * np.sqrt(300_000 / 4)
    assert (
        count
        <= 300_000
        / 14
        * area[count.index]
        / area.groupby(ecoregions.set_index("ECO_NAME")["BIOME_NAME"])
        .sum()[ecoregions.set_index("ECO_NAME").loc[count.index, "BIOME_NAME"]]
        .to_numpy()
    ).all()
    polygon = ecoregions.set_index("ECO_NAME").geometry
    some = table.sample(2000, random_state=0)
    assert all(polygon[name].intersects(point) for name, point in zip(some["ecoregion"], some.geometry, strict=True))


def test_the_published_scheme_knows_no_option_of_the_plan(ecoregions: gpd.GeoDataFrame) -> None:
    with pytest.raises(SamplingError, match="reference preset knows no --buffer-km; leave it out"):
        reference_points(replace(CONFIG, preset="reference", buffer_km=5), ecoregions)


def test_a_table_of_the_published_scheme_is_no_location_table(ecoregions: gpd.GeoDataFrame, tmp_path: Path) -> None:
    table = reference_points(replace(CONFIG, preset="reference"), ecoregions)
    write_locations(table, tmp_path / "points.parquet")
    assert gpd.read_parquet(tmp_path / "points.parquet")["overlaps"].equals(table["overlaps"])
    with pytest.raises(LocationTableError, match=r"lacks the columns location_id.*with its default preset"):
        read_locations(tmp_path / "points.parquet")
    rows = overlap_summary(table)
    assert sum(int(row["points"]) for row in rows[:-1]) == int(rows[-1]["points"]) == len(table)


def test_overlapping_pairs_are_those_whose_squares_meet() -> None:
    """Against squares drawn in a local projection, every pair looked at."""
    draw = np.random.default_rng(0)
    lon, lat = draw.uniform(20, 20.4, 300), draw.uniform(50, 50.3, 300)
    one, other = overlapping_pairs(lon, lat)
    local = CRS.from_proj4("+proj=tmerc +lat_0=50.15 +lon_0=20.2 +ellps=sphere +units=m")
    x, y = Transformer.from_crs(CRS.from_proj4("+proj=longlat +ellps=sphere"), local, always_xy=True).transform(
        lon, lat
    )
    gap = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y))
    found = np.zeros((300, 300), dtype=bool)
    found[one, other] = True
    upper = np.triu(np.ones((300, 300), dtype=bool), 1)
    assert found[upper & (gap < 1300 * 0.99)].all()
    assert not found[~upper | (gap > 1300 * 1.01)].any()
    assert found.sum() > 100


def test_the_country_layer_of_the_tests_is_read_as_the_command_reads_it(shared_data: Path, tmp_path: Path) -> None:
    layer = gpd.read_file(shared_data / "natural_earth").set_crs("EPSG:4326")
    layer.to_file(tmp_path / "countries.gpkg")
    assert set(read_countries(tmp_path / "countries.gpkg")["CONTINENT"]) == set(layer["CONTINENT"])
