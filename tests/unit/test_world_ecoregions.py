"""The planet's ecoregions: real names with the right biome, valid polygons, every biome with land enough."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import shapely
from pyproj import Geod

from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.world import biomes, build, ecoregions, planet
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_BIOME, ROCK_AND_ICE

SEEDS = (0, 1, 7)
SOUTH, NORTH = -56.0, 82.8


@cache
def made(seed: int) -> tuple[planet.Planet, np.ndarray, np.ndarray, FeatureAsset]:
    globe = planet.make(seed)
    classes = biomes.classify(globe)
    regions = ecoregions.partition(globe, classes)
    return globe, classes, regions, ecoregions.asset(regions)


def test_every_name_in_the_table_is_resolves_with_its_biome() -> None:
    known = {entry.name: entry.biome for entry in ecoregions.table() if entry.biome != "N/A"}
    assert known == ECOREGION_BIOME
    assert set(known.values()) == set(BIOME_NAMES)


def test_numbers_are_those_of_the_real_file(shared_data) -> None:
    import pyogrio

    real = pyogrio.read_dataframe(shared_data / "ecoregions2017" / "Ecoregions2017.shp", read_geometry=False)
    rows = {
        (int(r.OBJECTID), int(r.ECO_ID), r.ECO_NAME, int(r.BIOME_NUM), r.BIOME_NAME, r.REALM) for r in real.itertuples()
    }
    ours = {(e.objectid, e.eco_id, e.name, e.biome_num, e.biome, e.realm) for e in ecoregions.table()}
    assert ours == rows


@pytest.mark.parametrize("seed", SEEDS)
def test_every_biome_has_land_enough_in_several_places(seed: int) -> None:
    features = made(seed)[3].features
    geod = Geod(ellps="WGS84")
    area: dict[str, float] = {}
    realms: dict[str, set[str]] = {}
    for geometry, properties in features:
        covered = shapely.clip_by_rect(geometry, -180, SOUTH, 180, NORTH)
        # Box edges along parallels are short, so geodesic and planar edges enclose nearly the same area.
        size = sum(abs(geod.geometry_area_perimeter(part)[0]) for part in getattr(covered, "geoms", [covered]))
        area[properties["BIOME_NAME"]] = area.get(properties["BIOME_NAME"], 0.0) + size / 1e6
        realms.setdefault(properties["BIOME_NAME"], set()).add(properties["REALM"])
    assert set(area) == {*BIOME_NAMES, "N/A"}
    assert min(area[name] for name in BIOME_NAMES) > 150_000
    # A biome of narrow climate may lie on one continent, as tropical conifers nearly do in reality.
    assert sum(len(realms[name]) >= 2 for name in BIOME_NAMES) >= 13


@pytest.mark.parametrize("seed", SEEDS)
def test_all_846_ecoregions_have_a_place_in_their_biome(seed: int) -> None:
    _, classes, regions, asset = made(seed)
    entries = ecoregions.table()
    held = np.unique(regions[regions >= 0])
    assert len(held) == len(entries) == 847
    for index in held:
        here = classes[regions == index]
        assert set(here) == {biomes.ICE if entries[index].biome == "N/A" else entries[index].biome_num}
    named = [p["ECO_NAME"] for _, p in asset.features]
    assert set(named) == {*ECOREGION_BIOME, ROCK_AND_ICE}
    assert len(named) == len(set(named))


def test_ecoregions_differ_in_size_and_lie_in_their_realm_where_it_has_such_land() -> None:
    _, classes, regions, _ = made(0)
    entries = ecoregions.table()
    boxes = np.bincount(regions[(regions >= 0) & (classes != biomes.ICE)], minlength=len(entries))
    boxes = boxes[boxes > 0]
    # Of RESOLVE's own areas the 5th and the 95th percentile are apart by far more than this.
    assert np.percentile(boxes, 95) > 20 * np.percentile(boxes, 5)
    realms = np.array([entry.realm for entry in entries])
    rows, columns = np.nonzero((regions >= 0) & (classes != biomes.ICE))
    american = np.isin(realms[regions[rows, columns]], ("Nearctic", "Neotropic"))
    western = (planet.LONGITUDE[columns] > -135) & (planet.LONGITUDE[columns] < -25)
    # Land of a biome that its realm has no more names for takes those of others, so this holds of most of it alone.
    assert american[western].mean() > 2 * american[~western].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_polygons_are_valid_and_apart_and_the_ice_is_named(seed: int) -> None:
    features = made(seed)[3].features
    assert all(geometry.is_valid and not geometry.is_empty for geometry, _ in features)
    total = sum(geometry.area for geometry, _ in features)
    assert shapely.union_all([geometry for geometry, _ in features]).area == pytest.approx(total, rel=1e-9)
    bounds = shapely.total_bounds([geometry for geometry, _ in features])
    assert bounds[0] >= -180
    assert bounds[2] <= 180
    (ice,) = [p for _, p in features if p["BIOME_NAME"] == "N/A"]
    assert ice["ECO_NAME"] == ROCK_AND_ICE
    assert ice["BIOME_NUM"] == 11
    ids = [p["OBJECTID"] for _, p in features]
    assert ids == sorted(set(ids))


def test_polygons_and_the_pixels_map_agree() -> None:
    _, classes, regions, asset = made(0)
    rng = np.random.default_rng(4)
    lon, lat = rng.uniform(-180, 180, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    tree = shapely.STRtree([geometry for geometry, _ in asset.features])
    point, polygon = tree.query(shapely.points(lon, lat), predicate="within")
    found = np.full(4000, -1)
    found[point] = polygon
    row, column = planet.box_of(lon, lat)
    names = [ecoregions.table()[index].name if index >= 0 else None for index in regions[row, column]]
    numbers = classes[row, column]
    for index, feature in enumerate(found):
        if feature < 0:
            assert names[index] is None
            continue
        properties = asset.features[feature][1]
        assert properties["ECO_NAME"] == names[index]
        if properties["BIOME_NAME"] != "N/A":
            assert properties["BIOME_NUM"] == numbers[index]


def test_a_seed_is_a_world_and_another_seed_another() -> None:
    again = ecoregions.asset(ecoregions.partition(planet.make(0), biomes.classify(planet.make(0))))
    first = made(0)[3]
    assert [g.wkb for g, _ in again.features] == [g.wkb for g, _ in first.features]
    assert [p for _, p in again.features] == [p for _, p in first.features]
    assert [g.wkb for g, _ in made(1)[3].features] != [g.wkb for g, _ in first.features]


def test_the_flat_world_has_one_ecoregion_per_biome() -> None:
    table = build("flat").lookup(ecoregions.ASSET_ID)
    assert isinstance(table, FeatureAsset)
    assert sorted(p["BIOME_NAME"] for _, p in table.features) == sorted([*BIOME_NAMES, "N/A"])
    assert all(ECOREGION_BIOME.get(p["ECO_NAME"], "N/A") == p["BIOME_NAME"] for _, p in table.features)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="choose earth or flat"):
        build("moon")  # type: ignore[arg-type]
