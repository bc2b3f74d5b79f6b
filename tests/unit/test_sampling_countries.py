"""Country layers by Earth Engine's columns beside Natural Earth's."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from sampling.countries import LSIB_CONTINENTS, check_countries, countries_at, read_countries
from sampling.errors import LayerError


@pytest.fixture(scope="module")
def natural_earth(shared_data: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(shared_data / "natural_earth").set_crs("EPSG:4326")


def lsib(regions: list[str | None]) -> gpd.GeoDataFrame:
    boxes = [shapely.box(10 * k, 0, 10 * k + 10, 10) for k in range(len(regions))]
    names = [f"Country {k}" for k in range(len(regions))]
    return gpd.GeoDataFrame({"country_na": names, "wld_rgn": regions}, geometry=boxes, crs=4326)


def test_regions_become_the_continents_that_natural_earth_names(natural_earth: gpd.GeoDataFrame) -> None:
    regions = sorted(LSIB_CONTINENTS)
    checked = check_countries(lsib(list(regions)), "x")
    assert set(checked["CONTINENT"]) == set(natural_earth["CONTINENT"])
    by_region = dict(zip(regions, checked["CONTINENT"], strict=True))
    assert by_region["SE Asia"] == by_region["N Asia"] == "Asia"
    assert by_region["Caribbean"] == by_region["Central America"] == "North America"
    assert by_region["Australia"] == "Oceania"
    assert checked["ADMIN"].tolist() == [f"Country {k}" for k in range(len(regions))]


def test_an_unknown_region_is_said_and_left_empty(caplog: pytest.LogCaptureFixture) -> None:
    checked = check_countries(lsib(["Africa", "Atlantis", None]), "some.gpkg")
    assert checked["CONTINENT"].tolist() == ["Africa", "", ""]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "some.gpkg" in line
    assert "Atlantis, none" in line


def test_a_file_with_either_kind_of_columns_gives_the_same_countries(
    natural_earth: gpd.GeoDataFrame, tmp_path: Path
) -> None:
    """Natural Earth written with the other columns; its regions of the world tell the continents apart."""
    region = {"Asia": "S Asia", "Oceania": "Australia", "Seven seas (open ocean)": "Indian Ocean"}
    other = natural_earth[["ADMIN", "CONTINENT", "geometry"]].rename(
        columns={"ADMIN": "country_na", "CONTINENT": "wld_rgn"}
    )
    other["wld_rgn"] = other["wld_rgn"].replace(region)
    other.to_file(tmp_path / "lsib.gpkg")
    natural_earth.to_file(tmp_path / "natural_earth.gpkg")
    one, two = read_countries(tmp_path / "natural_earth.gpkg"), read_countries(tmp_path / "lsib.gpkg")
    assert one["ADMIN"].tolist() == two["ADMIN"].tolist()
    assert one["CONTINENT"].tolist() == two["CONTINENT"].tolist()


def test_columns_of_neither_kind_are_refused_in_one_line() -> None:
    with pytest.raises(LayerError, match="lacks the columns CONTINENT and ADMIN or NAME") as caught:
        check_countries(lsib(["Africa"]).drop(columns="country_na"), "some.gpkg")
    assert "country_na and wld_rgn" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_points_off_the_coast_get_the_country_that_is_nearest(natural_earth: gpd.GeoDataFrame) -> None:
    """Against every distance to every country."""
    countries = check_countries(natural_earth, "Natural Earth")
    rng = np.random.default_rng(5)
    points = shapely.points(rng.uniform(-10, 30, 300), rng.uniform(30, 60, 300))
    polygons = countries.geometry.to_numpy()
    distance = np.array([shapely.distance(polygons, point) for point in points])
    expected = np.where(distance.min(axis=1) < 0.5, distance.argmin(axis=1), -1)
    assert (expected < 0).sum() > 20
    assert ((distance.min(axis=1) > 0) & (expected >= 0)).sum() > 10
    np.testing.assert_array_equal(countries_at(points, countries), expected)
