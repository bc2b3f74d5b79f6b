"""An export as the published pipeline writes one, call by call, gives the pixels of our own single request."""

from __future__ import annotations

import io
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any

import ee
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from mmearth_data import grid
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.modalities import MODALITIES
from mmearth_data.source import Acquisition, Location, Tile
from tests.emulated import start_emulator

PLACES = ((10.4, 48.3), (-98.9, 39.4), (25.3, -20.2), (-60.4, -10.3))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EarthEngineSource]:
    with start_emulator(tmp_path_factory.mktemp("log")) as running:
        yield connect(None, running.url)


@pytest.fixture(scope="module")
def tiles(source: EarthEngineSource) -> list[Tile]:
    """Our export of the first product of each place."""
    ids = grid.cells_at(*(np.array(values) for values in zip(*PLACES, strict=True)))
    resolved = source.resolve([Location(int(cell), 2020) for cell in ids])
    return [source.fetch(entry.acquisitions[0]) for entry in resolved if entry.acquisitions][:2]


class Published:
    """The calls of the published exporter for one tile: one image per source, stacked, then downloaded."""

    def __init__(self, acquisition: Acquisition) -> None:
        cell = grid.decode(acquisition.location_id)
        self.acquisition, self.size = acquisition, 10 * int(cell.pixels[0])
        self.crs, self.x0, self.y0 = f"EPSG:{int(cell.epsg[0])}", int(cell.x0[0]), int(cell.y0[0])
        middle = [self.x0 + self.size / 2, self.y0 - self.size / 2]
        self.point = ee.Geometry.Point(middle, self.crs)
        self.region = self.point.buffer(self.size / 2, 1, self.crs).bounds(1, self.crs)
        self.when = ee.Date(acquisition.time)

    def product(self) -> ee.Image:
        """The same product, found as a list of the day's scenes."""
        name = "COPERNICUS/S2_SR_HARMONIZED" if self.acquisition.level == "L2A" else "COPERNICUS/S2_HARMONIZED"
        scenes = ee.ImageCollection(name).filterBounds(self.region)
        scenes = scenes.filterDate(self.when.advance(-1, "day"), self.when.advance(1, "day"))
        scenes = scenes.filter(
            ee.Filter.And(ee.Filter.lt("CLOUDY_PIXEL_PERCENTAGE", 10), ee.Filter.notNull(["system:index"]))
        )
        listed = scenes.toList(scenes.size())
        names = listed.map(lambda image: ee.Image(image).get("system:index"))
        return ee.Image(listed.get(names.indexOf(self.acquisition.sentinel2_id.rpartition("/")[2])))

    def sentinel2(self, bands: tuple[str, ...]) -> ee.Image:
        """20 and 60 m bands interpolated onto the grid of the 10 m ones."""
        image = self.product().select(list(bands))
        grid10 = self.product().select("B2").projection()
        fine = [band for band in bands if band in ("B2", "B3", "B4", "B8")]
        coarse = [band for band in bands if band not in fine]
        smooth = image.select(coarse).resample("bilinear").reproject(grid10)
        return image.select(fine).addBands(smooth).select(list(bands)).round().max(1).unmask(0, False).toUint16()

    def dynamic_world(self) -> ee.Image:
        """The mode of the year's labels, plus one; 0 where there is none."""
        year = self.when.get("year").getInfo()
        labels = ee.ImageCollection("GOOGLE/DYNAMICWORLD/V1").filterBounds(self.region)
        labels = labels.filterDate(f"{year}-01-01", f"{year + 1}-01-01").select("label")
        return labels.reduce(ee.Reducer.mode()).rename("label").add(1).unmask(0, False).toUint8()

    def worldcover(self) -> ee.Image:
        """The map's only image, by way of a list."""
        only = ee.ImageCollection("ESA/WorldCover/v100").toList(1).get(0)
        return ee.Image(only).select("Map").unmask(0, False).toUint8()

    def aster(self) -> ee.Image:
        """Elevation, interpolated."""
        image = ee.Image("projects/sat-io/open-datasets/ASTER/GDEM").resample("bilinear")
        return image.round().unmask(-32768, False).toInt16().rename("elevation")

    def download(self, image: ee.Image) -> dict[str, NDArray[Any]]:
        """Every band by a zipped GeoTIFF per band, as getDownloadURL hands it out."""
        clipped = image.clip(self.region)
        asked = {"crs": self.crs, "crs_transform": [10, 0, self.x0, 0, -10, self.y0], "filePerBand": True}
        url = clipped.getDownloadURL({**asked, "dimensions": [self.size // 10, self.size // 10]})
        with urllib.request.urlopen(url, timeout=60) as answer:
            archive = zipfile.ZipFile(io.BytesIO(answer.read()))
        bands = {}
        for name in archive.namelist():
            with rasterio.MemoryFile(archive.read(name)) as memory, memory.open() as file:
                assert tuple(file.transform)[:6] == (10, 0, self.x0, 0, -10, self.y0)
                assert file.crs.to_string() == self.crs
                bands[name.split(".")[-2]] = file.read(1)
        return bands


def test_the_published_calls_give_the_pixels_of_our_export(tiles: list[Tile]) -> None:
    assert len(tiles) == 2
    for tile in tiles:
        published = Published(tile.acquisition)
        modality = MODALITIES["sentinel2"]
        bands = tile.acquisition.available(modality)
        stack = ee.ImageCollection.fromImages(
            [published.sentinel2(bands).toInt32(), published.dynamic_world().toInt32(),
             published.worldcover().toInt32(), published.aster().toInt32()]
        ).toBands()  # fmt: skip
        # An image of an asset keeps its index within the stack, others are numbered.
        got = {name.partition("_")[2]: pixels for name, pixels in published.download(stack).items()}
        for index, band in enumerate(modality.bands):
            if band in bands:
                np.testing.assert_array_equal(got[band], tile.pixels["sentinel2"][index], band)
        np.testing.assert_array_equal(got["label"], tile.pixels["dynamic_world"][0])
        np.testing.assert_array_equal(got["Map"], tile.pixels["esa_worldcover"][0])
        np.testing.assert_array_equal(got["elevation"], tile.pixels["aster"][0])
