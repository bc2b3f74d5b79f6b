"""The location table: GeoParquet of cells to collect, and the checks it must pass before anything is asked for."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyarrow as pa

from mmearth_data import grid
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_NAMES
from mmearth_data.splits import SPLITS
from mmearth_data.store.files import readable
from mmearth_data.store.objects import Place, at

COLUMNS: dict[str, str] = {
    "location_id": "int64",
    "lon": "float64",
    "lat": "float64",
    "epsg": "int32",
    "x0": "int32",
    "y0": "int32",
    "biome": "str",
    "ecoregion": "str",
    "realm": "str",
    "country": "str",
    "continent": "str",
    "year": "int16",
    "reserve": "bool",
    "rank": "int32",
    "split": "str",
}
"""Columns beside ``geometry`` (the cell centre, EPSG:4326) and their dtypes; x0, y0: upper-left corner in metres.

``biome``, ``ecoregion`` and ``realm`` are RESOLVE names. ``rank`` counts from 0 within a stratum (biome, year),
reserves after primaries. ``country`` and ``continent`` are empty strings where no country layer was given.
"""


class LocationTableError(ValueError):
    """The file is not a location table; the message says what is wrong and what to do."""


def read_locations(path: str | Place) -> gpd.GeoDataFrame:
    """The location table at ``path``, checked: columns, ids that match their coordinates, no cell twice, known names.

    Raises LocationTableError with a one-line remedy where any of that does not hold.
    """
    file = at(path)
    if not file.is_file():
        raise LocationTableError(f"{file} does not exist; make it with: mmearth sample --locations N --out {file}")
    try:
        table = gpd.read_parquet(readable(file))
    except (ValueError, OSError, pa.ArrowInvalid) as error:
        raise LocationTableError(
            f"{file} is not a GeoParquet location table ({error}); make one with mmearth sample"
        ) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise LocationTableError(
            f"{file} lacks the columns {', '.join(missing)}; make it with mmearth sample, with its default preset"
        )
    ids = table["location_id"].to_numpy(np.int64)
    if not len(ids):
        raise LocationTableError(f"{file} holds no location; sample at least one per biome and year")
    if len(np.unique(ids)) != len(ids):
        raise LocationTableError(f"{file} names a cell twice; make it again with mmearth sample")
    cells = grid.decode(ids)
    if (cells.x0 != table["x0"]).any() or (cells.y0 != table["y0"]).any() or (cells.epsg != table["epsg"]).any():
        raise LocationTableError(
            f"{file} has coordinates that do not belong to their location_id; make it again with mmearth sample"
        )
    if len(np.unique(cells.pixels)) != 1:
        raise LocationTableError(f"{file} mixes tile sizes; sample each size into a table of its own")
    for column, known in (("biome", BIOME_NAMES), ("ecoregion", ECOREGION_NAMES), ("split", SPLITS)):
        unknown = sorted(set(table[column]) - set(known))
        if unknown:
            raise LocationTableError(
                f"{file} has an unknown {column} {unknown[0]!r}; names must be RESOLVE's (split: {', '.join(SPLITS)})"
            )
    return table
