"""Where the locations lie: a map of longitude and latitude, coloured by biome."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from mmearth_data.latitudes import parallel
from mmearth_data.modalities import BIOME_NAMES
from mmearth_data.report.section import Section

BIOME_COLOURS: dict[str, str] = dict(
    zip(
        BIOME_NAMES,
        (
            "#8fb8d8",  # Tundra
            "#12752f",  # Tropical moist broadleaf
            "#d94f70",  # Mediterranean
            "#e0a458",  # Deserts
            "#c9c13b",  # Temperate grasslands
            "#3f7f93",  # Boreal
            "#5b57a6",  # Temperate conifer
            "#57a639",  # Temperate broadleaf
            "#9c6b4f",  # Montane
            "#d0308c",  # Mangroves
            "#28b7c4",  # Flooded
            "#e8731a",  # Tropical grasslands
            "#8f9a2b",  # Tropical dry broadleaf
            "#a86fd1",  # Tropical coniferous
        ),
        strict=True,
    )
)
VACANT_COLOUR = "#8a8f94"
_VECTOR_POINTS = 5000
"""More points than this are drawn as one picture inside the chart, which keeps the page small."""


def places(rows: pd.DataFrame) -> Section:
    """The map of stored locations by biome, vacant rows as crosses; ``rows`` is the store's row table."""
    figure = Figure(figsize=(11, 4.55), layout="constrained")
    figure.set_label(f"Map of {int(rows['stored'].sum())} stored locations by biome")
    axes = figure.add_subplot(xlim=(-180, 180), ylim=(-60, 85), aspect="equal")
    axes.set_xticks(range(-180, 181, 30), [meridian(x) for x in range(-180, 181, 30)])
    axes.set_yticks(range(-60, 85, 20), [parallel(y) for y in range(-60, 85, 20)])
    axes.axhline(0, color="#8a8f94", linewidth=0.8)
    size = 14 if len(rows) < 2000 else 4
    stored, vacant = rows[rows["stored"]], rows[~rows["stored"] & rows["lon"].notna()]
    axes.scatter(
        stored["lon"],
        stored["lat"],
        s=size,
        c=[BIOME_COLOURS.get(name, VACANT_COLOUR) for name in stored["biome"]],
        linewidths=0,
        alpha=0.9,
        rasterized=len(stored) > _VECTOR_POINTS,
    )
    axes.scatter(vacant["lon"], vacant["lat"], s=size, c=VACANT_COLOUR, marker="x", linewidths=0.8)
    present = [name for name in BIOME_NAMES if name in set(stored["biome"])]
    legend = {f"{name} ({int((stored['biome'] == name).sum()):,})": BIOME_COLOURS[name] for name in present}
    if len(vacant):
        legend[f"gave way, vacant ({len(vacant):,})"] = VACANT_COLOUR
    lead = (
        f"{len(stored):,} tiles from {parallel(stored['lat'].min())} to {parallel(stored['lat'].max())} "
        f"in {stored['ecoregion'].nunique():,} ecoregions."
        if len(stored)
        else "No tile is stored yet; fetch with: mmearth collect"
    )
    return Section("Places", "places", (lead, figure, legend))


def meridian(degrees: float) -> str:
    """A meridian by name, such as 30°E, to whole degrees."""
    return f"{abs(degrees):.0f}°{'W' if degrees < 0 else 'E' if degrees else ''}"
