"""Shares of a plan and of the land, against areas that geopandas overlays in another projection, and closed forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import Geod

from mmearth_data.modalities import BIOME_NAMES
from sampling import survey
from sampling.countries import check_countries
from sampling.ecoregions import read_ecoregions
from sampling.geography import continents, geography
from sampling.plan import SampleConfig, sample_locations

EQUAL_AREA = "ESRI:54034"
COVERAGE = (-180, -56, 180, 82.8)


@pytest.fixture(scope="module")
def ecoregions(shared_data: Path) -> gpd.GeoDataFrame:
    return read_ecoregions(shared_data / "ecoregions2017" / "Ecoregions2017.shp")


@pytest.fixture(scope="module")
def raw_countries(shared_data: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(shared_data / "natural_earth").set_crs("EPSG:4326")


@pytest.fixture(scope="module")
def countries(raw_countries: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return check_countries(raw_countries, "Natural Earth")


@pytest.fixture(scope="module")
def plan(ecoregions: gpd.GeoDataFrame, countries: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return sample_locations(SampleConfig(locations=5600, out=Path("x")), ecoregions, countries)


@pytest.fixture(scope="module")
def found(
    plan: gpd.GeoDataFrame, ecoregions: gpd.GeoDataFrame, countries: gpd.GeoDataFrame
) -> dict[str, dict[str, Any]]:
    """Groups by grouping and name."""
    return named(geography(plan, ecoregions, countries))


def named(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    shares = said["shares"].items()
    return {grouping: {group["name"]: group for group in groups} for grouping, groups in shares if groups is not None}


def square_km(frame: gpd.GeoDataFrame, by: pd.Series[str]) -> dict[str, float]:
    return (frame.to_crs(EQUAL_AREA).geometry.area / 1e6).groupby(by).sum().to_dict()


def test_land_of_realms_and_biomes_is_that_of_their_polygons(
    ecoregions: gpd.GeoDataFrame, found: dict[str, dict[str, Any]]
) -> None:
    covered = ecoregions.clip(COVERAGE)
    for grouping, column in (("realm", "REALM"), ("biome", "BIOME_NAME")):
        expected = square_km(covered, covered[column])
        got = {name: group["land_km2"] for name, group in found[grouping].items() if group["land_km2"]}
        assert got == pytest.approx(expected, rel=8e-3)  # the sphere for the ellipsoid


def test_land_of_continents_and_countries_is_that_of_an_overlay(
    ecoregions: gpd.GeoDataFrame, raw_countries: gpd.GeoDataFrame, found: dict[str, dict[str, Any]]
) -> None:
    overlay = gpd.overlay(ecoregions[["geometry"]], raw_countries[["CONTINENT", "ADMIN", "geometry"]])
    overlay = overlay.clip(COVERAGE)
    by_continent, by_country = square_km(overlay, overlay["CONTINENT"]), square_km(overlay, overlay["ADMIN"])
    total = sum(by_continent.values())
    for name, area in by_continent.items():
        assert found["continent"][name]["land_share"] == pytest.approx(area / total, abs=1e-3), name
    large = {name: area for name, area in by_country.items() if area > 1e6}
    assert len(large) > 20
    for name, area in large.items():
        assert found["country"][name]["land_km2"] == pytest.approx(area, rel=0.03), name
    largest = found["continent"]["Europe"]["largest"]
    assert largest["country"] == "Russia"
    assert largest["land_share"] == pytest.approx(by_country["Russia"] / total, rel=0.01)


def test_land_of_latitude_bands_is_that_of_clipped_polygons(
    ecoregions: gpd.GeoDataFrame, found: dict[str, dict[str, Any]]
) -> None:
    total = ecoregions.clip(COVERAGE).to_crs(EQUAL_AREA).geometry.area.sum()
    edges = {"60°N to 70°N": (60, 70), "0° to 10°N": (0, 10), "10°S to 0°": (-10, 0), "60°S to 50°S": (-56, -50)}
    for name, (south, north) in edges.items():
        band = ecoregions.clip((-180, south, 180, north)).to_crs(EQUAL_AREA).geometry.area.sum()
        assert found["latitude"][name]["land_share"] == pytest.approx(band / total, abs=1e-3)
    bands = list(found["latitude"])
    assert (bands[0], bands[-1]) == ("80°N to 90°N", "60°S to 50°S")


def test_locations_are_counted_where_a_join_in_another_projection_puts_them(
    plan: gpd.GeoDataFrame, raw_countries: gpd.GeoDataFrame, found: dict[str, dict[str, Any]]
) -> None:
    primaries = plan.loc[~plan["reserve"], ["geometry"]].to_crs(EQUAL_AREA)
    layer = raw_countries[["CONTINENT", "ADMIN", "geometry"]].to_crs(EQUAL_AREA)
    joined = gpd.sjoin(primaries, layer, predicate="within")
    coast = 1 - joined.index.nunique() / len(primaries)
    assert coast < 0.02
    for grouping, column in (("continent", "CONTINENT"), ("country", "ADMIN")):
        for name, count in joined[column].value_counts().items():
            assert found[grouping][name]["share"] == pytest.approx(count / len(primaries), abs=coast)


def test_primaries_alone_are_counted_and_every_grouping_has_all_of_them(
    plan: gpd.GeoDataFrame, ecoregions: gpd.GeoDataFrame, countries: gpd.GeoDataFrame
) -> None:
    said = geography(plan, ecoregions, countries)
    assert said["counted"] == "primaries"
    assert said["locations"] == 5600 < len(plan)
    for groups in said["shares"].values():
        assert sum(group["locations"] for group in groups) == 5600
        assert sum(group["share"] for group in groups) == pytest.approx(1)
        assert sum(group["land_share"] for group in groups) == pytest.approx(1)
        assert sum(group["land_km2"] for group in groups) == pytest.approx(said["land_km2"])
    assert {group["name"]: group["locations"] for group in said["shares"]["biome"]} == dict.fromkeys(BIOME_NAMES, 400)
    without = geography(plan.loc[~plan["reserve"]], ecoregions, countries)
    assert without == said
    assert json.loads(json.dumps(said)) == said


def test_without_countries_there_are_no_continents(plan: gpd.GeoDataFrame, ecoregions: gpd.GeoDataFrame) -> None:
    said = geography(plan, ecoregions, None)
    assert said["shares"]["continent"] is said["shares"]["country"] is said["merit"]["continent"] is None
    assert len(said["shares"]["realm"]) == 8
    assert continents(said) == []


def test_published_shares_stand_beside_the_continents_they_are_of(
    plan: gpd.GeoDataFrame, ecoregions: gpd.GeoDataFrame, countries: gpd.GeoDataFrame
) -> None:
    said = geography(plan, ecoregions, countries)
    shown = {group["name"]: group["survey_share"] for group in said["shares"]["continent"]}
    assert {name: share for name, share in shown.items() if share is not None} == dict(survey.SHARES)
    assert said["survey"]["shares"] == dict(survey.SHARES)
    rows = {row["continent"]: row for row in continents(said)}
    africa = said["shares"]["continent"][[row["name"] for row in said["shares"]["continent"]].index("Africa")]
    assert rows["Africa"] == {
        "continent": "Africa",
        "locations": africa["locations"],
        "plan": f"{100 * africa['share']:.1f} %",
        "land": f"{100 * africa['land_share']:.1f} %",
        "published data sets": "5.0 %",
    }


def small(boxes: list[shapely.Geometry], held: list[int]) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """A layer of one ecoregion per box, each a realm of its own, and a table with so many locations in each."""
    letters = [chr(ord("A") + number) for number in range(len(boxes))]
    regions = gpd.GeoDataFrame({"REALM": letters, "BIOME_NAME": letters}, geometry=boxes, crs=4326)
    which = np.repeat(np.arange(len(boxes)), held)
    table = gpd.GeoDataFrame(
        {
            "lat": [boxes[k].centroid.y for k in which], "realm": [letters[k] for k in which],
            "biome": [letters[k] for k in which], "country": "", "continent": "", "reserve": False,
        },
        geometry=[boxes[k].centroid for k in which],
        crs=4326,
    )  # fmt: skip
    return table, regions


def test_figures_of_merit_in_closed_form() -> None:
    """Two boxes of equal area, mirrored at the equator, with three and one locations."""
    boxes = [shapely.box(0, 0, 10, 10), shapely.box(0, -10, 10, 0)]
    said = geography(*small(boxes, [3, 1]), None)
    area = abs(Geod(ellps="sphere").polygon_area_perimeter([0, 10, 10, 0], [0, 0, 10, 10])[0]) / 1e6
    merit = said["merit"]["realm"]
    assert merit["from_land"] == pytest.approx(0.25)
    assert merit["from_equal"] == pytest.approx(0.25)
    assert (merit["densest"]["name"], merit["sparsest"]["name"]) == ("A", "B")
    assert merit["densest"]["per_1000_km2"] == pytest.approx(3000 / area, rel=0.01)
    assert merit["sparsest"]["per_1000_km2"] == pytest.approx(1000 / area, rel=0.01)


def test_a_group_with_little_land_is_neither_densest_nor_compared() -> None:
    boxes = [shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10), shapely.box(40, 5, 40.001, 5.001)]
    said = geography(*small(boxes, [5, 5, 10]), None)
    islet = named(said)["realm"]["C"]
    assert islet["land_km2"] == pytest.approx(0.0123, rel=0.02)  # no lattice point falls on it
    assert islet["share"] == 0.5
    merit = said["merit"]["realm"]
    assert "C" not in (merit["densest"]["name"], merit["sparsest"]["name"])
    assert merit["from_equal"] == pytest.approx(0)
    assert merit["from_land"] == pytest.approx(0.5, abs=1e-6)


def test_a_point_far_from_every_country_has_none(countries: gpd.GeoDataFrame) -> None:
    said = geography(*small([shapely.box(-140, 30, -139, 31)], [2]), countries)
    assert [(group["name"], group["share"], group["land_share"]) for group in said["shares"]["country"]][:1] == [
        ("", 1.0, pytest.approx(1.0))
    ]
