"""Geography: where a plan's locations lie, beside where the land lies and where published data sets lie.

Land is the ecoregion layer within Sentinel-2's coverage. Its area by continent, country and latitude is measured with
points spread evenly over it, which get their country by the rule that locations get theirs by. The points of an
ecoregion share its area on the sphere (right to 0.7 %), so every grouping has the same sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from mmearth_data.grid import NORTHERN_LIMIT, SOUTHERN_LIMIT, FloatArray
from mmearth_data.latitudes import BANDS, bands_at
from sampling import survey
from sampling.countries import countries_at
from sampling.ecoregions import covered_areas
from sampling.keyed import IntArray

COMPARED = 0.01
"""Least share of the land for a group to count where the densest and the sparsest are sought."""
_POINTS = 200_000
"""Points over the bounds of the layer; over all of coverage one per 2,300 km²."""
_GOLDEN = (5**0.5 - 1) / 2

Names: TypeAlias = "pd.Series[str]"  # of strings, one per location or point
Geometries = npt.NDArray[np.object_]


def geography(table: gpd.GeoDataFrame, regions: gpd.GeoDataFrame, nations: gpd.GeoDataFrame | None) -> dict[str, Any]:
    """Shares of a plan's primaries by continent, country, realm, biome and latitude band, as JSON types.

    ``table`` is a location table, ``regions`` checked ecoregions, ``nations`` checked countries, without which
    continent and country are None. Reserves are left out: a reserve takes the place of a primary, or nobody's.

    ``shares[grouping]`` lists groups, the largest share first, latitude from north to south: ``name`` ("" beyond
    every country), ``locations``, ``share``, ``land_km2``, ``land_share``; continents also ``survey_share`` (None
    where the survey names none) and ``largest``, the country with the most of their land and its ``land_share``.
    ``merit[grouping]`` says how far the shares are ``from_land``'s (total variation: 0 the same, 1 disjoint) and
    ``from_equal`` ones, and which groups are ``densest`` and ``sparsest`` in locations per 1000 km²; for the last
    three only groups with at least 1 % of the land count (None where there are none).
    """
    primary = ~table["reserve"].to_numpy()
    points, region, km2 = land_points(regions)
    located: dict[str, Names] = {name: table[name][primary] for name in ("continent", "country", "realm", "biome")}
    located["latitude"] = _bands(table["lat"].to_numpy()[primary])
    land: dict[str, Names] = {
        "realm": regions["REALM"].fillna("").take(region),
        "biome": regions["BIOME_NAME"].take(region),
        "latitude": _bands(shapely.get_y(points)),
    }
    if nations is not None:
        nation = countries_at(points, nations)
        for name, column in (("continent", "CONTINENT"), ("country", "ADMIN")):
            land[name] = pd.Series([*nations[column], ""], dtype="str").take(nation)
    shares = {name: _shares(located[name], land[name], km2) if name in land else None for name in located}
    (shares["latitude"] or []).sort(key=lambda group: -BANDS.index(group["name"]))
    for group in shares["continent"] or []:
        group["survey_share"] = survey.SHARES.get(group["name"])
        group["largest"] = _largest(land["country"], km2, (land["continent"] == group["name"]).to_numpy())
    return {
        "counted": "primaries",
        "locations": int(primary.sum()),
        "land_km2": float(km2.sum()),
        "shares": shares,
        "merit": {name: None if groups is None else _merit(groups) for name, groups in shares.items()},
        "survey": {"citation": survey.CITATION, "data_sets": survey.DATA_SETS, "shares": dict(survey.SHARES)},
    }


def land_points(regions: gpd.GeoDataFrame) -> tuple[Geometries, IntArray, FloatArray]:
    """Points spread evenly over the ecoregions, the ecoregion of each, and the km² that it stands for, shapes (n,).

    A Fibonacci lattice in Lambert's cylindrical projection, which keeps areas. An ecoregion that is missed by all of
    it gets one point of its own.
    """
    areas = covered_areas(regions)
    polygons = regions.geometry.to_numpy()
    west, south, east, north = shapely.total_bounds(polygons)
    low, high = (np.sin(np.radians(np.clip(edge, SOUTHERN_LIMIT, NORTHERN_LIMIT))) for edge in (south, north))
    number = np.arange(_POINTS)
    lat = np.degrees(np.arcsin(low + (high - low) * (number + 0.5) / _POINTS))
    lattice = shapely.points(west + (east - west) * (number * _GOLDEN % 1.0), lat)
    owner, member = shapely.STRtree(lattice).query(polygons, predicate="intersects")
    # Where polygons overlap, a point is of the first, as cells are.
    member, first = np.unique(member, return_index=True)
    region = owner[first]
    missed = np.flatnonzero((np.bincount(region, minlength=len(regions)) == 0) & (areas > 0))
    within = shapely.clip_by_rect(polygons[missed], -180, SOUTHERN_LIMIT, 180, NORTHERN_LIMIT)
    points = np.concatenate([lattice[member], shapely.point_on_surface(within)])
    region = np.concatenate([region, missed])
    return points, region, (areas / np.maximum(np.bincount(region, minlength=len(regions)), 1))[region]


def _shares(located: Names, land: Names, km2: FloatArray) -> list[dict[str, Any]]:
    """Every group that has a location or land, the one with most locations first, then by land and name."""
    counts, area = located.value_counts(), pd.Series(km2).groupby(land.to_numpy()).sum()
    groups = [
        {
            "name": str(name),
            "locations": int(counts.get(name, 0)),
            "share": float(counts.get(name, 0) / max(len(located), 1)),
            "land_km2": float(area.get(name, 0.0)),
            "land_share": float(area.get(name, 0.0) / km2.sum()),
        }
        for name in counts.index.union(area.index)
    ]
    return sorted(groups, key=lambda group: (-group["locations"], -group["land_km2"], group["name"]))


def _bands(lat: FloatArray) -> Names:
    """The latitude band of each point, by name."""
    return pd.Series(BANDS, dtype="str").take(bands_at(lat))


def _largest(country: Names, km2: FloatArray, here: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
    """The country with the most land among the points ``here``, None where there is no point."""
    if not here.any():
        return None
    area = pd.Series(km2[here]).groupby(country.to_numpy()[here]).sum()
    return {"country": str(area.idxmax()), "land_share": float(area.max() / km2.sum())}


def _merit(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """How far shares are from the land's and from equal ones, and the densest and the sparsest group."""
    compared = [group for group in groups if group["land_share"] >= COMPARED]
    held = sum(group["share"] for group in compared) or 1.0
    even = [abs(group["share"] / held - 1 / len(compared)) for group in compared]
    density = [
        {"name": group["name"], "per_1000_km2": 1000 * group["locations"] / group["land_km2"]} for group in compared
    ]
    return {
        "from_land": sum(abs(group["share"] - group["land_share"]) for group in groups) / 2,
        "from_equal": sum(even) / 2,
        "densest": max(density, key=lambda group: group["per_1000_km2"], default=None),
        "sparsest": min(density, key=lambda group: group["per_1000_km2"], default=None),
    }


def continents(geography: Mapping[str, Any]) -> list[dict[str, str | int]]:
    """Rows of a plan's continents ready to print; none where the plan had no countries."""

    def percent(share: float | None) -> str:
        return "–" if share is None else f"{100 * share:.1f} %"

    return [
        {
            "continent": group["name"] or "no country",
            "locations": group["locations"],
            "plan": percent(group["share"]),
            "land": percent(group["land_share"]),
            "published data sets": percent(group["survey_share"]),
        }
        for group in geography["shares"]["continent"] or ()
    ]
