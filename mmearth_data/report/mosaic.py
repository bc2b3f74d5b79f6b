"""A few tiles beside each other: what came in last, small enough to send along with a message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import zarr
from PIL import Image

from mmearth_data.modalities import MODALITIES
from mmearth_data.report.pictures import HIGH, OPTICAL, FloatArray, draw, with_gaps
from mmearth_data.store.commits import row_table
from mmearth_data.store.files import StoreError, asking, zarr_store
from mmearth_data.store.objects import Place, at
from mmearth_data.store.rows import STORED_OUTCOME

COLUMNS, LINES = 8, 3
SIDE = 80
"""Pixels a tile's side is drawn with."""
GAP = 2
DIM = 1500
"""Reflectance × 10000 that is drawn white in tiles that have nothing brighter."""
_COLOURS = 128
"""Colours in the picture: a palette makes it a third as large, and nobody sees the difference at this size."""


def mosaic(store: str | Place, shards: Sequence[int]) -> Image.Image | None:
    """Natural colours of the first tiles of committed shards; None where they stored none.

    Each tile goes from black at no reflectance to white at its own brightest, but at ``DIM`` at least: stretched from
    its darkest, water and forests show colours that nobody would know them by. Each shard fills what the shards before
    it leave free. Rows of a store are in random order, so the first of a shard are a sample. Raises StoreError where a
    shard is not committed.
    """
    rows: list[int] = []
    for shard in shards:
        if len(rows) < COLUMNS * LINES:
            table = row_table(store, shard)
            rows += table.filter(pc.equal(table["outcome"], STORED_OUTCOME))["row"].to_pylist()
    del rows[COLUMNS * LINES :]
    if not rows:
        return None
    modality, bands = MODALITIES["sentinel2"], OPTICAL["natural colour"]
    folder = at(store)
    with asking(folder, "read"):
        array = zarr.open_group(zarr_store(folder), mode="r")[modality.name]
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{store}/{modality.name} is no array; the store was not made by mmearth collect")
        stored = [np.asarray(array[row]) for row in rows]
    picked = [modality.bands.index(band) for band in bands]
    lines = -(-len(rows) // COLUMNS)
    step = SIDE + GAP
    sheet = Image.new("RGB", (min(len(rows), COLUMNS) * step - GAP, lines * step - GAP), "white")
    for place, tile in enumerate(stored):
        values = with_gaps(modality, tile)[picked]
        drawn = draw(modality.name, bands, values, _range(values))
        if drawn is not None:
            small = drawn.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (place % COLUMNS * step, place // COLUMNS * step))
    return sheet.quantize(_COLOURS)


def _range(values: FloatArray) -> FloatArray:
    """Reflectances of the shape of ``values`` that have the stretch it is drawn with; no data where it has none."""
    if not np.isfinite(values).any():
        return values
    like = np.zeros_like(values)
    like[:, ::2] = max(float(np.nanpercentile(values, HIGH)), DIM)
    return like
