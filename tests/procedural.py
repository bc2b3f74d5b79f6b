"""The procedural Earth's archive and random places on it, for tests of what its pixels show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import shapely
from pyproj import Transformer

from mmearth_data.emulator.assets import Archive, BandAsset, CollectionAsset, FeatureAsset, ImageAsset
from mmearth_data.emulator.world import build

Y2019, Y2020 = 1_546_300_800_000, 1_577_836_800_000
L2A = "COPERNICUS/S2_SR_HARMONIZED"
FOREST = "Temperate Broadleaf & Mixed Forests"


@cache
def earth(copy: int = 0) -> Archive:
    """The archive; another ``copy`` is built anew."""
    return build("earth", 0)


def collection(asset_id: str, copy: int = 0) -> CollectionAsset:
    found = earth(copy).lookup(asset_id)
    assert found is not None
    assert not isinstance(found, ImageAsset | FeatureAsset)
    return found


def image(asset_id: str) -> ImageAsset:
    found = earth().lookup(asset_id)
    assert isinstance(found, ImageAsset)
    return found


def band(of: ImageAsset, name: str) -> BandAsset:
    return next(b for b in of.bands if b.name == name)


@dataclass(frozen=True)
class Place:
    """A 1280 m square inside a tile, in pixels of 10 m from the tile's corner (multiples of 6, so of every grid)."""

    product: ImageAsset
    row: int
    column: int

    def read(self, name: str, of: ImageAsset | None = None, size: int = 132) -> tuple[np.ndarray, np.ndarray]:
        chosen = band(of or self.product, name)
        step = round(chosen.grid.transform[0] / 10)
        return chosen.read(self.row // step, self.column // step, size // step, size // step)

    def centres(self, size: int = 132) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of the 10 m pixels."""
        grid = band(self.product, "B2").grid
        x = grid.transform[2] + 10.0 * (self.column + np.arange(size) + 0.5)
        y = grid.transform[5] - 10.0 * (self.row + np.arange(size) + 0.5)
        return Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))


@cache
def places(biome: str, count: int, seed: int = 3, level: str = L2A, most_cloud: float = 100.0) -> tuple[Place, ...]:
    """Random places on land of a biome, each in a product of 2019."""
    table = earth().lookup("RESOLVE/ECOREGIONS/2017")
    assert isinstance(table, FeatureAsset)
    land = shapely.union_all([g for g, p in table.features if p["BIOME_NAME"] == biome])
    rng = np.random.default_rng(seed)
    west, south, east, north = land.bounds
    found: list[Place] = []
    while len(found) < count:
        lon, lat = rng.uniform(west, east), rng.uniform(max(south, -55), min(north, 80))
        if not land.contains(shapely.Point(lon, lat)):
            continue
        products = [
            p
            for p in collection(level).query((lon, lat, lon, lat), Y2019, Y2020)
            if p.properties["CLOUDY_PIXEL_PERCENTAGE"] <= most_cloud and p.footprint is not None
            and p.footprint.buffer(-0.05).contains(shapely.Point(lon, lat))
        ]  # fmt: skip
        if not products:
            continue
        product = products[int(rng.integers(len(products)))]
        grid = band(product, "B2").grid
        x, y = Transformer.from_crs(4326, grid.crs, always_xy=True).transform(lon, lat)
        row, column = int((grid.transform[5] - y) // 10) // 6 * 6, int((x - grid.transform[2]) // 10) // 6 * 6
        if 0 <= row < 10_800 and 0 <= column < 10_800:
            found.append(Place(product, row, column))
    return tuple(found)


def sample(of: ImageAsset, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Nearest pixels of a map in degrees, its window found by plain arithmetic."""
    asset = of.bands[0]
    a, _, c, _, e, f = asset.grid.transform
    rows, columns = np.floor((lat - f) / e).astype(int), np.floor((lon - c) / a).astype(int)
    top, left = rows.min(), columns.min()
    values, _ = asset.read(int(top), int(left), int(rows.max() - top + 1), int(columns.max() - left + 1))
    return values[rows - top, columns - left]
