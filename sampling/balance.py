"""Balance: which of a biome's ecoregions share equally, and which polygons a name of a continent or realm stands for.

An ecoregion belongs to the continent that most of its covered area lies in, so that it stays one claimant; realms
are RESOLVE's own and never cut one.
"""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from sampling.config import Balance
from sampling.countries import countries_at
from sampling.errors import SamplingError
from sampling.geography import land_points
from sampling.keyed import IntArray

_NO_CONTINENTS = ("", "Seven seas (open ocean)")
"""What the country layer calls the continent of islands that belong to none."""
NO_COUNTRIES = "give --countries FILE, or --countries ee"


def sharing_groups(regions: gpd.GeoDataFrame, nations: gpd.GeoDataFrame | None, balance: Balance) -> IntArray:
    """The group of each ecoregion, shape (n,): groups of a biome get equally many locations, 0 for all by area.

    Raises SamplingError for continents without ``nations`` (checked countries).
    """
    if balance == "area":
        return np.zeros(len(regions), dtype=np.int64)
    if balance == "realm":
        names = regions["REALM"].fillna("")
    elif nations is None:
        raise SamplingError(f"balancing by continent needs countries; {NO_COUNTRIES}")
    else:
        names = _continents(regions, nations)
    groups: IntArray = np.unique(names.to_numpy(), return_inverse=True)[1].astype(np.int64)
    return groups


def _continents(regions: gpd.GeoDataFrame, nations: gpd.GeoDataFrame) -> pd.Series[str]:
    """The continent that most of each ecoregion lies in, or the nearest where it lies in none, in their order."""
    nations = nations.loc[~nations["CONTINENT"].isin(_NO_CONTINENTS)].reset_index(drop=True)
    points, region, km2 = land_points(regions)
    names, continent = np.unique(nations["CONTINENT"], return_inverse=True)
    country = countries_at(points, nations)
    on_land = country >= 0
    area = np.zeros((len(regions), len(names)))
    np.add.at(area, (region[on_land], continent[country[on_land]]), km2[on_land])
    most = area.argmax(axis=1)
    away = np.flatnonzero(area.sum(axis=1) == 0)
    inside = shapely.point_on_surface(regions.geometry.to_numpy()[away])
    which, nearest = shapely.STRtree(nations.geometry.to_numpy()).query_nearest(inside, all_matches=False)
    most[away[which]] = continent[nearest]
    return pd.Series(names, dtype="str").take(most).reset_index(drop=True)


def held_out_place(
    names: str, regions: gpd.GeoDataFrame, nations: gpd.GeoDataFrame | None
) -> npt.NDArray[np.object_] | None:
    """Polygons of the continents and realms that ``names`` lists with commas, None for an empty list.

    Raises SamplingError for a name that is neither, and lists those there are.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if not asked:
        return None
    layers = [(regions, "REALM")] + ([] if nations is None else [(nations, "CONTINENT")])
    found: list[npt.NDArray[np.object_]] = []
    for name in asked:
        parts = [layer.geometry[(layer[column] == name).to_numpy()].to_numpy() for layer, column in layers]
        if not sum(map(len, parts)):
            known = sorted({str(value) for layer, column in layers for value in layer[column].dropna() if value})
            hint = "" if nations is not None else f"; for continents {NO_COUNTRIES}"
            raise SamplingError(f"{name!r} cannot be held out; choose from: {', '.join(known)}{hint}")
        found.extend(parts)
    return np.concatenate(found)
