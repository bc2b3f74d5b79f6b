"""The planet's countries: all of its land, invented by name, in regions that lie about where the real ones do."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.world import biomes, build, countries, ecoregions, planet
from sampling.countries import LSIB_CONTINENTS


def table(kind: str, seed: int, asset_id: str) -> FeatureAsset:
    found = build(kind, seed).lookup(asset_id)  # type: ignore[arg-type]
    assert isinstance(found, FeatureAsset)
    return found


@pytest.mark.parametrize(("kind", "seed"), [("earth", 0), ("earth", 7), ("flat", 0)])
def test_countries_share_the_land_that_ecoregions_share(kind: str, seed: int) -> None:
    states = table(kind, seed, countries.ASSET_ID).features
    land = shapely.union_all([shape for shape, _ in table(kind, seed, ecoregions.ASSET_ID).features])
    shapes = [shape for shape, _ in states]
    assert shapely.is_valid(shapes).all()
    assert sum(shape.area for shape in shapes) == pytest.approx(land.area, rel=1e-9)
    assert shapely.union_all(shapes).symmetric_difference(land).area == pytest.approx(0, abs=1e-6)


def test_names_are_invented_and_columns_are_the_services(shared_data: Path) -> None:
    real = set(gpd.read_file(shared_data / "natural_earth", ignore_geometry=True)["ADMIN"])
    rows = [properties for _, properties in table("earth", 0, countries.ASSET_ID).features]
    assert {tuple(row) for row in rows} == {("abbreviati", "country_co", "country_na", "wld_rgn")}
    names = [row["country_na"] for row in rows]
    assert len(set(names)) == len({row["country_co"] for row in rows}) == countries.COUNT
    assert all(name.endswith("(invented)") for name in names)
    assert not real & set(names)
    assert {row["wld_rgn"] for row in rows} <= set(LSIB_CONTINENTS)


def test_regions_lie_where_real_countries_of_their_continent_lie(shared_data: Path) -> None:
    real = gpd.read_file(shared_data / "natural_earth")
    places = real.geometry.representative_point()
    told = [LSIB_CONTINENTS[countries.region_at(x, y)] for x, y in zip(places.x, places.y, strict=True)]
    large = (real.geometry.area > 5).to_numpy()
    assert (real["CONTINENT"].to_numpy() == np.array(told))[large].mean() > 0.9


def test_a_seed_has_its_countries_and_another_seed_others() -> None:
    globe = planet.make(0)
    again, first = (countries.asset(0, globe.land).features for _ in range(2))
    assert [(shape.wkb, row) for shape, row in again] == [(shape.wkb, row) for shape, row in first]
    assert [row for _, row in countries.asset(1, planet.make(1).land).features] != [row for _, row in first]


def test_they_change_nothing_else_of_the_world() -> None:
    globe = planet.make(0)
    regions = ecoregions.partition(globe, biomes.classify(globe))
    served = table("earth", 0, ecoregions.ASSET_ID)
    # Every box of the served polygons has the ecoregion that the map of boxes has there.
    lon, lat = np.meshgrid(planet.LONGITUDE, planet.LATITUDE)
    names = np.array([entry.name for entry in ecoregions.table()])
    for shape, properties in served.features[::10]:
        inside = shapely.contains_xy(shape, lon, lat)
        assert set(names[regions[inside]]) == {properties["ECO_NAME"]}
        assert (names[regions[regions >= 0]] == properties["ECO_NAME"]).sum() == inside.sum()
