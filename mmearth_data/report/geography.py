"""Where the tiles lie, beside the plan, the land, and the data sets that others published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mmearth_data.adopted import planned_locations
from mmearth_data.latitudes import BANDS, bands_at, parallel
from mmearth_data.report.places import meridian
from mmearth_data.report.section import Fact, Section
from mmearth_data.store import StoreError
from mmearth_data.store.files import readable
from mmearth_data.store.objects import Place, at

SHOWN = 15
"""Countries in the table; the plan's metadata has them all."""
COLOURS = {"tiles": "#2e9d72", "plan": "#8fb8d8", "land": "#8a8f94", "published data sets": "#e0a458"}
_CELLS = {0: 10, 2000: 5}
"""Edge in degrees of the map's cells at the equator, by least number of tiles: few tiles say little of small cells."""
_EARTH_KM2 = 510.07e6
_GROUPINGS = ("continent", "country", "realm", "biome", "latitude")
_COLUMNS = ("continent", "country", "realm")
"""Groupings that are columns of the row table; biomes are in the section on balance, latitude is computed."""
Groups = Sequence[Mapping[str, Any]]


def plan_geography(path: str | Place) -> Mapping[str, Any] | None:
    """What the plan that the store at ``path`` follows says of its geography; None where it says nothing.

    Raises StoreError where the plan's table cannot be read.
    """
    file = planned_locations(at(path))
    if not file.is_file():
        return None
    try:
        said = json.loads((pq.read_schema(readable(file)).metadata or {}).get(b"mmearth", b"{}"))
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{file} is damaged ({reason}); put back the location table given to collect") from error
    found: Mapping[str, Any] | None = said.get("geography")
    return found


def geography(rows: pd.DataFrame, plan: Mapping[str, Any] | None) -> Section:
    """Shares of the stored tiles beside what the plan's metadata says of itself; ``rows`` is the store's row table."""
    stored = rows[rows["stored"]]
    if plan is None:
        note = (
            "The store has no plan that says where its locations lie beside the land; plans of mmearth sample do, and "
            "collect keeps them with the store."
        )
        return Section("Geography", "geography", (note, _map(stored)) if len(stored) else (note,))
    shares, merit, survey = plan["shares"], plan["merit"], plan["survey"]
    bands = pd.Series(np.array(BANDS)[bands_at(stored["lat"].to_numpy())], dtype="str")
    tables = {
        "latitude": _table(shares["latitude"], bands, "latitude band"),
        **{name: _table(shares[name], stored[name], name) for name in _COLUMNS if shares[name] is not None},
    }
    lead = (
        f"Shares of the {len(stored):,} stored tiles and of the plan's {plan['locations']:,} primaries, beside those "
        f"of the land: the ecoregions within Sentinel-2's coverage, {plan['land_km2'] / 1e6:,.1f} million km²."
    )
    blocks: list[Any] = [lead]
    if shares["continent"] is None:
        blocks.append(
            "The plan was made without countries, so it knows no continents; give them with: "
            "mmearth sample --countries FILE (or ee, for those of Earth Engine)."
        )
    else:
        rest = 1 - sum(survey["shares"].values())
        blocks.append(
            f"Published data sets: where about {survey['data_sets']} of them lie ({survey['citation']}; Australia "
            f"stands under Oceania); the other {rest:.0%} are worldwide or lie elsewhere. Each counts once, whatever "
            "its size."
        )
        continents = tables["continent"]
        continents["published data sets"] = [_percent(group["survey_share"]) for group in shares["continent"]]
        continents["largest country, of the land"] = [_largest(group) for group in shares["continent"]]
        blocks += [[continents, [COLOURS, _bars(shares["continent"], stored["continent"])]]]
    if len(stored):
        blocks.append(_map(stored))
    blocks += [_merit(merit), [tables["realm"], tables["latitude"]]]
    if "country" in tables:
        countries = tables["country"].head(SHOWN)
        countries.attrs = {"id": "geography-country", "caption": _countries_caption(shares["country"])}
        blocks.append(countries)
    return Section("Geography", "geography", tuple(blocks), (_fact(merit, shares),))


def _fact(merit: Mapping[str, Any], shares: Mapping[str, Any]) -> Fact:
    """Plain: how far a plan should be from the land is for its maker to choose."""
    grouping = "realm" if shares["continent"] is None else "continent"
    ends = (merit[grouping]["densest"], merit[grouping]["sparsest"])
    noted = " to ".join(f"{end['name']} {end['per_1000_km2']:.3g}" for end in ends if end)
    label = f"Off the land's {grouping}s"
    return Fact(label, _percent(merit[grouping]["from_land"]), "plain", f"{noted} locations per 1000 km²")


def _table(groups: Groups, located: pd.Series[str], heading: str) -> pd.DataFrame:
    counts = located.fillna("").value_counts()
    tiles = [int(counts.get(group["name"], 0)) for group in groups]
    table = pd.DataFrame(
        {
            heading: [group["name"] or "no country" for group in groups],
            "tiles": tiles,
            "of tiles": [_percent(number / max(len(located), 1)) for number in tiles],
            "of the plan": [_percent(group["share"]) for group in groups],
            "of the land": [_percent(group["land_share"]) for group in groups],
        }
    )
    table.attrs.update(id=f"geography-{heading.split()[0]}", caption=f"Shares by {heading}.")
    return table


def _countries_caption(groups: Groups) -> str:
    held = sum(group["locations"] > 0 for group in groups)
    return f"The {min(SHOWN, held)} countries with most of the plan, of {held}; the plan's metadata has every one."


def _merit(merit: Mapping[str, Any]) -> pd.DataFrame:
    lines = [
        {
            "balance of the plan": name,
            "off the land's shares": _percent(held["from_land"]),
            "off equal shares": _percent(held["from_equal"]),
            "densest, per 1000 km²": _density(held["densest"]),
            "sparsest, per 1000 km²": _density(held["sparsest"]),
        }
        for name in _GROUPINGS
        if (held := merit[name]) is not None
    ]
    table = pd.DataFrame(lines)
    table.attrs.update(
        id="geography-merit",
        caption="The share of locations that would have to move for shares like the land's, or equal ones (total "
        "variation); groups with less than 1 % of the land count in the first alone.",
    )
    return table


def _density(group: Mapping[str, Any] | None) -> str:
    return "–" if group is None else f"{group['name'] or 'no country'} {group['per_1000_km2']:.3g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _largest(group: Mapping[str, Any]) -> str:
    largest = group["largest"]
    return f"{largest['country']} {_percent(largest['land_share'])}" if largest and largest["country"] else "–"


def _bars(groups: Groups, located: pd.Series[str]) -> Figure:
    """Shares by continent: tiles, plan, land and published data sets as bars of each."""
    shown = [group for group in groups if max(group["share"], group["land_share"], group["survey_share"] or 0) >= 0.005]
    counts = located.value_counts() / max(len(located), 1)
    values = {
        "tiles": [float(counts.get(group["name"], 0.0)) for group in shown],
        "plan": [group["share"] for group in shown],
        "land": [group["land_share"] for group in shown],
        "published data sets": [group["survey_share"] or 0.0 for group in shown],
    }
    figure = Figure(figsize=(5.6, 0.6 + 0.55 * len(shown)), layout="constrained")
    figure.set_label("Shares by continent of tiles, plan, land and published data sets")
    axes = figure.add_subplot(xlabel="%")
    middle, height = np.arange(len(shown)), 0.8 / len(values)
    for number, (name, shares) in enumerate(values.items()):
        place = middle + (number - (len(values) - 1) / 2) * height
        axes.barh(place, 100 * np.asarray(shares), height=height, color=COLOURS[name])
    axes.set_yticks(middle, [group["name"] or "no country" for group in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure


def _map(stored: pd.DataFrame) -> Figure:
    """Tiles per 1000 km² in cells of equal area: longitude against the sine of latitude."""
    edge = max((least, degrees) for least, degrees in _CELLS.items() if len(stored) >= least)[1]
    columns, lines = 360 // edge, 180 // edge
    counts, _, _ = np.histogram2d(
        np.sin(np.radians(stored["lat"])), stored["lon"], bins=(lines, columns), range=((-1, 1), (-180, 180))
    )
    density = np.where(counts > 0, 1000 * counts / (_EARTH_KM2 / (columns * lines)), np.nan)
    figure = Figure(figsize=(11, 4.1), layout="constrained")
    figure.set_label("Map of the density of stored tiles")
    axes = figure.add_subplot(aspect="auto")
    low, high = float(np.nanmin(density)), float(np.nanmax(density))
    image = axes.imshow(
        density,
        extent=(-180, 180, -1, 1),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=mpl.colormaps["viridis"],
        norm=LogNorm(low, high if high > low else low * 1.01),
    )
    axes.grid(visible=False)
    parallels = (-60, -30, -15, 0, 15, 30, 45, 60, 75)
    axes.set_yticks(np.sin(np.radians(parallels)), [parallel(degrees) for degrees in parallels])
    axes.set_xticks(range(-180, 181, 30), [meridian(degrees) for degrees in range(-180, 181, 30)])
    axes.set_ylim(np.sin(np.radians(-60)), 1)
    figure.colorbar(image, ax=axes, label="tiles per 1000 km², in cells of equal area", pad=0.01)
    return figure
