"""Vector layers: read the columns that are needed, or say in one line why the file cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FieldError

from sampling.errors import LayerError

_FORMATS = "give a vector file that GDAL reads, such as Shapefile, GeoPackage or GeoJSON"
_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def read_layer(path: str | Path, columns: Sequence[str]) -> gpd.GeoDataFrame:
    """The first layer of a vector file with those of ``columns`` that it has; raises LayerError."""
    file = Path(path)
    if not file.exists():
        raise LayerError(f"{file} does not exist; {_FORMATS}")
    try:
        if not len(pyogrio.list_layers(file)):
            raise LayerError(f"{file} holds no layer; {_FORMATS}")
        info = pyogrio.read_info(file)
        present = [name for name in columns if name in info["fields"]]
        frame = pyogrio.read_dataframe(file, columns=present)
    except (DataSourceError, DataLayerError, FieldError) as error:
        reason = str(error).split(";")[0].replace("\n", " ")
        raise LayerError(f"{file} is not a vector file ({reason}); {_FORMATS}") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LayerError(f"{file} has no geometry; give a layer of polygons")
    return frame


def in_degrees(frame: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """The layer in EPSG:4326 with longitudes within ±180; raises LayerError without a CRS or off the globe."""
    if frame.crs is None:
        raise LayerError(f"{name} has no CRS; add its .prj, or convert it with: ogr2ogr -a_srs EPSG:4326 OUT IN")
    result = frame.to_crs("EPSG:4326")
    bounds = result.geometry.bounds.to_numpy()
    seen = bounds[~np.isnan(bounds).any(axis=1)]
    if not np.isfinite(seen).all() or (np.abs(seen[:, [1, 3]]) > 90.001).any() or (np.abs(seen) > 540).any():
        raise LayerError(f"{name} has coordinates off the globe; check that its CRS is the one it was drawn in")
    beyond = (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    if beyond.any():
        geometry = result.geometry.to_numpy().copy()
        geometry[beyond] = [_wrapped(shape) for shape in geometry[beyond]]
        result = result.set_geometry(gpd.GeoSeries(geometry, index=result.index, crs="EPSG:4326"))
    return result


def _wrapped(shape: shapely.Geometry) -> shapely.Geometry:
    """A shape that crosses the antimeridian by longitudes beyond ±180, cut there and moved to within ±180."""
    parts = [
        shapely.transform(
            shapely.intersection(shape, shapely.box(turn - 180, -90, turn + 180, 90)),
            lambda points, turn=turn: points - [turn, 0],
        )
        for turn in (-360, 0, 360)
    ]
    return shapely.union_all(parts)


def repaired(frame: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, int]:
    """The layer with invalid polygons made valid, and how many were; parts that are not polygons are dropped.

    Simplification may turn a sliver of a polygon into a line, which makes the whole a collection.
    """
    geometry = frame.geometry.to_numpy().copy()
    invalid = ~shapely.is_valid(geometry) | (shapely.get_type_id(geometry) == shapely.GeometryType.GEOMETRYCOLLECTION)
    geometry[invalid] = [_polygonal(shape) for shape in shapely.make_valid(geometry[invalid])]
    return frame.set_geometry(gpd.GeoSeries(geometry, index=frame.index, crs=frame.crs)), int(invalid.sum())


def _polygonal(shape: shapely.Geometry) -> shapely.Geometry:
    parts = shapely.get_parts(shape)
    return shapely.union_all(parts[np.isin(shapely.get_type_id(parts), _POLYGONAL)])
