"""Ecoregions and countries as Earth Engine serves them, for sampling without files of them.

Borders are simplified on the server, which makes of hundreds of megabytes a few tens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ee
import geopandas as gpd

from mmearth_data.earthengine.errors import TooLarge
from mmearth_data.earthengine.session import EarthEngineSource
from mmearth_data.source import Corrupt

logger = logging.getLogger(__name__)

ECOREGIONS = "RESOLVE/ECOREGIONS/2017"
COUNTRIES = "USDOS/LSIB_SIMPLE/2017"
BORDER_METRES = 100.0
"""How far simplified borders may be off: a thirteenth of a tile's edge, and what LSIB is off by already."""
_PAGE_ROWS = (100, 25, 5)
"""Polygons per request, fewer where the service cannot finish them at once; an answer may not exceed 100 MiB."""
_NEEDED = {ECOREGIONS: ("ECO_NAME", "BIOME_NAME", "REALM"), COUNTRIES: ("country_na", "wld_rgn")}

OnRows = Callable[[int], None]


def ecoregions(
    source: EarthEngineSource, max_error: float | None = None, on_rows: OnRows | None = None
) -> gpd.GeoDataFrame:
    """RESOLVE Ecoregions 2017 in the table's own order: polygons in EPSG:4326 with the asset's properties.

    ECO_NAME, BIOME_NAME and REALM are among them, and Rock and Ice is one of the rows. Borders are simplified to within
    ``max_error`` metres, or as the asset has them; ``on_rows`` is told after every page how many rows have arrived.
    Raises Corrupt where the table has no such properties.
    """
    return _polygons(source, ECOREGIONS, max_error, on_rows)


def countries(
    source: EarthEngineSource, max_error: float | None = None, on_rows: OnRows | None = None
) -> gpd.GeoDataFrame:
    """LSIB 2017 simplified, as ``ecoregions`` is served: country_na and wld_rgn are among its properties.

    A country has one row or several. Source: the catalogue's page of USDOS/LSIB_SIMPLE/2017.
    """
    return _polygons(source, COUNTRIES, max_error, on_rows)


def _polygons(
    source: EarthEngineSource, asset: str, max_error: float | None, on_rows: OnRows | None
) -> gpd.GeoDataFrame:
    table = ee.FeatureCollection(asset)
    if max_error is not None:
        table = table.map(lambda feature: feature.simplify(max_error))
    rows = _pages(source, table, on_rows)
    needed = _NEEDED[asset]
    if not rows or any(name not in row["properties"] for row in rows for name in needed):
        raise Corrupt(f"{asset} must have rows with {', '.join(needed)}; {len(rows)} rows arrived")
    return gpd.GeoDataFrame.from_features(rows, crs="EPSG:4326")


def _pages(source: EarthEngineSource, table: ee.FeatureCollection, on_rows: OnRows | None) -> list[dict[str, Any]]:
    *larger, least = _PAGE_ROWS
    for page_rows in larger:
        try:
            return source.features(table, page_rows, on_rows)
        except TooLarge as error:
            logger.info("asking for fewer than %d polygons at once: %s", page_rows, error)
    return source.features(table, least, on_rows)
