"""Countries: the country and continent of cell centres, by Natural Earth's columns or those of Earth Engine's layer.

Continents are called what Natural Earth calls them: Africa, Antarctica, Asia, Europe, North America, Oceania, South
America, and for islands in the middle of an ocean "Seven seas (open ocean)".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from sampling.errors import LayerError
from sampling.keyed import IntArray
from sampling.layers import in_degrees, read_layer, repaired

logger = logging.getLogger(__name__)

_NAMES = ("ADMIN", "NAME")
_LSIB = ("country_na", "wld_rgn")
_SEAS = "Seven seas (open ocean)"
LSIB_CONTINENTS: Mapping[str, str] = MappingProxyType(
    {
        "Africa": "Africa",
        "Antarctica": "Antarctica",
        **dict.fromkeys(("Central Asia", "E Asia", "N Asia", "S Asia", "SE Asia", "SW Asia"), "Asia"),
        "Europe": "Europe",
        **dict.fromkeys(("Caribbean", "Central America", "North America"), "North America"),
        **dict.fromkeys(("Australia", "Oceania"), "Oceania"),
        "South America": "South America",
        **dict.fromkeys(("Indian Ocean", "S Atlantic", "South Atlantic"), _SEAS),
    }
)
"""Continents of the regions (``wld_rgn``) of USDOS/LSIB_SIMPLE/2017.

The catalogue lists no regions: these are what scripts that use the layer ask it for. The layers differ where a country
crosses continents: Natural Earth counts all of Russia to Europe, this one does not.
"""
_REACH_DEGREES = 0.5
"""Centres off every polygon (coasts and islets that the layer simplifies away) get the nearest country this near."""


def read_countries(path: str | Path) -> gpd.GeoDataFrame:
    """Countries from a vector file, checked; raises LayerError with a one-line remedy."""
    return check_countries(read_layer(path, ("CONTINENT", *_NAMES, *_LSIB)), str(path))


def check_countries(frame: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """Valid polygons in EPSG:4326 with columns CONTINENT and ADMIN; ``name`` stands for the layer in messages.

    ``frame`` has CONTINENT and ADMIN or NAME, as Natural Earth has, or country_na and wld_rgn, as
    USDOS/LSIB_SIMPLE/2017 has; a region that is not in ``LSIB_CONTINENTS`` is said and leaves its continent empty.
    Raises LayerError where the columns or the CRS are missing.
    """
    label = next((column for column in _NAMES if column in frame.columns), None)
    if label is not None and "CONTINENT" in frame.columns:
        country, continent = frame[label], frame["CONTINENT"]
    elif all(column in frame.columns for column in _LSIB):
        country, continent = frame["country_na"], frame["wld_rgn"].map(LSIB_CONTINENTS)
        if continent.isna().any():
            unknown = sorted(set(frame.loc[continent.isna(), "wld_rgn"].fillna("none").astype(str)))
            logger.warning("%s has regions of no known continent, left empty: %s", name, ", ".join(unknown))
    else:
        raise LayerError(
            f"{name} lacks the columns CONTINENT and ADMIN or NAME; give Natural Earth's countries, "
            "or USDOS/LSIB_SIMPLE/2017 with country_na and wld_rgn"
        )
    plain = gpd.GeoDataFrame(
        {"CONTINENT": continent.fillna(""), "ADMIN": country.fillna("")},
        geometry=frame.geometry.to_numpy(),
        crs=frame.crs,
    )
    return repaired(in_degrees(plain, name))[0]


def countries_at(points: npt.NDArray[np.object_], countries: gpd.GeoDataFrame) -> IntArray:
    """The position in ``countries`` of the country of each point in degrees, −1 far from every country, shape (n,)."""
    polygons = countries.geometry.to_numpy()
    found = np.full(len(points), -1, dtype=np.int64)
    # The tree holds the points and the polygons ask, since shapely prepares what asks. Assigned backwards, a point
    # on a border stays with the first country.
    owner, member = shapely.STRtree(points).query(polygons, predicate="intersects")
    found[member[::-1]] = owner[::-1]
    lost = np.flatnonzero(found < 0)
    # Parts one by one have tight bounds and short borders, which is what makes a search for the nearest quick.
    parts, whole = shapely.get_parts(polygons, return_index=True)
    near, part = shapely.STRtree(parts).query_nearest(points[lost], max_distance=_REACH_DEGREES, all_matches=False)
    found[lost[near]] = whole[part]
    return found
