"""The archive's maps: WorldCover, canopy height, elevation, and ERA5-Land's months."""

from __future__ import annotations

from collections.abc import Iterable

from mmearth_data.emulator.assets import BandAsset, ImageAsset, NativeGrid
from mmearth_data.emulator.world.catalogue import dates
from mmearth_data.emulator.world.catalogue.listed import Bounds, ListedCollection
from mmearth_data.emulator.world.scenes import Pixels

_TEN_METRES = 1.0 / 12000.0
WORLDCOVER_GRID = NativeGrid("EPSG:4326", (_TEN_METRES, 0.0, -180.0, 0.0, -_TEN_METRES, 84.0), (1_728_000, 4_320_000))
ELEVATION_GRID = NativeGrid(
    "EPSG:4326",
    (1 / 3600, 0.0, -180.0 - 0.5 / 3600, 0.0, -1 / 3600, 83.0 + 0.5 / 3600),
    (166 * 3600 + 1, 360 * 3600 + 1),
)
"""One arc second, pixel centres on whole arc seconds as in GDEM's tiles."""
CLIMATE_GRID = NativeGrid("EPSG:4326", (0.1, 0.0, -180.05, 0.0, -0.1, 90.05), (1801, 3601))

CANOPY_ID = "users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1"
CANOPY_SD_ID = "users/nlang/ETH_GlobalCanopyHeightSD_2020_10m_v1"
ELEVATION_ID = "projects/sat-io/open-datasets/ASTER/GDEM"
WORLDCOVER_ID, WORLDCOVER_2021_ID = "ESA/WorldCover/v100", "ESA/WorldCover/v200"
CLIMATE_ID = "ECMWF/ERA5_LAND/MONTHLY_AGGR"
_FIRST_YEAR, _LAST_YEAR = 2016, 2022
CLIMATE_VARIABLES = ("temperature_2m", "temperature_2m_min", "temperature_2m_max", "total_precipitation_sum")


def images(pixels: Pixels) -> dict[str, ImageAsset]:
    """Canopy height, its standard deviation and elevation, by asset id."""

    def single(asset_id: str, product: str, dtype: str, grid: NativeGrid) -> ImageAsset:
        band = BandAsset("b1", dtype, grid, pixels.fixed(product, grid))
        return ImageAsset(asset_id, (band,), {"system:index": asset_id.rsplit("/", 1)[1]}, None)

    return {
        CANOPY_ID: single(CANOPY_ID, "canopy", "uint8", WORLDCOVER_GRID),
        CANOPY_SD_ID: single(CANOPY_SD_ID, "canopy_sd", "uint8", WORLDCOVER_GRID),
        ELEVATION_ID: single(ELEVATION_ID, "elevation", "int16", ELEVATION_GRID),
    }


def land_cover(pixels: Pixels) -> dict[str, WorldCoverCollection]:
    """Both versions of WorldCover by asset id."""
    return {
        WORLDCOVER_ID: WorldCoverCollection(WORLDCOVER_ID, "worldcover", 2020, pixels),
        WORLDCOVER_2021_ID: WorldCoverCollection(WORLDCOVER_2021_ID, "worldcover_2021", 2021, pixels),
    }


class WorldCoverCollection:
    """A version of ESA/WorldCover, which is one image: v100 the map of 2020, v200 that of 2021."""

    def __init__(self, asset_id: str, product: str, year: int, pixels: Pixels) -> None:
        self.id, self._index, self._time = asset_id, str(year), dates.ms(year)
        self._image = ImageAsset(
            f"{asset_id}/{year}",
            (BandAsset("Map", "uint8", WORLDCOVER_GRID, pixels.fixed(product, WORLDCOVER_GRID)),),
            {"system:index": self._index, "system:time_start": self._time, "system:time_end": dates.ms(year + 1)},
            None,
        )

    def query(self, bounds: Bounds | None, start: int | None, end: int | None) -> Iterable[ImageAsset]:
        """The image, if its time lies in [start, end) ms."""
        inside = (start is None or self._time >= start) and (end is None or self._time < end)
        return [self._image] if inside else []

    def image(self, index: str) -> ImageAsset | None:
        """The image called by its year, or None."""
        return self._image if index == self._index else None


class ClimateCollection(ListedCollection):
    """ECMWF/ERA5_LAND/MONTHLY_AGGR: one image a month, called YYYYMM."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        months = ((year, month) for year in range(_FIRST_YEAR, _LAST_YEAR + 1) for month in range(1, 13))
        super().__init__(CLIMATE_ID, {f"{year}{month:02d}": self._month(year, month) for year, month in months})

    def _month(self, year: int, month: int) -> ImageAsset:
        index = f"{year}{month:02d}"
        bands = tuple(
            BandAsset(name, "float64", CLIMATE_GRID, self._pixels.monthly(name, year, month, CLIMATE_GRID))
            for name in CLIMATE_VARIABLES
        )
        properties = {
            "system:index": index,
            "system:time_start": dates.ms(year, month),
            "system:time_end": dates.ms(year + month // 12, month % 12 + 1),
            "year": year,
            "month": month,
        }
        return ImageAsset(f"{CLIMATE_ID}/{index}", bands, properties, None)
