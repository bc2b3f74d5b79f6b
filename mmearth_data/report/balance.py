"""Whether the store is balanced: complete rows by biome and year, by split, and the rows that stay vacant."""

from __future__ import annotations

import pandas as pd

from mmearth_data.modalities import BIOME_NAMES
from mmearth_data.report.section import Fact, Section
from mmearth_data.splits import SPLITS


def strata(rows: pd.DataFrame) -> pd.DataFrame:
    """Stored rows of every (biome, year), all biomes in class order, one column for each year that has a location."""
    located = rows[rows["biome"].notna()]
    counts = located.groupby(["biome", located["year"].astype(int)])["stored"].sum().unstack(fill_value=0)
    return counts.reindex(list(BIOME_NAMES), fill_value=0).astype(int)


def _with_totals(counts: pd.DataFrame, heading: str) -> pd.DataFrame:
    table = counts.copy()
    table.columns = [str(column) for column in table.columns]
    table["all"] = table.sum(axis=1)
    table.loc["all"] = table.sum(axis=0)
    return table.rename_axis(heading).reset_index()


def _splits(rows: pd.DataFrame) -> pd.DataFrame:
    stored = rows[rows["stored"]]
    per_split = stored.groupby("split").agg(tiles=("stored", "size"), biomes=("biome", "nunique"))
    table = per_split.reindex([name for name in SPLITS if name in per_split.index])
    table.insert(1, "share of tiles", [f"{100 * n / max(1, len(stored)):.1f} %" for n in table["tiles"]])
    table = table.rename_axis("split").reset_index()
    table.attrs.update(
        id="splits", caption="Splits of the stored tiles; a block of about 100 km is in one split whole."
    )
    return table


def vacancies(rows: pd.DataFrame) -> pd.Series[int]:
    """Vacant rows by why: the reason of the location that gave way, or that no location was due there."""
    vacant = rows[~rows["stored"]]
    reasons = vacant["reason"].where(vacant["biome"].notna(), "no location was due")
    return reasons.value_counts().rename("rows")


def _vacant_table(rows: pd.DataFrame) -> pd.DataFrame:
    table = vacancies(rows).rename_axis("reason").reset_index()
    table.attrs.update(id="vacant", caption="Vacant rows by reason; a location that gave way left its row vacant.")
    return table


def balance(rows: pd.DataFrame, planned: int) -> Section:
    """Counts by stratum, split and vacancy; ``planned`` is the number of rows that the store has room for.

    The facts say how many tiles there are, whether strata are equal, and how many rows are vacant.
    """
    counts = strata(rows)
    stored, vacant = int(rows["stored"].sum()), int((~rows["stored"]).sum())
    low, high = (int(counts.to_numpy().min()), int(counts.to_numpy().max())) if counts.size else (0, 0)
    equal = stored > 0 and low == high
    short = int((counts.to_numpy() < high).sum())
    pending = f"; {planned - len(rows):,} not collected and finalized" if planned > len(rows) else ""
    table = _with_totals(counts, "biome")
    table.attrs.update(
        id="strata", total=True, caption="Stored tiles by biome and year; vacant rows are counted apart."
    )
    blocks: list[object] = [
        f"Every one of the {counts.size} strata holds {low} tiles."
        if equal
        else f"Strata hold {low} to {high} tiles; {short} of {counts.size} have fewer than the fullest.",
        [table, [_splits(rows), _vacant_table(rows)] if vacant else _splits(rows)],
    ]
    facts = (
        Fact("Stored tiles", f"{stored:,}", "good" if stored else "bad", f"of {planned:,} rows{pending}"),
        Fact(
            "Equal strata",
            "yes" if equal else "no",
            "good" if equal else "bad",
            f"{low} in each of {counts.size}" if equal else f"{low} to {high}; {short} of {counts.size} short",
        ),
        Fact("Vacant rows", f"{vacant:,}", "plain", ", ".join(f"{why} {n:,}" for why, n in vacancies(rows).items())),
    )
    return Section("Balance", "balance", tuple(blocks), facts)
