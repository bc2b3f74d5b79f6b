"""The scheme of the published MMEarth, for comparison: points drawn anew in each ecoregion, years at random.

Each biome gets the same number of points, each ecoregion of it its share by area, cut down to a whole number. Points
are uniform in the polygon and become squares of 1300 m, whatever already lies there; there are no reserves and no
splits. What comes of it is a table of points with the overlaps counted, which no collection takes.

Source: MMEarth (ECCV 2024), section 3, and the settings of its published sampling script.
"""

from __future__ import annotations

from dataclasses import fields

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from mmearth_data.grid import FloatArray
from sampling.config import SampleConfig, check_config
from sampling.ecoregions import areas, check_ecoregions
from sampling.errors import SamplingError
from sampling.keyed import IntArray, below, key_of, mix
from sampling.table import METADATA

TILE_METRES = 1300
_KNOWN = ("locations", "out", "ecoregions", "years", "seed", "preset")
_DEGREE_METRES = 111_195.0
"""One degree of a great circle on the sphere of 6371 km."""
_ASSUMED_RATE = 0.4
_LEAST_STEP = 256


def reference_points(config: SampleConfig, ecoregions: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Points of the published scheme: lon, lat (degrees), biome, ecoregion, realm, year, overlaps, geometry.

    ``overlaps`` counts the other squares that share ground with a point's own. ``attrs["plan"]`` says how many points
    overlap another's, in how many pairs, and which ecoregions got none. Raises LayerError for an unusable layer,
    SamplingError for an option that the scheme does not know.
    """
    years, locations = check_config(config), config.locations
    for field in fields(SampleConfig):
        if field.name not in _KNOWN and getattr(config, field.name) != field.default:
            option = field.name.replace("_", "-")
            raise SamplingError(f"the reference preset knows no --{option}; leave it out, or use the default preset")
    regions = check_ecoregions(ecoregions, "the ecoregion layer")
    area = areas(regions)
    biome = regions["BIOME_NAME"]
    share = area / biome.map(pd.Series(area).groupby(biome.to_numpy()).sum()).to_numpy()
    counts = np.floor(locations // biome.nunique() * share).astype(np.int64)
    polygons = regions.geometry.to_numpy().copy()
    shapely.prepare(polygons)
    parts = [
        _uniform(polygon, int(count), key_of(config.seed, "reference", name))
        for polygon, count, name in zip(polygons, counts, regions["ECO_NAME"], strict=True)
    ]
    lon, lat = np.concatenate(parts, axis=1)
    region = np.repeat(np.arange(len(regions)), counts)
    one, other = overlapping_pairs(lon, lat)
    overlaps = np.bincount(np.concatenate([one, other]), minlength=len(lon))
    year = np.array(years)[below(key_of(config.seed, "reference years"), np.arange(len(lon)), len(years))]
    table = gpd.GeoDataFrame(
        {
            "lon": lon,
            "lat": lat,
            "biome": biome.take(region).reset_index(drop=True),
            "ecoregion": regions["ECO_NAME"].take(region).reset_index(drop=True),
            "realm": regions["REALM"].fillna("").take(region).reset_index(drop=True),
            "year": year.astype(np.int16),
            "overlaps": overlaps.astype(np.int32),
        },
        geometry=shapely.points(lon, lat),
        crs="EPSG:4326",
    )
    table.attrs[METADATA] = {
        "preset": "reference",
        "locations": len(table),
        "years": list(years),
        "seed": config.seed,
        "overlapping": int(np.count_nonzero(overlaps)),
        "pairs": len(one),
        "without_points": regions["ECO_NAME"][counts == 0].tolist(),
    }
    return table


def _uniform(polygon: shapely.Geometry, count: int, key: int) -> FloatArray:
    """Longitudes and latitudes of points uniform by area in a prepared polygon, shape (2, count)."""
    west, south, east, north = shapely.bounds(polygon)
    low, high = np.sin(np.radians([south, north]))
    found: list[FloatArray] = []
    have = drawn = 0
    while have < count:
        step = max(_LEAST_STEP, int(1.1 * (count - have) / (max(have, 1) / drawn if drawn else _ASSUMED_RATE)))
        step = min(step, 1 << 20)
        one, other = mix(key, np.arange(2 * drawn, 2 * (drawn + step))).reshape(step, 2).T / 2.0**64
        lon, lat = west + (east - west) * one, np.degrees(np.arcsin(low + (high - low) * other))
        inside = shapely.contains_xy(polygon, lon, lat)
        found.append(np.stack([lon[inside], lat[inside]]))
        have += int(inside.sum())
        drawn += step
    return np.concatenate([np.empty((2, 0)), *found], axis=1)[:, :count]


def overlapping_pairs(lon: FloatArray, lat: FloatArray) -> tuple[IntArray, IntArray]:
    """Every pair of squares of 1300 m around points in degrees that share ground, each once, shapes (pairs,).

    Squares are the boxes in degrees around circles of 650 m, as the published scheme cuts them.
    """
    tall = TILE_METRES / 2 / _DEGREE_METRES
    wide = tall / np.cos(np.radians(lat))
    boxes = shapely.box(lon - wide, lat - tall, lon + wide, lat + tall)
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    once = one < other
    return one[once], other[once]


def overlap_summary(table: gpd.GeoDataFrame) -> list[dict[str, str | int]]:
    """What comes of the scheme, one row per biome and one for all, ready to print.

    Keys: ``biome``, ``points``, ``ecoregions`` (how many have a point), ``overlapping`` (points whose square shares
    ground with another's) and ``per cent`` of them.
    """
    rows: list[dict[str, str | int]] = []
    for biome in [*dict.fromkeys(table["biome"]), None]:
        part = table if biome is None else table.loc[table["biome"] == biome]
        overlapping = int((part["overlaps"] > 0).sum())
        rows.append(
            {
                "biome": "all" if biome is None else str(biome),
                "points": len(part),
                "ecoregions": int(part["ecoregion"].nunique()),
                "overlapping": overlapping,
                "per cent": f"{100 * overlapping / max(len(part), 1):.1f}",
            }
        )
    return rows
