"""Mounting real files: what is read, and what a bad path or sidecar is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from mmearth_data.emulator.assets import FeatureAsset, ImageAsset, TiledImage
from mmearth_data.emulator.errors import EmulatorError
from mmearth_data.emulator.mounts import Folder, Mounted, read_mounts
from tests.emulated import SmallArchive

SIDECAR: dict[str, Any] = {"id": "a", "time": "2019-06-01", "bands": ["x", "y"], "properties": {"cloud": 3}}


def _tif(path: Path, epsg: int | None = 32633, west: float = 300000.0, nodata: float | None = None) -> np.ndarray:
    data = np.arange(2 * 6 * 8, dtype=np.int16).reshape(2, 6, 8)
    path.parent.mkdir(exist_ok=True)
    transform = Affine(10, 0, west, 0, -10, 6200000)
    profile: dict[str, Any] = {"driver": "GTiff", "count": 2, "height": 6, "width": 8, "dtype": "int16"}
    crs = None if epsg is None else f"EPSG:{epsg}"
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile) as file:
        file.write(data)
    return data


def _sidecar(path: Path, **changes: Any) -> None:
    content = {key: value for key, value in {**SIDECAR, **changes}.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(content))


def test_a_folder_is_a_collection_in_order_of_index(tmp_path: Path) -> None:
    data = _tif(tmp_path / "2.tif")
    _sidecar(tmp_path / "2.tif", id="a")
    _tif(tmp_path / "1.tif")
    _sidecar(tmp_path / "1.tif", id="b", time=1_600_000_000_000)
    folder = read_mounts([f"my/assets={tmp_path}"])["my/assets"]
    assert isinstance(folder, Folder)
    assert [image.id for image in folder.query(None, None, None)] == ["my/assets/a", "my/assets/b"]
    assert [image.id for image in folder.query(None, 1_600_000_000_000, None)] == ["my/assets/b"]
    assert list(folder.query((0, 0, 1, 1), None, None)) == []
    image = folder.image("a")
    assert image is not None
    assert image.properties == {"cloud": 3, "system:time_start": 1559347200000}
    assert [(band.name, band.dtype, band.grid.shape) for band in image.bands] == [
        ("x", "int16", (6, 8)),
        ("y", "int16", (6, 8)),
    ]
    values, valid = image.bands[1].read(2, 3, 4, 5)
    np.testing.assert_array_equal(values, data[1, 2:6, 3:8])
    assert valid.all()
    assert folder.image("c") is None


@pytest.mark.parametrize(("in_file", "in_sidecar"), [(5, None), (None, 5), (7, 5)])
def test_nodata_of_the_file_and_of_the_sidecar_mask_pixels(
    tmp_path: Path, in_file: float | None, in_sidecar: float | None
) -> None:
    data = _tif(tmp_path / "a.tif", nodata=in_file)
    _sidecar(tmp_path / "a.tif", image=True, nodata=in_sidecar)
    image = read_mounts([f"x={tmp_path}"])["x"]
    assert isinstance(image, ImageAsset)
    _, valid = image.bands[0].read(0, 0, 6, 8)
    np.testing.assert_array_equal(valid, ~np.isin(data[0], [v for v in (in_file, in_sidecar) if v is not None]))


def test_files_of_one_id_are_the_tiles_of_one_image(tmp_path: Path) -> None:
    for name, west in (("a", 300000.0), ("b", 300080.0)):
        _tif(tmp_path / f"{name}.tif", west=west)
        _sidecar(tmp_path / f"{name}.tif", id="same")
    folder = read_mounts([f"x={tmp_path}"])["x"]
    assert isinstance(folder, Folder)
    (image,) = folder.query(None, None, None)
    assert isinstance(image, TiledImage)
    assert len(image.tiles) == 2
    assert image.footprint is not None
    assert image.footprint.covers(shapely.union_all([tile.footprint for tile in image.tiles]).buffer(-1e-9))


def test_a_mount_hides_the_worlds_asset_and_no_other(tmp_path: Path) -> None:
    _tif(tmp_path / "a.tif")
    _sidecar(tmp_path / "a.tif")
    beneath = SmallArchive([FeatureAsset("x", ()), FeatureAsset("other", ())])
    archive = Mounted(beneath, read_mounts([f"x={tmp_path}"]))
    assert isinstance(archive.lookup("x"), Folder)
    image = archive.lookup("x/a")
    assert isinstance(image, ImageAsset)
    assert archive.lookup("x/b") is None
    assert isinstance(archive.lookup("other"), FeatureAsset)


def test_real_vector_files_are_tables_in_degrees(shared_data: Path) -> None:
    ecoregions = shared_data / "ecoregions2017" / "Ecoregions2017.shp"
    countries = shared_data / "natural_earth" / "ne_50m_admin_0_countries.shp"
    assets = read_mounts([f"RESOLVE/ECOREGIONS/2017={ecoregions}", f"countries={countries}"])
    for asset, path in zip(assets.values(), (ecoregions, countries), strict=True):
        assert isinstance(asset, FeatureAsset)
        frame = gpd.read_file(path)
        assert len(asset.features) == len(frame)
        for (shape, properties), row in zip(asset.features, frame.itertuples(index=False), strict=True):
            assert shape.equals_exact(row.geometry)
            assert set(properties) == set(frame.columns) - {"geometry"}
    shape, properties = assets["RESOLVE/ECOREGIONS/2017"].features[10]
    assert type(properties["BIOME_NUM"]) in (int, float)


def test_a_vector_file_in_another_crs_is_unprojected(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(
        {"when": ["2020-01-01", None], "size": [1.5, None]}, geometry=gpd.points_from_xy([10, 11], [50, 51]), crs=4326
    )
    frame["when"] = gpd.pd.to_datetime(frame["when"])
    frame.to_crs(25832).to_file(tmp_path / "a.gpkg")
    asset = read_mounts([f"x={tmp_path / 'a.gpkg'}"])["x"]
    assert isinstance(asset, FeatureAsset)
    assert [properties for _, properties in asset.features] == [
        {"when": 1577836800000, "size": 1.5},
        {"when": None, "size": None},
    ]
    np.testing.assert_allclose([shape.coords[0] for shape, _ in asset.features], [(10, 50), (11, 51)], atol=1e-8)


def _break(folder: Path, how: str) -> str:
    """A broken mount and the pattern of what it is told."""
    file = folder / "a.tif"
    _tif(file, epsg=None if how == "crs" else 32633)
    _sidecar(file)
    match how:
        case "crs":
            return "has no CRS with an EPSG code; assign one"
        case "missing sidecar":
            file.with_suffix(".json").unlink()
            return "has no sidecar a.json; write one"
        case "not json":
            file.with_suffix(".json").write_text("{")
            return "is not JSON .*; correct it"
        case "no bands":
            _sidecar(file, bands=None)
            return "must be a JSON object with a list 'bands'"
        case "too few bands":
            _sidecar(file, bands=["x"])
            return "has 2 bands, its sidecar names 1"
        case "no id":
            _sidecar(file, id=None)
            return "needs an 'id' without a slash; got None"
        case "bad time":
            _sidecar(file, time="June")
            return "has no valid 'time'"
        case "unknown key":
            _sidecar(file, colour="red")
            return "unknown key 'colour'; use bands"
        case "no geotiff":
            file.write_text("not a raster")
            return "cannot read .*a.tif"
        case "half an image":
            _tif(folder / "b.tif")
            _sidecar(folder / "b.tif", image=True)
            return "make them agree"
        case "tiles that differ":
            _tif(folder / "b.tif")
            _sidecar(folder / "b.tif", bands=["x", "z"])
            return "have different bands"
        case _:
            file.unlink()
            return "holds no .tif file"


@pytest.mark.parametrize(
    "how",
    [
        "crs",
        "missing sidecar",
        "not json",
        "no bands",
        "too few bands",
        "no id",
        "bad time",
        "unknown key",
        "no geotiff",
        "half an image",
        "tiles that differ",
        "empty",
    ],
)
def test_a_broken_folder_is_one_line_with_the_remedy(tmp_path: Path, how: str) -> None:
    message = _break(tmp_path / "folder", how)
    with pytest.raises(EmulatorError, match=message) as caught:
        read_mounts([f"x={tmp_path / 'folder'}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mounts", "message"),
    [
        (["x"], "'x' is not ASSET=PATH; write e.g."),
        (["x=/no/such/place"], "/no/such/place does not exist"),
        (["x={}/notes.txt"], "cannot read .*notes.txt"),
        (["x={}/rows.csv"], "has rows without geometry"),
        (["x={}/fine", "x={}/fine"], "x is mounted twice"),
    ],
)
def test_a_bad_mount_is_one_line_with_the_remedy(tmp_path: Path, mounts: list[str], message: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    _tif(tmp_path / "fine" / "a.tif")
    _sidecar(tmp_path / "fine" / "a.tif")
    with pytest.raises(EmulatorError, match=message) as caught:
        read_mounts([mount.format(tmp_path) for mount in mounts])
    assert "\n" not in str(caught.value)
