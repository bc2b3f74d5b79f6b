"""Resolving locations to acquisitions in two requests, without an aggregation inside a map.

Request 1 lists each cell's eligible Sentinel-2 products in a random order of its own, at most 8; request 2 the nearest
Sentinel-1 product of each pass for each of them, in one row, and the monthly ERA5-Land values at the cells' centres.
So 100 locations have at most 900 rows, and every request is answered in one page of 1000. What is left to do here is
choosing the level and summing up ERA5's months.

Asset pages: COPERNICUS/S2_SR_HARMONIZED, COPERNICUS/S2_HARMONIZED, COPERNICUS/S1_GRD, ECMWF/ERA5_LAND/MONTHLY_AGGR.
"""

# mypy: disable-error-code="no-any-return"
# (the client builds its objects through a metaclass, which mypy sees as Any)

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ee
import numpy as np

from mmearth_data import grid
from mmearth_data.earthengine.errors import TooLarge
from mmearth_data.source import MAX_ACQUISITIONS, Acquisition, Corrupt, Level, Location, RadarPass, Resolved

SCENE_CLOUD_PERCENT = 10
"""Products with this much cloud over the whole scene, or more, are not candidates (MMEarth, section 3)."""
RADAR_WINDOW_DAYS = 30
"""A Sentinel-1 product counts within this many days of the Sentinel-2 acquisition."""

SENTINEL2_L2A, SENTINEL2_L1C = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2_HARMONIZED"
SENTINEL1 = "COPERNICUS/S1_GRD"
ERA5 = "ECMWF/ERA5_LAND/MONTHLY_AGGR"
_ASSET: dict[Level, str] = {"L2A": SENTINEL2_L2A, "L1C": SENTINEL2_L1C}
_PASSES = ("ASCENDING", "DESCENDING")
_DAY_MS = 86_400_000
_MASK64 = (1 << 64) - 1
_LEVEL_SALT, _ORDER_SALT = 0x4C4556454C, 0x4F52444552

_ERA5_SUMMARY: dict[str, Callable[[Sequence[float]], float]] = {
    "temperature_2m": lambda months: math.fsum(months) / len(months),
    "temperature_2m_min": min,
    "temperature_2m_max": max,
    "total_precipitation_sum": math.fsum,
}
"""How each variable's months become one value, in the registry's order of variables."""

Features = Callable[[ee.FeatureCollection], list[dict[str, Any]]]


def _hash(location_id: int, salt: int) -> int:
    """64 well-mixed bits of an id (splitmix64's finaliser, Steele et al. 2014)."""
    x = (location_id * 0x9E3779B97F4A7C15 + salt) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def preferred_level(location_id: int) -> Level:
    """The level a fair coin keyed by the id asks for; L1C is taken where L2A has no product."""
    return "L2A" if _hash(location_id, _LEVEL_SALT) & 1 else "L1C"


def order_seed(location_id: int) -> int:
    """The seed (31 bits) of the random order in which a location's products are tried."""
    return _hash(location_id, _ORDER_SALT) >> 33


def resolve(features: Features, locations: Sequence[Location]) -> list[Resolved]:
    """The acquisitions of each location, in the order given.

    ``features`` computes a collection's rows. A batch that the service cannot finish at once is halved; one location
    that is still too large raises TooLarge.
    """
    try:
        return _resolve_batch(features, locations)
    except TooLarge:
        if len(locations) == 1:
            raise
        half = len(locations) // 2
        return resolve(features, locations[:half]) + resolve(features, locations[half:])


def _resolve_batch(features: Features, locations: Sequence[Location]) -> list[Resolved]:
    chosen = _choose(features(sentinel2_candidates(locations)), len(locations))
    if not any(chosen):
        return [Resolved(location.location_id, ()) for location in locations]
    passes: dict[tuple[int, int, str], RadarPass] = {}
    months: dict[int, dict[str, Any]] = {}
    for feature in features(companions(locations, [[int(row["time"]) for row in rows] for rows in chosen])):
        row = feature["properties"]
        _require(row, "a row of a location", "cell")
        if "acquired" not in row:
            months[int(row["cell"])] = row
            continue
        _require(row, "a row of Sentinel-1", *(f"{orbit}_index" for orbit in _PASSES))
        for orbit in _PASSES:
            if index := row[f"{orbit}_index"]:
                _require(row, f"the {orbit.lower()} Sentinel-1 image", f"{orbit}_time", f"{orbit}_polarisations")
                polarisations = tuple(str(name) for name in row[f"{orbit}_polarisations"])
                found = RadarPass(f"{SENTINEL1}/{index}", int(row[f"{orbit}_time"]), polarisations)
                passes[int(row["cell"]), int(row["acquired"]), orbit] = found
    return [
        Resolved(
            location.location_id,
            tuple(
                Acquisition(
                    location_id=location.location_id,
                    year=location.year,
                    level=row["level"],
                    sentinel2_id=f"{_ASSET[row['level']]}/{row['index']}",
                    time=int(row["time"]),
                    scene_cloud=float(row["cloud"]),
                    baseline=str(row["baseline"]),
                    bands=tuple(str(band) for band in row["bands"]),
                    ascending=passes.get((cell, int(row["time"]), "ASCENDING")),
                    descending=passes.get((cell, int(row["time"]), "DESCENDING")),
                    era5=era5_values(months.get(cell, {}), int(row["time"])),
                )
                for row in rows
            ),
        )
        for cell, (location, rows) in enumerate(zip(locations, chosen, strict=True))
    ]


def _choose(features: Sequence[dict[str, Any]], cells: int) -> list[list[dict[str, Any]]]:
    """The candidates of each cell at one level, in the order they are tried."""
    found: dict[tuple[int, Level], list[dict[str, Any]]] = defaultdict(list)
    for feature in features:
        row = feature["properties"]
        _require(row, "a Sentinel-2 candidate", "cell", "level", "index", "time", "cloud", "order", "bands")
        found[int(row["cell"]), row["level"]].append({**row, "baseline": row.get("baseline") or ""})
    for rows in found.values():
        rows.sort(key=lambda row: (row["order"], row["index"]))
    return [(found.get((cell, "L2A")) or found.get((cell, "L1C")) or [])[:MAX_ACQUISITIONS] for cell in range(cells)]


def _require(row: Mapping[str, Any], what: str, *names: str) -> None:
    """Raise Corrupt where a row arrived without what was asked for, or with nulls for it."""
    if lacking := [name for name in names if row.get(name) is None]:
        raise Corrupt(f"{what} arrived without {', '.join(lacking)}", str(row).encode())


def _feature(location: Location, properties: dict[str, Any]) -> ee.Feature:
    cell = grid.decode(location.location_id)
    x0, y0, size, epsg = int(cell.x0[0]), int(cell.y0[0]), int(cell.size[0]), int(cell.epsg[0])
    rectangle = ee.Geometry.Rectangle([x0, y0 - size, x0 + size, y0], proj=f"EPSG:{epsg}", geodesic=False)
    return ee.Feature(rectangle, {"epsg": f"EPSG:{epsg}", **properties})


def _milliseconds(year: int) -> int:
    return int(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp() * 1000)


def sentinel2_candidates(locations: Sequence[Location]) -> ee.FeatureCollection:
    """Rows (cell, level, index, time, cloud, baseline, bands, order) of each location's eligible products, at most 8.

    Eligible: taken in the calendar year, under the scene cloud limit, in the cell's own CRS, with a footprint that
    contains the cell. Cells that prefer L2A list both levels, L2A first, since L1C stands in where L2A has none.
    """
    cells: dict[Level, list[ee.Feature]] = {"L2A": [], "L1C": []}
    for index, location in enumerate(locations):
        seed = order_seed(location.location_id)
        properties = {"cell": index, "seed": seed, "start": _milliseconds(location.year)}
        feature = _feature(location, {**properties, "end": _milliseconds(location.year + 1)})
        cells[preferred_level(location.location_id)].append(feature)

    def of_level(level: Level, cell: ee.Feature) -> ee.FeatureCollection:
        region = cell.geometry()
        products = (
            ee.ImageCollection(_ASSET[level])
            .filterDate(cell.get("start"), cell.get("end"))
            .filter(ee.Filter.lt("CLOUDY_PIXEL_PERCENTAGE", SCENE_CLOUD_PERCENT))
            .filterBounds(region)
            .filter(ee.Filter.contains(".geo", region))
            .map(lambda image: image.set("epsg", image.select("B2").projection().crs()))
            .filter(ee.Filter.eq("epsg", cell.get("epsg")))
            .randomColumn("order", cell.get("seed"))
            .limit(MAX_ACQUISITIONS, "order")
        )
        return ee.FeatureCollection(products.map(lambda image: row(ee.Image(image), level, cell)))

    def row(image: ee.Image, level: Level, cell: ee.Feature) -> ee.Feature:
        properties = {
            "cell": cell.get("cell"),
            "level": level,
            "index": image.get("system:index"),
            "time": image.get("system:time_start"),
            "cloud": image.get("CLOUDY_PIXEL_PERCENTAGE"),
            "baseline": image.get("PROCESSING_BASELINE"),
            "order": image.get("order"),
            "bands": image.bandNames(),
        }
        return ee.Feature(None, properties)

    def both(cell: ee.Feature) -> ee.FeatureCollection:
        return of_level("L2A", cell).merge(of_level("L1C", cell)).limit(MAX_ACQUISITIONS)

    listings = {"L2A": both, "L1C": lambda cell: of_level("L1C", cell)}
    parts = [ee.FeatureCollection(cells[level]).map(listings[level]).flatten() for level in cells if cells[level]]
    return ee.FeatureCollection(parts).flatten()


def companions(locations: Sequence[Location], times: Sequence[Sequence[int]]) -> ee.FeatureCollection:
    """Rows of what accompanies the acquisitions of each location, whose ``times`` are given in ms.

    Per time and pass the nearest Sentinel-1 IW product that contains the cell, in one row: (cell, acquired, PASS_index,
    PASS_time, PASS_polarisations), an empty index where there is none; per cell the months of its year and the year
    before: (cell, YYYYMM_variable…).
    """
    window = RADAR_WINDOW_DAYS * _DAY_MS
    resolved = [cell for cell in range(len(locations)) if times[cell]]
    nothing = ee.FeatureCollection([ee.Feature(None, {"index": "", "time": 0, "polarisations": []})])

    def of_cell(cell: ee.Feature) -> ee.FeatureCollection:
        return ee.FeatureCollection(ee.List(cell.get("times")).map(lambda time: of_time(cell, ee.Number(time))))

    def of_time(cell: ee.Feature, time: ee.Number) -> ee.Feature:
        properties = {"cell": cell.get("cell"), "acquired": time}
        for orbit in _PASSES:
            found = ee.Feature(nearest(cell, time, orbit).merge(nothing).first())
            properties |= {f"{orbit}_{name}": found.get(name) for name in ("index", "time", "polarisations")}
        return ee.Feature(None, properties)

    def nearest(cell: ee.Feature, time: ee.Number, orbit: str) -> ee.FeatureCollection:
        region, moment = cell.geometry(), ee.Date(time)
        products = (
            ee.ImageCollection(SENTINEL1)
            .filterDate(time.subtract(window), time.add(window + 1))
            .filter(ee.Filter.eq("instrumentMode", "IW"))
            .filter(ee.Filter.eq("orbitProperties_pass", orbit))
            .filterBounds(region)
            .filter(ee.Filter.contains(".geo", region))
            .map(lambda image: image.set("distance", image.date().difference(moment, "second").abs()))
            .limit(1, "distance")
        )
        return ee.FeatureCollection(products.map(row))

    def row(image: ee.Image) -> ee.Feature:
        properties = {
            "index": image.get("system:index"),
            "time": image.get("system:time_start"),
            "polarisations": image.get("transmitterReceiverPolarisation"),
        }
        return ee.Feature(None, properties)

    cells = [_feature(locations[cell], {"cell": cell, "times": sorted(set(times[cell]))}) for cell in resolved]
    parts = [ee.FeatureCollection(cells).map(of_cell).flatten()]
    lon, lat = grid.centres(np.array([locations[cell].location_id for cell in resolved]))
    for year in sorted({locations[cell].year for cell in resolved}):
        points = [
            ee.Feature(ee.Geometry.Point([float(x), float(y)]), {"cell": cell})
            for cell, x, y in zip(resolved, lon, lat, strict=True)
            if locations[cell].year == year
        ]
        months = (
            ee.ImageCollection(ERA5)
            .filterDate(_milliseconds(year - 1), _milliseconds(year + 1))
            .select(list(_ERA5_SUMMARY))
            .toBands()
        )
        parts.append(months.reduceRegions(ee.FeatureCollection(points), ee.Reducer.first()))
    return ee.FeatureCollection(parts).flatten()


def era5_values(months: dict[str, Any], time: int) -> tuple[float, ...]:
    """The registry's twelve ERA5-Land values for an acquisition at ``time`` (ms since 1970, UTC).

    ``months`` maps YYYYMM_variable to that month's value (None or missing where masked). Periods: the month before,
    the month itself, and the twelve months up to and including it; NaN where a month of the period is masked.
    """
    moment = dt.datetime.fromtimestamp(time / 1000, tz=dt.UTC)
    last = moment.year * 12 + moment.month - 1
    periods = ((last - 1,), (last,), tuple(range(last - 11, last + 1)))
    values: list[float] = []
    for period in periods:
        for variable, summary in _ERA5_SUMMARY.items():
            found = [months.get(f"{month // 12}{month % 12 + 1:02d}_{variable}") for month in period]
            known = [float(value) for value in found if value is not None]
            values.append(summary(known) if len(known) == len(period) else math.nan)
    return tuple(values)
