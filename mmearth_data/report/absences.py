"""What stored tiles lack: how many have each modality complete, in part or not at all, and why not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmearth_data.report.section import Fact, Section
from mmearth_data.store.schema import Status

COLOURS = {"complete": "#2e9d72", "partial": "#d9ab3c", "absent": "#8a8f94"}


def absences(rows: pd.DataFrame, status: NDArray[np.uint8], modalities: tuple[str, ...]) -> Section:
    """Completeness by modality; ``status`` is (rows, modalities) in the order of ``modalities``.

    The fact is whether every absence has a reason.
    """
    stored = rows["stored"].to_numpy(bool)
    lines, unexplained, absent_total = [], 0, 0
    for index, name in enumerate(modalities):
        state = status[stored, index]
        reasons = rows.loc[stored, f"absent_{name}"][state == Status.ABSENT]
        unexplained += int((reasons == "").sum())
        absent_total += len(reasons)
        counted = reasons[reasons != ""].value_counts().sort_index()
        lines.append(
            {
                "modality": name,
                "complete": int((state == Status.COMPLETE).sum()),
                "partial": int((state == Status.PARTIAL).sum()),
                "absent": len(reasons),
                "reasons": ", ".join(f"{reason} {count:,}" for reason, count in counted.items()),
            }
        )
    table = pd.DataFrame(lines, columns=["modality", "complete", "partial", "absent", "reasons"])
    table.attrs.update(
        id="absences",
        caption="Stored tiles by modality: complete has every band that its level and orbit mode can have; absent has "
        "no valid pixel.",
    )
    fact = Fact(
        "Absences explained",
        f"{absent_total - unexplained:,} of {absent_total:,}" if absent_total else "none absent",
        "bad" if unexplained else "good",
        "each has a reason of the archive" if not unexplained else f"{unexplained:,} without a reason",
    )
    blocks = ([table, [COLOURS, _bars(table)]],) if stored.any() else (table,)
    return Section("Completeness", "completeness", blocks, (fact,) if stored.any() else ())


def _bars(table: pd.DataFrame) -> Figure:
    """Shares of the stored tiles by modality, one bar each."""
    figure = Figure(figsize=(5.2, 0.5 + 0.27 * len(table)), layout="constrained")
    figure.set_label("Share of tiles that have each modality")
    axes = figure.add_subplot(xlim=(0, 100), xlabel="% of stored tiles")
    counts = table[list(COLOURS)].to_numpy(dtype=np.float64)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    starts = np.cumsum(shares, axis=1) - shares
    for at, colour in enumerate(COLOURS.values()):
        axes.barh(table["modality"], shares[:, at], left=starts[:, at], color=colour, height=0.62)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure
