"""What the archive has, for people: titles, bands and dates of assets, and the products that cover a point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import shapely

from mmearth_data.emulator.assets import Archive, CollectionAsset, FeatureAsset, ImageAsset, TiledImage

_TITLES: dict[str, tuple[str, str]] = {
    "COPERNICUS/S2": ("Sentinel-2 L1C, as delivered", "2016 – 2022"),
    "COPERNICUS/S2_HARMONIZED": ("Sentinel-2 L1C, one offset", "2016 – 2022"),
    "COPERNICUS/S2_SR": ("Sentinel-2 L2A, as delivered", "2017 – 2022"),
    "COPERNICUS/S2_SR_HARMONIZED": ("Sentinel-2 L2A, one offset", "2017 – 2022"),
    "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED": ("Cloud Score+", "2016 – 2022"),
    "GOOGLE/DYNAMICWORLD/V1": ("Dynamic World", "2016 – 2022"),
    "COPERNICUS/S1_GRD": ("Sentinel-1 GRD", "2016 – 2022"),
    "ESA/WorldCover/v100": ("WorldCover 2020", ""),
    "ESA/WorldCover/v200": ("WorldCover 2021", ""),
    "ECMWF/ERA5_LAND/MONTHLY_AGGR": ("ERA5-Land by month", ""),
    "JRC/GHSL/P2023A/GHS_BUILT_S": ("GHSL built-up surface", ""),
    "JRC/GSW1_4/GlobalSurfaceWater": ("Global Surface Water", "1984 – 2021"),
    "users/nlang/ETH_GlobalCanopyHeight_2020_10m_v1": ("Canopy height", "2020"),
    "users/nlang/ETH_GlobalCanopyHeightSD_2020_10m_v1": ("Canopy height, standard deviation", "2020"),
    "projects/sat-io/open-datasets/ASTER/GDEM": ("ASTER elevation", ""),
    "RESOLVE/ECOREGIONS/2017": ("Ecoregions", "2017"),
    "USDOS/LSIB_SIMPLE/2017": ("Countries", "2017"),
}
"""Title and dates (empty where the images themselves tell them, or have none) of the assets that a world has."""
_PROBED = (1_559_347_200_000, 1_622_505_600_000)
"""June 2019 to June 2021: within it, every collection of a world has an image of most places."""
_LISTED = 200
"""Products that are listed of one collection at most; all are counted."""


def _year(time: Any) -> str:
    return str(datetime.fromtimestamp(time / 1000, UTC).year) if isinstance(time, int | float) else ""


def _bands(image: ImageAsset) -> list[str]:
    bands = image.tiles[0].bands if isinstance(image, TiledImage) and image.tiles else image.bands
    return [band.name for band in bands]


def _one(asset: CollectionAsset, probes: Sequence[tuple[float, float]]) -> ImageAsset | None:
    """Any image of a collection."""
    for lon, lat in probes:
        for image in asset.query((lon, lat, lon, lat), *_PROBED):
            return image
    return None


def describe(archive: Archive, ids: Iterable[str], probes: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """Id, kind, title, dates, bands and number of images of each asset; ``probes`` are places with images."""
    return [_described(archive, asset_id, probes) for asset_id in ids]


def _described(archive: Archive, asset_id: str, probes: Sequence[tuple[float, float]]) -> dict[str, Any]:
    title, span = _TITLES.get(asset_id, ("Mounted", ""))
    entry: dict[str, Any] = {"id": asset_id, "title": title, "dates": span, "bands": [], "images": None}
    asset = archive.lookup(asset_id)
    if asset is None or isinstance(asset, FeatureAsset):
        return {**entry, "kind": "table", "images": len(asset.features) if asset is not None else None}
    if isinstance(asset, ImageAsset):
        dates = span or _year(asset.properties.get("system:time_start"))
        return {**entry, "kind": "image", "bands": _bands(asset), "dates": dates}
    sample = _one(asset, probes)
    entry |= {"kind": "collection", "bands": [] if sample is None else _bands(sample)}
    if sample is not None and sample.footprint is None:
        # Images without a footprint are few: they all cover everything.
        images = list(asset.query(None, None, None))
        years = sorted({_year(image.properties.get("system:time_start")) for image in images})
        entry |= {"images": len(images), "dates": years[0] if len(years) == 1 else f"{years[0]} – {years[-1]}"}
    return entry


def products(archive: Archive, ids: Iterable[str], lon: float, lat: float, year: int) -> list[dict[str, Any]]:
    """The images of each collection that cover a point in a calendar year, as filterBounds and filterDate find them."""
    start, end = (int(datetime(when, 1, 1, tzinfo=UTC).timestamp()) * 1000 for when in (year, year + 1))
    point = shapely.Point(lon, lat)
    found = []
    for asset_id in ids:
        asset = archive.lookup(asset_id)
        if asset is None or isinstance(asset, ImageAsset | FeatureAsset):
            continue
        images = [
            image
            for image in asset.query((lon, lat, lon, lat), start, end)
            if image.footprint is None or image.footprint.intersects(point)
        ]
        found.append(
            {"id": asset_id, "title": _TITLES.get(asset_id, ("Mounted", ""))[0], "total": len(images),
             "products": [_product(image) for image in images[:_LISTED]]}
        )  # fmt: skip
    return found


def _product(image: ImageAsset) -> dict[str, Any]:
    return {
        "index": image.id.rpartition("/")[2],
        "time": image.properties.get("system:time_start"),
        "cloud": image.properties.get("CLOUDY_PIXEL_PERCENTAGE"),
        "pass": image.properties.get("orbitProperties_pass"),
    }
