"""The data sections of the report, from a store."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq

from mmearth_data.report.absences import absences
from mmearth_data.report.balance import balance
from mmearth_data.report.geography import geography, plan_geography
from mmearth_data.report.places import places
from mmearth_data.report.section import Fact, Section
from mmearth_data.report.tiles import tiles
from mmearth_data.store import open_store
from mmearth_data.store.files import readable
from mmearth_data.store.layout import LOCATIONS, read_layout
from mmearth_data.store.objects import Place, at
from mmearth_data.store.rows import STORED_OUTCOME

_COLUMNS = [
    *("row", "outcome", "reason", "lon", "lat", "biome", "ecoregion", "realm", "country", "continent"),
    *("year", "split", "level", "time"),
]


def sections(path: str | Place) -> list[Section]:
    """What there is to see of the store at ``path``; raises StoreError where there is no store.

    A store that was not finalized yet gives one section that says so.
    """
    layout = read_layout(path)
    if not (layout.path / LOCATIONS).is_file():
        note = f"{path} has no consolidated tables yet; make them with: mmearth finalize --store {path}"
        return [Section("Data", "data", (note,), (Fact("Stored tiles", "not finalized", "missing", "no tables yet"),))]
    store = open_store(path)
    rows = read_rows(path)
    status = store.status[rows["row"].to_numpy()]
    return [
        places(rows),
        balance(rows, layout.rows),
        geography(rows, plan_geography(path)),
        absences(rows, status, store.modalities),
        tiles(store, rows),
    ]


def read_rows(path: str | Place) -> pd.DataFrame:
    """The consolidated row table of the store at ``path``, and ``stored``: whether a row holds a tile."""
    columns = [*_COLUMNS, *(f"absent_{modality.name}" for modality in read_layout(path).modalities)]
    rows: pd.DataFrame = pq.read_table(readable(at(path) / LOCATIONS), columns=columns).to_pandas()
    return rows.assign(stored=rows["outcome"] == STORED_OUTCOME)
