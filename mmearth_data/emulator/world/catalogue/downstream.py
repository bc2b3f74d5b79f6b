"""The archive's maps of water and settlement: Global Surface Water, and the Global Human Settlement Layer's epochs."""

from __future__ import annotations

from shapely.geometry import box

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world import built_up, water_history
from mmearth_data.emulator.world.catalogue import dates
from mmearth_data.emulator.world.catalogue.listed import ListedCollection
from mmearth_data.emulator.world.scenes import Pixels

WATER_ID = "JRC/GSW1_4/GlobalSurfaceWater"
BUILT_ID = "JRC/GHSL/P2023A/GHS_BUILT_S"
WATER_GRID = NativeGrid("EPSG:4326", (0.00025, 0.0, -180.0, 0.0, -0.00025, 80.0), (560_000, 1_440_000))
"""30 m, from 80° N to 60° S."""
_MAPPED = box(-180.0, -60.0, 180.0, 80.0)
BUILT_GRID = NativeGrid("ESRI:54009", (100.0, 0.0, -18_041_000.0, 0.0, -100.0, 9_000_000.0), (180_000, 360_820))
"""100 m in the Mollweide projection on WGS 84."""
EPOCHS = tuple(range(1975, 2031, 5))


def water(pixels: Pixels) -> ImageAsset:
    """JRC/GSW1_4/GlobalSurfaceWater: one image of seven layers."""
    bands = tuple(
        BandAsset(band, dtype, WATER_GRID, pixels.water_history(band, WATER_GRID))
        for band, dtype in water_history.BANDS.items()
    )
    return ImageAsset(WATER_ID, bands, {"system:index": "GlobalSurfaceWater"}, _MAPPED)


class BuiltCollection(ListedCollection):
    """JRC/GHSL/P2023A/GHS_BUILT_S: one image every five years, called by its year."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        super().__init__(BUILT_ID, {str(year): self._epoch(year) for year in EPOCHS})

    def _epoch(self, year: int) -> ImageAsset:
        bands = tuple(
            BandAsset(band, "uint16", BUILT_GRID, self._pixels.built_up(band, year, BUILT_GRID))
            for band in built_up.BANDS
        )
        properties = {
            "system:index": str(year),
            "system:time_start": dates.ms(year),
            "system:time_end": dates.ms(year + 1),
        }
        return ImageAsset(f"{BUILT_ID}/{year}", bands, properties, None)
