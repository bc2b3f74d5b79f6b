"""Ecoregions: the polygons that say which biome and ecoregion a place belongs to, keyed by name.

Source: RESOLVE Ecoregions 2017 (Dinerstein et al. 2017, doi:10.1093/biosci/bix014), from a vector file or as rows
fetched from Earth Engine (RESOLVE/ECOREGIONS/2017). Numbers are ignored: "Rock and Ice" bears Tundra's biome number,
and copies of the layer are ordered differently.
"""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from mmearth_data.grid import NORTHERN_LIMIT, SOUTHERN_LIMIT, FloatArray
from mmearth_data.modalities import ECOREGION_BIOME, ECOREGION_NAMES, ROCK_AND_ICE
from sampling.errors import LayerError
from sampling.layers import in_degrees, read_layer, repaired

logger = logging.getLogger(__name__)

COLUMNS = ("ECO_NAME", "BIOME_NAME", "REALM")
_EARTH_RADIUS_KM = 6371.0072
"""Radius of the sphere with the area of the WGS 84 ellipsoid."""
_CLASS = {name: index for index, name in enumerate(ECOREGION_NAMES)}


def read_ecoregions(path: str | Path) -> gpd.GeoDataFrame:
    """Ecoregions from a vector file, checked; raises LayerError with a one-line remedy."""
    return check_ecoregions(read_layer(path, COLUMNS), str(path))


def check_ecoregions(frame: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """One valid polygon per ecoregion, in class order, EPSG:4326, columns ``COLUMNS`` and geometry.

    ``frame`` has at least these columns and a CRS; "Rock and Ice" is dropped, rows of one ecoregion are united,
    invalid polygons are repaired and counted in ``attrs["repaired"]``. ``name`` stands for the layer in messages.
    Raises LayerError for missing columns, no CRS, unknown names or an ecoregion without area.
    """
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise LayerError(
            f"{name} lacks the columns {', '.join(missing)}; give RESOLVE Ecoregions 2017 with {', '.join(COLUMNS)}"
        )
    kept = frame.loc[frame["ECO_NAME"] != ROCK_AND_ICE, [*COLUMNS, frame.geometry.name]]
    if kept.geometry.name != "geometry":
        kept = kept.rename_geometry("geometry")
    kept = kept.reset_index(drop=True)
    if kept.empty:
        raise LayerError(f"{name} holds no ecoregion; give RESOLVE Ecoregions 2017")
    _check_names(kept, name)
    kept, count = repaired(in_degrees(kept, name))
    if count:
        logger.warning("repaired %d invalid polygons of %s", count, name)
    kept = _united(kept)
    empty = kept.loc[~(shapely.area(kept.geometry.to_numpy()) > 0), "ECO_NAME"]
    if len(empty):
        raise LayerError(f"{name}: ecoregion {empty.iloc[0]!r} has no area; give it a polygon or remove its row")
    kept = kept.sort_values("ECO_NAME", key=lambda names: names.map(_CLASS)).reset_index(drop=True)
    kept.attrs["repaired"] = count + frame.attrs.get("repaired", 0)
    return kept


def _check_names(frame: gpd.GeoDataFrame, name: str) -> None:
    unknown = sorted(set(frame["ECO_NAME"].astype(str)) - set(ECOREGION_NAMES))
    if unknown:
        raise LayerError(
            f"{name} has {len(unknown)} unknown ecoregions such as {unknown[0]!r}; ECO_NAME must be RESOLVE 2017's"
        )
    moved = frame.loc[frame["ECO_NAME"].map(ECOREGION_BIOME) != frame["BIOME_NAME"]]
    if len(moved):
        row = moved.iloc[0]
        raise LayerError(
            f"{name} puts {row['ECO_NAME']!r} into biome {row['BIOME_NAME']!r}; "
            f"in RESOLVE 2017 it is {ECOREGION_BIOME[row['ECO_NAME']]!r}"
        )


def _united(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """One row per ecoregion: rows that share a name are merged into the union of their polygons."""
    if not frame["ECO_NAME"].duplicated().any():
        return frame
    return frame.dissolve(by="ECO_NAME", aggfunc="first", as_index=False)[[*COLUMNS, "geometry"]]


def areas(frame: gpd.GeoDataFrame) -> FloatArray:
    """Area in km² of each ecoregion, shape (n,), by Lambert's cylindrical projection."""
    return _areas(frame.geometry.to_numpy())


def covered_areas(frame: gpd.GeoDataFrame) -> FloatArray:
    """Area in km² of each ecoregion within Sentinel-2's coverage, shape (n,)."""
    geometry = frame.geometry.to_numpy()
    bounds = shapely.bounds(geometry)
    beyond = (bounds[:, 1] < SOUTHERN_LIMIT) | (bounds[:, 3] > NORTHERN_LIMIT)
    geometry = geometry.copy()
    geometry[beyond] = shapely.intersection(geometry[beyond], shapely.box(-180, SOUTHERN_LIMIT, 180, NORTHERN_LIMIT))
    return _areas(geometry)


def _areas(polygons: npt.NDArray[np.object_]) -> FloatArray:
    flat = shapely.transform(
        polygons, lambda points: np.column_stack([np.radians(points[:, 0]), np.sin(np.radians(points[:, 1]))])
    )
    result: FloatArray = shapely.area(flat) * _EARTH_RADIUS_KM**2
    return result
