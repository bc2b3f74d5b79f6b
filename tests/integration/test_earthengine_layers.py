"""Ecoregions and countries through the real client: pages, borders simplified on the server, layers kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ee
import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer

from flows.sample import COUNTRY_LAYER, ECOREGION_LAYER, FROM_EARTH_ENGINE, read_layer
from flows.settings import SampleSettings
from mmearth_data.earthengine import regions
from mmearth_data.earthengine.errors import TooLarge
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.world import build
from mmearth_data.source import Corrupt, Rejected, Transient
from sampling.countries import check_countries, read_countries
from sampling.ecoregions import check_ecoregions
from tests.emulated import Running, SmallArchive, start_emulator

METRES = 20_000.0
"""Far more than is asked for when sampling, so that borders at 1:50m visibly lose vertices."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def lsib(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Natural Earth with the columns of LSIB, to be mounted in its place."""
    frame = gpd.read_file(shared_data / "natural_earth").set_crs(4326)
    file = tmp_path_factory.mktemp("lsib") / "lsib.gpkg"
    asia = {"Asia": "SW Asia", "Seven seas (open ocean)": "South Atlantic"}
    gpd.GeoDataFrame(
        {"country_na": frame["ADMIN"], "wld_rgn": frame["CONTINENT"].replace(asia), "country_co": frame["FIPS_10_"]},
        geometry=frame.geometry,
        crs=4326,
    ).to_file(file)
    return file


@pytest.fixture(scope="module")
def mounted(lsib: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start_emulator(tmp_path_factory.mktemp("mounted"), mounts=[f"{regions.COUNTRIES}={lsib}"]) as running:
        yield running


def pages(running: Running) -> list[dict[str, Any]]:
    return running.requests("computeFeatures")


def test_countries_of_the_emulated_earth_arrive_and_are_understood(world: Running) -> None:
    seen: list[int] = []
    before = len(pages(world))
    frame = regions.countries(connect(None, world.url), None, seen.append)
    served = build("earth", 0).lookup(regions.COUNTRIES)
    assert isinstance(served, FeatureAsset)
    assert seen == [len(served.features)]
    assert len(pages(world)) == before + 1
    assert frame["country_na"].tolist() == [row["country_na"] for _, row in served.features]
    assert all(one.equals(two) for one, (two, _) in zip(frame.geometry, served.features, strict=True))
    checked = check_countries(frame, regions.COUNTRIES)
    assert (checked["CONTINENT"] != "").all()
    assert {"Africa", "Asia", "Europe", "South America"} <= set(checked["CONTINENT"])


def test_tables_longer_than_a_page_arrive_whole_and_in_order(world: Running) -> None:
    seen: list[int] = []
    frame = regions.ecoregions(connect(None, world.url), regions.BORDER_METRES, seen.append)
    served = build("earth", 0).lookup(regions.ECOREGIONS)
    assert isinstance(served, FeatureAsset)
    count = len(served.features)
    assert seen == [*range(100, count, 100), count]
    assert len(seen) > 1
    assert frame["ECO_NAME"].tolist() == [row["ECO_NAME"] for _, row in served.features]
    # Its borders are those of half-degree boxes, which lose the vertices within an edge and nothing else.
    assert all(one.equals(two) for one, (two, _) in zip(frame.geometry, served.features, strict=True))
    assert (
        shapely.get_num_coordinates(frame.geometry).sum()
        <= shapely.get_num_coordinates([shape for shape, _ in served.features]).sum()
    )
    assert check_ecoregions(frame, "x").attrs["repaired"] == 0


def test_a_mounted_file_is_served_in_place_of_the_countries(mounted: Running, lsib: Path) -> None:
    frame = regions.countries(connect(None, mounted.url))
    file = gpd.read_file(lsib)
    assert frame["country_na"].tolist() == file["country_na"].tolist()
    assert frame.geometry.geom_equals(file.geometry).all()
    assert check_countries(frame, "x")["CONTINENT"].tolist() == read_countries(lsib)["CONTINENT"].tolist()


def test_borders_simplified_on_the_server_are_shapelys_and_within_the_error(mounted: Running, lsib: Path) -> None:
    frame = regions.countries(connect(None, mounted.url), METRES)
    file = gpd.read_file(lsib)
    metres_per_degree = Geod(ellps="WGS84").inv(0, 0, 1, 0)[2]
    # Half the error: GEOS may go twice its tolerance beyond the end of a ring.
    expected = shapely.simplify(file.geometry.to_numpy(), METRES / 2 / metres_per_degree)
    assert shapely.equals_exact(frame.geometry.to_numpy(), expected, tolerance=1e-9).all()
    before, after = (shapely.get_num_coordinates(layer.geometry).sum() for layer in (file, frame))
    assert after < before / 2
    # Every vertex that went lies within the error of the border that is left, measured around the country itself.
    for name in ("Norway", "Chile", "Indonesia"):
        row = file.index[file["country_na"] == name][0]
        middle = file.geometry[row].representative_point()
        local = Transformer.from_crs(4326, f"+proj=aeqd +lon_0={middle.x} +lat_0={middle.y}", always_xy=True)
        vertices = shapely.points(shapely.get_coordinates(file.geometry[row]))
        # Edges are straight in degrees: with a vertex every 5 km they stay so on the map.
        border = shapely.segmentize(frame.geometry[row].boundary, 0.05)
        flat = [shapely.transform(shape, local.transform, interleaved=False) for shape in (vertices, border)]
        furthest = shapely.distance(*flat).max()
        assert METRES / 4 < furthest < METRES


def test_projected_geometry_is_simplified_in_its_own_metres(world: Running) -> None:
    connect(None, world.url)
    rng = np.random.default_rng(2)
    x = np.linspace(400_000, 410_000, 200)
    ring = [*zip(x, 5_000_000 + rng.uniform(0, 30, 200), strict=True), (410_000, 5_010_000), (400_000, 5_010_000)]
    polygon = ee.Geometry.Polygon([[list(map(float, point)) for point in ring]], "EPSG:32633", False)
    to_metres = Transformer.from_crs(4326, 32633, always_xy=True)
    sent = polygon.simplify(100).getInfo()["coordinates"]
    got = shapely.transform(shapely.Polygon(sent[0]), to_metres.transform, interleaved=False)
    expected = shapely.simplify(shapely.Polygon(ring), 50)
    assert shapely.get_num_coordinates(expected) < 10
    assert got.symmetric_difference(expected).area < 1e-5 * expected.area
    loose = polygon.simplify(ee.ErrorMargin(100, "projected")).getInfo()["coordinates"]
    assert loose == sent


@pytest.mark.parametrize(
    ("margin", "says"), [(ee.ErrorMargin, "infinite"), (-5, "must be a number from 0")], ids=["unit", "negative"]
)
def test_an_error_margin_that_makes_no_sense_is_refused(world: Running, margin: Any, says: str) -> None:
    source = connect(None, world.url)
    given = margin if isinstance(margin, int) else ee.ErrorMargin(1, "infinite")
    table = ee.FeatureCollection(regions.COUNTRIES).map(lambda feature: feature.simplify(given))
    with pytest.raises(Rejected, match=says):
        source.features(table)


class Overwhelmed(EarthEngineSource):
    """A service that cannot finish more than so many rows at once."""

    most = 0

    def features(self, collection: Any, page_rows: int = 1000, on_rows: Any = None) -> list[dict[str, Any]]:
        """The features, or TooLarge for too many of them."""
        if page_rows > self.most:
            raise TooLarge("User memory limit exceeded.")
        return super().features(collection, page_rows, on_rows)


def test_fewer_polygons_are_asked_for_where_the_service_cannot_finish_many(world: Running) -> None:
    source = connect(None, world.url)
    source.__class__ = Overwhelmed
    assert isinstance(source, Overwhelmed)
    source.most = 25
    before = len(pages(world))
    assert len(regions.countries(source)) == 64
    assert len(pages(world)) == before + 3
    source.most = 0
    with pytest.raises(TooLarge):
        regions.countries(source)


def test_a_table_without_the_columns_is_corrupt(tmp_path: Path) -> None:
    bare = FeatureAsset(regions.COUNTRIES, ((shapely.box(0, 0, 1, 1), {"name": "x"}),))
    with (
        start_emulator(tmp_path, archive=SmallArchive([bare])) as running,
        pytest.raises(Corrupt, match="must have rows with country_na, wld_rgn; 1 rows arrived") as caught,
    ):
        regions.countries(connect(None, running.url))
    assert "\n" not in str(caught.value)


# -- the step of the flow


def settings(folder: Path, url: str | None, cache: Path | None) -> SampleSettings:
    return SampleSettings(locations=56, out=folder / "l.parquet", countries="ee", emulator=url, cache=cache)


def told(stage: str, done: int, total: int) -> None:
    assert stage in ("ecoregions", "countries")
    assert 0 <= done <= total


def test_a_kept_layer_needs_no_service(tmp_path: Path) -> None:
    for layer in (ECOREGION_LAYER, COUNTRY_LAYER):
        with start_emulator(tmp_path) as running:
            given = settings(tmp_path, running.url, tmp_path / "cache")
            first = read_layer.fn(given, layer, FROM_EARTH_ENGINE, told)
        again = read_layer.fn(given, layer, FROM_EARTH_ENGINE, told)
        assert again.geometry.geom_equals(first.geometry).all()
        assert again.drop(columns="geometry").equals(first.drop(columns="geometry"))
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 2


def test_layers_of_an_emulator_are_not_kept_unless_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Running
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = len(pages(world))
    for _ in range(2):
        read_layer.fn(settings(tmp_path, world.url, None), COUNTRY_LAYER, FROM_EARTH_ENGINE, told)
    assert len(pages(world)) == before + 2
    assert not (tmp_path / "cache").exists()


def test_pages_that_fail_are_typed_and_nothing_is_kept(tmp_path: Path) -> None:
    with (
        start_emulator(tmp_path, faults="500=1") as running,
        pytest.raises(Transient),
    ):
        read_layer.fn(settings(tmp_path, running.url, tmp_path / "cache"), COUNTRY_LAYER, FROM_EARTH_ENGINE, told)
    assert not (tmp_path / "cache").exists()


def test_a_file_is_read_as_a_file(lsib: Path, tmp_path: Path) -> None:
    frame = read_layer.fn(settings(tmp_path, None, None), COUNTRY_LAYER, str(lsib), told)
    assert len(frame) == 241


def test_without_a_service_a_layer_that_was_never_kept_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Rejected, match="name a Google Cloud project with --project") as caught:
        read_layer.fn(settings(tmp_path, None, None), COUNTRY_LAYER, FROM_EARTH_ENGINE, told)
    assert "\n" not in str(caught.value)
