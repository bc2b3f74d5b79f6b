"""A location table of small tiles and a source whose every value has a formula, for the tests of plan and collection.

The source is a real one in that it fulfils the protocol; what the archive has of a location follows from its id.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np

from mmearth_data import grid
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_BIOME, PIXEL
from mmearth_data.source import Absence, Acquisition, Location, RadarPass, Resolved, Tile

PIXELS = 16


def location_table(
    path: Path,
    primaries: int,
    reserves: int,
    *,
    biomes: int = 2,
    years: tuple[int, ...] = (2018, 2019),
    around: Sequence[tuple[float, float]] = ((9.5, 45.5),),
    pixels: int = PIXELS,
) -> gpd.GeoDataFrame:
    """Write a location table with that many locations per stratum, within a degree of each place; returns it."""
    names = BIOME_NAMES[:biomes]
    per_stratum = primaries + reserves
    count = per_stratum * biomes * len(years)
    draw = np.random.default_rng(5)
    centre = np.array(around)[np.arange(3 * count) % len(around)] + draw.uniform(-1, 1, (3 * count, 2))
    ids, first = np.unique(grid.cells_at(centre[:, 0], centre[:, 1], pixels), return_index=True)
    ids = ids[np.argsort(first)]
    ids = ids[grid.eligible(ids)][:count]
    assert len(ids) == count
    lon, lat = grid.centres(ids)
    cells = grid.decode(ids)
    first_ecoregion = {b: next(e for e, biome in ECOREGION_BIOME.items() if biome == b) for b in names}
    stratum = np.arange(count) % (biomes * len(years))
    rank = np.arange(count) // (biomes * len(years))
    biome = [names[s % biomes] for s in stratum]
    table = gpd.GeoDataFrame(
        {
            "location_id": ids,
            "lon": lon,
            "lat": lat,
            "epsg": cells.epsg.astype(np.int32),
            "x0": cells.x0.astype(np.int32),
            "y0": cells.y0.astype(np.int32),
            "biome": biome,
            "ecoregion": [first_ecoregion[b] for b in biome],
            "realm": "Palearctic",
            "country": "",
            "continent": "",
            "year": np.array([years[s // biomes] for s in stratum], dtype=np.int16),
            "reserve": rank >= primaries,
            "rank": rank.astype(np.int32),
            "split": "train",
        },
        geometry=gpd.points_from_xy(lon, lat),
        crs="EPSG:4326",
    )
    table.to_parquet(path)
    return table


@dataclass
class FormulaSource:
    """Acquisitions and pixels by formula.

    ``products`` gives the number of a location's acquisitions, ``cloudy`` and ``gaps`` say which of its tiles are
    (location id, number of the product). ``failures`` are raised, in order, by the next fetches.
    """

    products: dict[int, int] = field(default_factory=dict)
    default_products: int = 2
    cloudy: frozenset[tuple[int, int]] = frozenset()
    gaps: frozenset[tuple[int, int]] = frozenset()
    failures: list[Exception] = field(default_factory=list)
    fetched: Counter[tuple[int, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def resolve(self, locations: Sequence[Location]) -> list[Resolved]:
        return [
            Resolved(
                place.location_id,
                tuple(
                    acquisition(place, k) for k in range(self.products.get(place.location_id, self.default_products))
                ),
            )
            for place in locations
        ]

    def fetch(self, wanted: Acquisition) -> Tile:
        key = (wanted.location_id, int(wanted.sentinel2_id.rpartition("_")[2]))
        with self.lock:
            self.fetched[key] += 1
            if self.failures:
                raise self.failures.pop(0)
        return tile(wanted, cloudy=key in self.cloudy, gaps=key in self.gaps)


def acquisition(place: Location, number: int) -> Acquisition:
    l2a = place.location_id % 2 == 0
    reflectance = [b for b in PIXEL[0].bands if not (l2a and b == "B10")]
    return Acquisition(
        location_id=place.location_id,
        year=place.year,
        level="L2A" if l2a else "L1C",
        sentinel2_id=f"COPERNICUS/S2{'_SR' if l2a else ''}_HARMONIZED/P{place.location_id}_{number}",
        time=1_546_300_800_000 + number,
        scene_cloud=1.5 * number,
        baseline="02.11",
        bands=(*reflectance, "QA60", *(("SCL", "MSK_CLDPRB") if l2a else ())),
        ascending=RadarPass("COPERNICUS/S1_GRD/A", 1_546_300_000_000, ("VV", "VH")),
        descending=None if place.location_id % 3 else RadarPass("COPERNICUS/S1_GRD/D", 1_546_400_000_000, ("VV", "VH")),
        era5=tuple(float(280 + k) for k in range(12)) if place.location_id % 5 else (math.nan,) * 12,
    )


def tile(wanted: Acquisition, *, cloudy: bool = False, gaps: bool = False) -> Tile:
    """Valid values that differ by location, band and pixel; a cloudy tile has 11 % unclear pixels."""
    row, column = np.mgrid[:PIXELS, :PIXELS]
    spread = wanted.location_id % 89 + wanted.time % 7 + 3 * row + 5 * column
    pixels, absent = {}, {}
    for modality in PIXEL:
        low, high = modality.valid_range
        stored = np.full((len(modality.bands), PIXELS, PIXELS), modality.nodata, dtype=modality.dtype)
        for index, band in enumerate(modality.bands):
            if band not in wanted.available(modality):
                continue
            values = spread + 11 * index
            if modality.classes:
                stored[index] = modality.class_values[values % len(modality.classes)]
            elif modality.name == "sentinel2_cloudmask":
                stored[index] = 0
            elif modality.name == "cloud_score":
                stored[index] = 60 + values % 41
            else:
                stored[index] = low + values % min(high - low, 90)
                if band == "B2":  # no two places look the same
                    stored[index] += np.uint16(wanted.location_id * 2_654_435_761 % 60_013)
        if not modality.valid(stored).any():
            absent[modality.name] = Absence.NOT_AT_LEVEL
        pixels[modality.name] = stored
    if cloudy:
        pixels["cloud_score"].reshape(-1)[: int(0.11 * PIXELS**2)] = 59
    if gaps:
        pixels["sentinel2"][2, 3, 4] = 0
    return Tile(wanted, pixels, absent)
