"""The location table as it leaves sampling: its columns, its bytes, and its balance at a glance."""

from __future__ import annotations

import json
from collections.abc import Iterable

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from mmearth_data import grid
from mmearth_data.grid import BoolArray, FloatArray, IdArray
from mmearth_data.location import COLUMNS
from mmearth_data.splits import SPLITS
from mmearth_data.store.files import StoreError, make_directory, writing
from mmearth_data.store.objects import Place, at
from sampling.countries import countries_at
from sampling.errors import SamplingError
from sampling.keyed import IntArray

METADATA = "plan"
"""Key of ``GeoDataFrame.attrs`` under which a table carries what it was made from (JSON types)."""
_ROW_GROUP = 1 << 17


def location_table(
    *,
    ids: IdArray,
    lon: FloatArray,
    lat: FloatArray,
    region: IntArray,
    year: IntArray,
    rank: IntArray,
    reserve: BoolArray,
    split: IntArray,
    regions: gpd.GeoDataFrame,
    nations: gpd.GeoDataFrame | None,
) -> gpd.GeoDataFrame:
    """The location table of these cells, in the order given; every array has shape (n,).

    ``region`` is a position in ``regions`` (checked ecoregions), ``split`` one in ``SPLITS``; country and continent
    come from ``nations`` (checked countries) and are empty strings without.
    """
    points = shapely.points(lon, lat)
    if nations is None:
        country = continent = _named([""], np.zeros(len(ids), dtype=np.int64))
    else:
        nation = countries_at(points, nations)
        country, continent = (_named([*nations[column], ""], nation) for column in ("ADMIN", "CONTINENT"))
    cells = grid.decode(ids)
    columns = {
        "location_id": ids,
        "lon": lon,
        "lat": lat,
        "epsg": cells.epsg,
        "x0": cells.x0,
        "y0": cells.y0,
        "biome": _named(regions["BIOME_NAME"], region),
        "ecoregion": _named(regions["ECO_NAME"], region),
        "realm": _named(regions["REALM"].fillna(""), region),
        "country": country,
        "continent": continent,
        "year": year,
        "reserve": reserve,
        "rank": rank,
        "split": _named(SPLITS, split),
    }
    typed = {name: pd.Series(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()}
    return gpd.GeoDataFrame(typed, geometry=points, crs="EPSG:4326")


def _named(names: Iterable[str], codes: IntArray) -> pd.Series[str]:
    """The name at each code (−1: the last) as a column of strings, without one Python object per row."""
    return pd.Series(list(names), dtype="str").take(codes).reset_index(drop=True)


def write_locations(table: gpd.GeoDataFrame, path: str | Place) -> None:
    """Write a table of points as GeoParquet 1.1, whole or not at all; equal tables give equal bytes.

    What the plan was made from is kept in the file's metadata under ``mmearth``. ``path`` may lie in a bucket, as a
    store may. Raises SamplingError where the file cannot be written.
    """
    try:
        place = at(path)
        make_directory(place.parent)
        with writing(place) as file:
            pq.write_table(_arrow(table), file, compression="zstd", row_group_size=_ROW_GROUP)
    except StoreError as error:
        raise SamplingError(str(error)) from error
    except OSError as error:
        raise SamplingError(f"cannot write {path} ({error.strerror or error}); give --out a place you can") from error


def _arrow(table: gpd.GeoDataFrame) -> pa.Table:
    columns = {name: pa.array(table[name]) for name in table.columns if name != "geometry"}
    columns["geometry"] = pa.array(shapely.to_wkb(table.geometry.to_numpy()), type=pa.binary())
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Point"],
                "crs": table.crs.to_json_dict(),
                "bbox": [float(bound) for bound in table.total_bounds],
            }
        },
    }
    metadata = {"geo": json.dumps(geo), "mmearth": json.dumps(table.attrs.get(METADATA, {}), sort_keys=True)}
    return pa.table(columns).replace_schema_metadata(metadata)


def summary(table: gpd.GeoDataFrame) -> list[dict[str, str | int]]:
    """The plan's balance, one row per biome in the table's order and one for all: ready to print.

    Keys: ``biome``, ``ecoregions`` (how many have a location), each year (its primaries), ``reserves`` and, over
    primaries and reserves together, each split.
    """
    years = sorted(int(year) for year in table["year"].unique())
    rows = []
    for biome in [*dict.fromkeys(table["biome"]), None]:
        part = table if biome is None else table.loc[table["biome"] == biome]
        primary = part.loc[~part["reserve"]]
        row: dict[str, str | int] = {
            "biome": "all" if biome is None else str(biome),
            "ecoregions": int(part["ecoregion"].nunique()),
        }
        row |= {str(year): int((primary["year"] == year).sum()) for year in years}
        row["reserves"] = int(np.count_nonzero(part["reserve"]))
        row |= {split: int((part["split"] == split).sum()) for split in SPLITS}
        rows.append(row)
    return rows
