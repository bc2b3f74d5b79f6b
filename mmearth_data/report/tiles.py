"""A few stored tiles with every modality side by side, so that misalignment and nonsense are seen at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmearth_data.modalities import BIOME_NAMES, MODALITIES, Modality, get
from mmearth_data.report.pictures import View, classes, gradient, picture, views
from mmearth_data.report.section import Section
from mmearth_data.store import Store

SHOWN = 5
KELVIN = 273.15


def chosen(rows: pd.DataFrame, count: int = SHOWN) -> list[int]:
    """Store rows to show: the first stored row of each of ``count`` biomes spread evenly over those present.

    Nothing about the pixels decides, so that the pictures are a sample rather than a selection.
    """
    stored = rows[rows["stored"]]
    first = stored.groupby("biome")["row"].min()
    present = [name for name in BIOME_NAMES if name in first.index]
    picks = np.unique(np.linspace(0, len(present) - 1, min(count, len(present))).round().astype(int))
    return [int(first[present[at]]) for at in picks]


def tiles(store: Store, rows: pd.DataFrame) -> Section:
    """The table of pictures: one line for each view of each modality, one column for each chosen location."""
    picks = chosen(rows)
    if not picks:
        return Section("Tiles", "tiles", ("No tile is stored yet; fetch with: mmearth collect",))
    table_rows = rows.set_index("row").loc[picks]
    values = {name: [np.asarray(store.read(name, row, row + 1))[0] for row in picks] for name in store.modalities}
    lines: list[list[Any]] = [
        _line(view, values[view.modality.name], table_rows) for view in views(map(get, store.modalities))
    ]
    lines += [_image_line(name, stored) for name, stored in values.items() if MODALITIES[name].scope == "image"]
    # Two rows may share a heading; the pictures of each still need a column of their own.
    columns = pd.Index(["modality", *(_heading(row) for _, row in table_rows.iterrows()), "colours"])
    table = pd.DataFrame(lines, columns=columns)
    table.attrs.update(
        id="tiles-table",
        pictures=True,
        caption="The first stored tile of each of these biomes. Stretched from the 2nd to the 98th percentile of each "
        "tile unless colours say otherwise; chequered is no-data.",
    )
    return Section("Tiles", "tiles", (table,))


def _heading(row: pd.Series[Any]) -> str:
    lat, lon = float(row["lat"]), float(row["lon"])
    place = f"{abs(lat):.1f}° {'S' if lat < 0 else 'N'}, {abs(lon):.1f}° {'W' if lon < 0 else 'E'}"
    date = pd.Timestamp(int(row["time"]), unit="ms").strftime("%Y-%m-%d")
    return f"{row['biome']}\n{place}\n{date}, {row['level']}, {row['split']}"


def _line(view: View, stored: list[NDArray[np.generic]], rows: pd.DataFrame) -> list[Any]:
    cells: list[Any] = []
    for values, (_, row) in zip(stored, rows.iterrows(), strict=True):
        drawn = picture(view, values)
        if drawn is None:
            cells.append(_absence(row, view.modality.name))
            continue
        image, words = drawn
        image.info["alt"] = f"{view.modality.name} {view.title}"
        cells.append([image, words])
    pairs, colours = classes(view.modality)
    meaning: Any = view.meaning
    if pairs:
        seen = {int(value) for values in stored for value in np.unique(values)}
        meaning = {name: colour for (value, name), colour in zip(pairs, colours, strict=True) if value in seen}
    elif not meaning:
        meaning = [gradient(view.modality), "low to high"]
    return [f"{view.modality.name}\n{view.title}", *cells, meaning]


def _absence(row: pd.Series[Any], modality: str) -> str:
    reason = row.get(f"absent_{modality}")
    return f"absent: {reason}" if isinstance(reason, str) and reason else "no data in these bands"


def _image_line(name: str, stored: list[NDArray[np.generic]]) -> list[Any]:
    modality = MODALITIES[name]
    cells: list[str] = []
    for values in stored:
        flat = np.atleast_1d(values)
        if not modality.valid(flat).any():
            cells.append("absent")
        elif modality.kind == "categorical":
            cells.append(dict(modality.classes)[int(flat[0])])
        else:
            cells.append(_numbers(modality, flat))
    return [name, *cells, "mean (minimum to maximum) and precipitation" if name == "era5" else ""]


def _numbers(modality: Modality, values: NDArray[np.generic]) -> str:
    """Small numbers, one line for each band; ERA5 one line for each period, in °C and mm."""
    numbers = dict(zip(modality.bands, values.astype(np.float64) * modality.scale_factor, strict=True))
    if modality.name != "era5":
        return "\n".join(f"{band} {value:.3g}" for band, value in numbers.items())
    lines = []
    for period in ("previous_month", "month", "year"):
        mean, low, high = (numbers[f"{period}_temperature_2m{part}"] - KELVIN for part in ("", "_min", "_max"))
        rain = 1000 * numbers[f"{period}_total_precipitation_sum"]
        lines.append(f"{period.replace('_', ' ')} {mean:.1f} °C ({low:.1f} to {high:.1f}), {rain:.0f} mm")
    return "\n".join(lines)
