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

PUBLISHED = (
    "sentinel2", "sentinel2_cloudmask", "sentinel2_cloudprod", "sentinel2_scl", "sentinel1", "aster", "dynamic_world",
    "canopy_height_eth", "esa_worldcover",
)  # fmt: skip
PREFIXES = {"ASCENDING": "asc", "DESCENDING": "desc"}
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
        return labels.reduce(ee.Reducer.mode()).rename("landcover").add(1).unmask(0, False).toUint8()

    def worldcover(self) -> ee.Image:
        """The map's only image, by way of a list."""
        only = ee.ImageCollection("ESA/WorldCover/v100").toList(1).get(0)
        return ee.Image(only).select(["Map"], ["map"]).unmask(0, False).toUint8()

    def aster(self) -> ee.Image:
        """Elevation and its slope in hundredths of a degree, interpolated."""
        elevation = ee.Image("projects/sat-io/open-datasets/ASTER/GDEM")
        slope = ee.Terrain.slope(elevation).resample("bilinear").multiply(100)
        image = elevation.resample("bilinear").rename("elevation").addBands(slope)
        return image.round().unmask(-32768, False).toInt16()

    def canopy(self) -> ee.Image:
        """Height and its standard deviation from two images, interpolated."""
        images = [ee.Image(f"users/nlang/ETH_GlobalCanopyHeight{kind}_2020_10m_v1") for kind in ("", "SD")]
        stack = images[0].rename("height").addBands(images[1].rename("std")).resample("bilinear")
        return stack.round().unmask(255, False).toUint8()

    def sentinel1(self, passes: str, polarisations: tuple[str, ...]) -> ee.Image:
        """Hundredths of dB of the nearest image in time of a direction, found by sorting on how far apart they are."""
        scenes = ee.ImageCollection("COPERNICUS/S1_GRD").filterBounds(self.point)
        scenes = scenes.filterDate(self.when.advance(-30, "day"), self.when.advance(30, "day"))
        scenes = scenes.filter(ee.Filter.eq("instrumentMode", "IW"))
        scenes = scenes.filter(ee.Filter.eq("orbitProperties_pass", passes))
        apart = scenes.map(lambda image: image.set("apart", image.date().difference(self.when, "day").abs()))
        names = [f"{PREFIXES[passes]}_{band}" for band in polarisations]
        image = ee.Image(apart.sort("apart").first()).select(list(polarisations), names).resample("bilinear")
        return image.multiply(100).round().unmask(-32768, False).toInt16()

    def masks(self) -> ee.Image:
        """The product's own classes and cloud probabilities, where it has them."""
        names = [name for name in ("SCL", "MSK_CLDPRB") if name in self.acquisition.bands]
        quality = self.product().select("QA60").unmask(65535, False).toUint16()
        return quality.addBands(self.product().select(names).unmask(255, False).toUint8()) if names else quality

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
    assert any(tile.acquisition.ascending or tile.acquisition.descending for tile in tiles)
    for tile in tiles:
        published = Published(tile.acquisition)
        bands = tile.acquisition.available(MODALITIES["sentinel2"])
        radar = [
            published.sentinel1(passes, found.polarisations)
            for passes, found in (
                ("ASCENDING", tile.acquisition.ascending),
                ("DESCENDING", tile.acquisition.descending),
            )
            if found is not None
        ]
        sources = [
            published.sentinel2(bands), published.dynamic_world(), published.worldcover(), published.aster(),
            published.canopy(), published.masks(), *radar,
        ]  # fmt: skip
        stack = ee.ImageCollection.fromImages([source.toInt32() for source in sources]).toBands()
        got = published.download(stack)
        wanted = {
            band: tile.pixels[name][index]
            for name, modality in MODALITIES.items()
            if name in PUBLISHED
            for index, band in enumerate(modality.bands)
            if band in tile.acquisition.available(modality)
        }
        assert len(got) == len(wanted) > 20
        for band, expected in wanted.items():
            # Within the stack a band follows the index of its image.
            (pixels,) = (values for name, values in got.items() if name.endswith(f"_{band}"))
            np.testing.assert_array_equal(pixels, expected, band)
