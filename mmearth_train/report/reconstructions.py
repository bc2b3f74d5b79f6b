"""What a run's model makes of tiles that it sees a part of, beside what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from mmearth_data.modalities import BIOME_NAMES, MODALITIES, MODEL_INPUT_BANDS
from mmearth_data.store import Store, StoreError, open_store
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.model import INPUT
from mmearth_train.reconstruct import reconstruct
from mmearth_train.report.curves import anchor

SHOWN = 3
COMPOSITES = ("sentinel2", "sentinel1")
"""Drawn with each tile's own stretch; everything else with one for all tiles, so that levels can be compared."""

FloatArray = NDArray[np.float64]
Draw = Callable[[str, tuple[str, ...], FloatArray, FloatArray], Image.Image | None]
"""Draws bands (bands, y, x) of a modality, NaN where there is no data, under the stretch of the fourth argument."""


def reconstructions(path: Path, run: Path, draw: Draw) -> tuple[Any, ...]:
    """Blocks that show predictions of the run's last checkpoint for validation tiles of the store at ``path``.

    Where that is impossible the block is a sentence that says why and what to do.
    """
    try:
        store = open_store(path)
        rows = chosen(store)
        if not len(rows):
            return ("No reconstruction: the store has no complete tile outside the training split.",)
        found = reconstruct(run, store, rows)
    except (StoreError, CheckpointError) as error:
        return (f"No reconstruction: {error}",)
    return (_table(found, store, run, draw),)


def chosen(store: Store, count: int = SHOWN) -> NDArray[np.int64]:
    """Validation rows spread evenly over the store (test rows where there is none), ascending, without a look."""
    rows = store.select("val")
    rows = rows if len(rows) else store.select("test")
    picks = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))
    return rows[picks]


def _table(found: dict[str, NDArray[np.generic]], store: Store, run: Path, draw: Draw) -> pd.DataFrame:
    """Two columns for each tile: what the model was given and what hidden, then prediction and target of each task."""
    rows = [int(row) for row in found["rows"]]
    names = [key.removesuffix(".prediction") for key in found if key.endswith(".prediction")]
    lines: list[list[Any]] = [_seen(found, len(rows), draw)]
    for name in names:
        line: list[Any] = [name]
        all_targets = np.concatenate(list(found[f"{name}.target"].astype(np.float64)), axis=1)
        for at in range(len(rows)):
            prediction, target = (found[f"{name}.{word}"][at].astype(np.float64) for word in ("prediction", "target"))
            like = target if name in COMPOSITES else all_targets
            for values, word in ((prediction, "prediction"), (target, "target")):
                there = np.isfinite(target).any()
                line.append(_cell(draw(name, _bands(name), values, like) if there else None, word))
        lines.append(line)
    columns = ["task"]
    for row in rows:
        biome = int(store.biome[row])
        place = BIOME_NAMES[biome] if biome < len(BIOME_NAMES) else "unknown biome"
        columns += [f"{place}\n{store.lat[row]:.1f}°, {store.lon[row]:.1f}°", ""]
    table = pd.DataFrame(lines, columns=pd.Index(columns))
    table.attrs.update(
        id=anchor("reconstructions", run),
        pictures=True,
        caption="Reconstructions of tiles that training never saw. The model is given the first picture; prediction "
        "and target share one stretch; what is chequered was not predicted. Of sentinel2 only the pattern within a "
        "patch is predicted: each patch's mean and spread are the target's.",
    )
    return table


def _seen(found: dict[str, NDArray[np.generic]], tiles: int, draw: Draw) -> list[Any]:
    line: list[Any] = ["given"]
    for at in range(tiles):
        target = found[f"{INPUT}.target"][at].astype(np.float64)
        given = found[f"{INPUT}.input"][at].astype(np.float64)
        mask = Image.fromarray(np.where(found["hidden"][at], 60, 215).astype(np.uint8))
        line += [_cell(draw(INPUT, _bands(INPUT), given, target), "input"), _cell(mask, "mask (dark is hidden)")]
    return line


def _bands(name: str) -> tuple[str, ...]:
    return MODEL_INPUT_BANDS if name == INPUT else MODALITIES[name].bands


def _cell(image: Image.Image | None, word: str) -> list[Any] | str:
    if image is None:
        return "nothing to compare with here"
    image.info["alt"] = word
    return [image, word]
