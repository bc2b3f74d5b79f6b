"""The ecoregions as Earth Engine serves them, for sampling without a file of them."""

from __future__ import annotations

import ee
import geopandas as gpd

from mmearth_data.earthengine.session import EarthEngineSource
from mmearth_data.source import Corrupt

ECOREGIONS = "RESOLVE/ECOREGIONS/2017"
_PAGE_ROWS = 100
"""Polygons per request: their borders are long, and an answer may not exceed 100 MiB."""
_NEEDED = ("ECO_NAME", "BIOME_NAME", "REALM")


def ecoregions(source: EarthEngineSource) -> gpd.GeoDataFrame:
    """RESOLVE Ecoregions 2017 in the table's own order: polygons in EPSG:4326 with the asset's properties.

    ECO_NAME, BIOME_NAME and REALM are among them, and Rock and Ice is one of the rows. Raises Corrupt where the table
    has no such properties.
    """
    rows = source.features(ee.FeatureCollection(ECOREGIONS), page_rows=_PAGE_ROWS)
    if not rows or any(name not in row["properties"] for row in rows for name in _NEEDED):
        raise Corrupt(f"{ECOREGIONS} must have rows with {', '.join(_NEEDED)}; {len(rows)} rows arrived")
    return gpd.GeoDataFrame.from_features(rows, crs="EPSG:4326")
