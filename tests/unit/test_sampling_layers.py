from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from mmearth_data.modalities import ECOREGION_BIOME, ECOREGION_NAMES
from sampling.countries import check_countries, countries_at, read_countries
from sampling.ecoregions import check_ecoregions, covered_areas, read_ecoregions
from sampling.errors import LayerError, SamplingError

FIRST, SECOND, THIRD = ECOREGION_NAMES[0], ECOREGION_NAMES[100], ECOREGION_NAMES[500]
BOX = shapely.box(10, 40, 12, 42)


def layer(
    names: list[str], shapes: list[shapely.Geometry], crs: str | None = "EPSG:4326", **columns: list[str]
) -> gpd.GeoDataFrame:
    data = {
        "ECO_NAME": names,
        "BIOME_NAME": [ECOREGION_BIOME.get(name, "N/A") for name in names],
        "REALM": ["Palearctic"] * len(names),
    }
    return gpd.GeoDataFrame(data | columns, geometry=shapes, crs=crs)


def test_rock_and_ice_is_dropped_by_name() -> None:
    kept = check_ecoregions(layer([FIRST, "Rock and Ice"], [BOX, BOX]), "x")
    assert kept["ECO_NAME"].tolist() == [FIRST]


def test_rows_of_one_ecoregion_are_united_and_sorted_by_class() -> None:
    frame = layer([SECOND, FIRST, SECOND], [BOX, shapely.box(0, 0, 1, 1), shapely.box(20, 40, 21, 41)])
    kept = check_ecoregions(frame, "x")
    assert kept["ECO_NAME"].tolist() == [FIRST, SECOND]
    assert kept.geometry[1].equals(shapely.union(BOX, shapely.box(20, 40, 21, 41)))


def test_invalid_polygons_are_repaired_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    kept = check_ecoregions(layer([FIRST, SECOND], [bow_tie, BOX]), "x")
    assert kept.geometry.is_valid.all()
    assert kept.attrs["repaired"] == 1
    assert kept.geometry[0].area == pytest.approx(2)
    assert "repaired 1 invalid" in caplog.text
    assert check_ecoregions(kept, "x").attrs["repaired"] == 1


def test_longitudes_beyond_the_antimeridian_are_wrapped() -> None:
    kept = check_ecoregions(layer([FIRST], [shapely.box(170, -10, 200, 10)]), "x")
    expected = shapely.union(shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -160, 10))
    assert kept.geometry[0].symmetric_difference(expected).area == 0


def test_other_projections_are_turned_into_degrees() -> None:
    kept = check_ecoregions(layer([FIRST], [BOX]).to_crs(3857), "x")
    assert kept.crs == "EPSG:4326"
    assert kept.geometry[0].symmetric_difference(BOX).area < 1e-9


def test_areas_are_those_of_the_sphere_within_coverage() -> None:
    areas = covered_areas(check_ecoregions(layer([FIRST, SECOND, THIRD], [
        shapely.box(0, -30, 90, 30), shapely.box(0, -80, 10, -60), shapely.box(0, -70, 10, 0),
    ]), "x"))  # fmt: skip
    globe = 510_065_622.0  # km², WGS 84
    assert areas[0] == pytest.approx(globe / 8, rel=1e-4)
    assert areas[1] == 0
    assert areas[2] == pytest.approx(globe / 36 * 0.829037573 / 2, rel=1e-4)  # sin 56°


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (layer([FIRST], [BOX], crs=None), "has no CRS"),
        (layer([FIRST], [BOX]).drop(columns="BIOME_NAME"), "lacks the columns BIOME_NAME"),
        (layer(["Atlantis"], [BOX]), "unknown ecoregions such as 'Atlantis'"),
        (layer([FIRST], [BOX], BIOME_NAME=["Mangroves"]), "into biome 'Mangroves'"),
        (layer([FIRST], [shapely.LineString([(0, 0), (1, 1)])]), "has no area"),
        (layer([FIRST], [None]), "has no area"),
        (layer([FIRST], [shapely.box(500_000, 0, 600_000, 10)]), "off the globe"),
        (layer(["Rock and Ice"], [BOX]), "holds no ecoregion"),
    ],
)
def test_a_layer_that_cannot_be_used_is_refused_in_one_line(frame: gpd.GeoDataFrame, says: str, tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=says) as caught:
        check_ecoregions(frame, "some.gpkg")
    assert "some.gpkg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_vector_layer_is_refused_in_one_line(tmp_path: Path) -> None:
    text, table, folder = tmp_path / "a.shp", tmp_path / "a.csv", tmp_path / "folder"
    folder.mkdir()
    text.write_text("not a shapefile\n\n")
    table.write_text("ECO_NAME,BIOME_NAME,REALM\nA,B,C\n")
    for file, says in (
        (tmp_path / "none.shp", "does not exist"),
        (text, "is not a vector file"),
        (folder, "is not a vector file"),
        (tmp_path, "holds no layer"),
        (table, "has no geometry"),
    ):
        for read in (read_ecoregions, read_countries):
            with pytest.raises(LayerError, match=says) as caught:
                read(file)
            assert str(file) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_file_gives_what_the_frame_gives(tmp_path: Path) -> None:
    frame = layer([SECOND, FIRST], [BOX, shapely.box(0, 0, 1, 1)], OTHER=["a", "b"])
    frame.to_file(tmp_path / "x.gpkg")
    read, checked = read_ecoregions(tmp_path / "x.gpkg"), check_ecoregions(frame, "x")
    assert read.columns.tolist() == checked.columns.tolist() == ["ECO_NAME", "BIOME_NAME", "REALM", "geometry"]
    assert read["ECO_NAME"].tolist() == checked["ECO_NAME"].tolist()
    assert (read.geometry.geom_equals(checked.geometry)).all()


def test_a_file_without_the_columns_is_refused(shared_data: Path) -> None:
    file = shared_data / "natural_earth" / "ne_50m_admin_0_countries.shp"
    with pytest.raises(LayerError, match="lacks the columns ECO_NAME, BIOME_NAME, REALM"):
        read_ecoregions(file)
    with pytest.raises(LayerError, match="has no CRS"):
        read_countries(file)
    with pytest.raises(LayerError, match="lacks the columns CONTINENT"):
        read_countries(shared_data / "ecoregions2017" / "Ecoregions2017.shp")


def test_every_failure_is_a_sampling_error() -> None:
    assert issubclass(LayerError, SamplingError)


def test_countries_are_those_that_hold_the_point_or_lie_near_it(shared_data: Path) -> None:
    raw = gpd.read_file(shared_data / "natural_earth").set_crs("EPSG:4326")
    countries = check_countries(raw, "Natural Earth")
    places = {
        "Nairobi": ((36.8, -1.3), "Kenya", "Africa"),
        "Lima": ((-77.0, -12.0), "Peru", "South America"),
        "Suva": ((178.44, -18.1), "Fiji", "Oceania"),
        "off Brest": ((-4.85, 48.35), "France", "Europe"),
    }
    points = shapely.points([place for place, _, _ in places.values()] + [(-140.0, 30.0)])
    *found, at_sea = countries_at(points, countries)
    assert [countries["ADMIN"][k] for k in found] == [country for _, country, _ in places.values()]
    assert [countries["CONTINENT"][k] for k in found] == [continent for _, _, continent in places.values()]
    assert at_sea == -1


def test_a_country_layer_may_call_its_names_name() -> None:
    frame = gpd.GeoDataFrame({"CONTINENT": ["Asia"], "NAME": ["Here"]}, geometry=[BOX], crs=4326)
    assert check_countries(frame, "x")["ADMIN"].tolist() == ["Here"]
