"""Countries: the country and continent of cell centres, from any layer with the columns of Natural Earth."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from sampling.errors import LayerError
from sampling.keyed import IntArray
from sampling.layers import in_degrees, read_layer, repaired

_NAMES = ("ADMIN", "NAME")
_REACH_DEGREES = 0.5
"""Centres off every polygon (coasts and islets that the layer simplifies away) get the nearest country this near."""


def read_countries(path: str | Path) -> gpd.GeoDataFrame:
    """Countries from a vector file, checked; raises LayerError with a one-line remedy."""
    return check_countries(read_layer(path, ("CONTINENT", *_NAMES)), str(path))


def check_countries(frame: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """Valid polygons in EPSG:4326 with columns CONTINENT and ADMIN; ``name`` stands for the layer in messages.

    Raises LayerError where CONTINENT, both of ADMIN and NAME, or the CRS are missing.
    """
    label = next((column for column in _NAMES if column in frame.columns), None)
    if label is None or "CONTINENT" not in frame.columns:
        raise LayerError(f"{name} lacks the columns CONTINENT and ADMIN or NAME; give Natural Earth's countries")
    plain = gpd.GeoDataFrame(
        {"CONTINENT": frame["CONTINENT"].fillna(""), "ADMIN": frame[label].fillna("")},
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
    near, owner = shapely.STRtree(polygons).query_nearest(points[lost], max_distance=_REACH_DEGREES, all_matches=False)
    found[lost[near]] = owner
    return found
