"""A small finalised store of synthetic but coherent tiles, made through the real store: data for tests to read.

Land cover drives every other modality: a tile mixes the classes of its biome over a smooth random field, and each
class has its own reflectance, backscatter, height and canopy. So there is something to learn, and statistics,
training, evaluation and reports can be tested without collecting anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data import grid, statistics
from mmearth_data.modalities import (
    BIOME_NAMES,
    ECOREGION_BIOME,
    ECOREGION_NAMES,
    MODALITIES,
    STORED,
    WORLDCOVER_CLASSES,
)
from mmearth_data.splits import SPLITS
from mmearth_data.store import layout
from mmearth_data.store.rows import row_table
from mmearth_data.store.schema import Status
from mmearth_data.store.shards import ShardData, commit_shard, no_data

YEARS = (2017, 2018, 2019, 2020)
DAY_MS = 86_400_000
_SHARE_OF_SPLITS = (0.7, 0.15, 0.15, 0.0)
_CLASSES = len(WORLDCOVER_CLASSES)
# Dynamic World's class of each WorldCover class: trees, shrub, grass, crops, built, bare, snow, water, flooded, …
_DYNAMIC_WORLD = np.array([2, 6, 3, 5, 7, 8, 9, 1, 4, 4, 3], dtype=np.uint8)
_SCL = np.array([4, 4, 4, 4, 5, 5, 11, 6, 4, 4, 5], dtype=np.uint8)
_CANOPY = np.array([24, 4, 0, 1, 2, 0, 0, 0, 3, 12, 0], dtype=np.float64)
_BACKSCATTER = np.array([-8, -10, -12, -11, -4, -14, -13, -22, -13, -9, -13], dtype=np.float64)


def _world() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reflectance of each class and band, and the four classes each biome is made of; the same for every store."""
    rng = np.random.default_rng(20170101)
    spectra = rng.uniform(300, 4500, size=(_CLASSES, len(MODALITIES["sentinel2"].bands)))
    mixes = np.stack([rng.permutation(_CLASSES)[:4] for _ in BIOME_NAMES])
    return spectra, mixes


def _smooth(rng: np.random.Generator, pixels: int) -> NDArray[np.float64]:
    """A spatially correlated field of zero mean and unit variance: noise at three scales."""
    field = np.zeros((pixels, pixels))
    for cells, weight in ((2, 1.0), (4, 0.6), (8, 0.3)):
        coarse = rng.standard_normal((cells + 1, cells + 1))
        at = np.linspace(0, cells, pixels, endpoint=False)
        low, part = at.astype(np.int64), at % 1.0
        rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
        field += weight * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)
    return (field - field.mean()) / field.std()


def _locations(rng: np.random.Generator, rows: int, pixels: int) -> NDArray[np.int64]:
    """Ids of ``rows`` different eligible cells, spread over land and sea alike."""
    ids = np.empty(0, dtype=np.int64)
    while len(ids) < rows:
        lat = np.degrees(np.arcsin(rng.uniform(-0.8, 0.95, size=2 * rows)))
        cells = grid.cells_at(rng.uniform(-180, 180, size=2 * rows), lat, pixels)
        found = np.concatenate([ids, cells[grid.eligible(cells)]])
        ids = found[np.sort(np.unique(found, return_index=True)[1])]
    return ids[:rows]


class ShardMaker:
    """Draws the rows of one store, shard by shard in order; the same arguments give the same rows."""

    def __init__(self, rows: int, tile_pixels: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.pixels = tile_pixels
        self.spectra, self.mixes = _world()
        self.ids = _locations(self.rng, rows, tile_pixels)
        self.lon, self.lat = grid.centres(self.ids)
        self.cells = grid.decode(self.ids)
        # Blocks of 30 degrees belong to one split whole, as real splits keep to blocks.
        blocks = np.floor(self.lon / 30).astype(int) * 100 + np.floor(self.lat / 30).astype(int)
        names, block = np.unique(blocks, return_inverse=True)
        order = self.rng.permutation(len(names))
        edges = np.cumsum(_SHARE_OF_SPLITS)[:-1] * len(names)
        self.split = np.searchsorted(edges, order, side="right")[block]
        self.ecoregions: dict[str, list[str]] = {biome: [] for biome in BIOME_NAMES}
        for name in ECOREGION_NAMES:
            self.ecoregions[ECOREGION_BIOME[name]].append(name)

    def shard(self, number: int, shard_rows: int) -> ShardData:
        """Draw the next shard."""
        arrays = no_data(self.pixels, shard_rows)
        status = np.zeros((shard_rows, len(STORED)), dtype=np.uint8)
        first = number * shard_rows
        records = [self._fill(first + at, at, arrays, status) for at in range(shard_rows)]
        return ShardData(arrays, status, row_table(records))

    def _fill(self, row: int, at: int, data: dict[str, NDArray[Any]], status: NDArray[np.uint8]) -> dict[str, Any]:
        """Draw row ``row`` into place ``at`` of a shard; returns its line of the row table."""
        rng, n = self.rng, self.pixels
        biome, year = row % len(BIOME_NAMES), YEARS[row // len(BIOME_NAMES) % len(YEARS)]
        record: dict[str, Any] = {
            "row": row, "location_id": int(self.ids[row]), "attempts": 1,
            "lon": float(self.lon[row]), "lat": float(self.lat[row]), "epsg": int(self.cells.epsg[row]),
            "x0": int(self.cells.x0[row]), "y0": int(self.cells.y0[row]),
            "biome": BIOME_NAMES[biome], "realm": "Palearctic", "country": "", "continent": "", "year": year,
            "rank": row // (len(BIOME_NAMES) * len(YEARS)), "reserve": False,
            "split": SPLITS[self.split[row]],
        }  # fmt: skip
        record["ecoregion"] = str(rng.choice(self.ecoregions[BIOME_NAMES[biome]]))
        if row % 29 == 28:
            return {**record, "outcome": "vacant", "reason": "cloudy", "attempts": 8}
        level = "L1C" if rng.random() < 0.4 else "L2A"
        day = int(rng.integers(0, 365))
        time = int(np.datetime64(f"{year}-01-01", "ms").astype(np.int64)) + day * DAY_MS + 37_000_123
        absent: dict[str, str] = {}

        relief, mixing, texture = (_smooth(rng, n) for _ in range(3))
        mix = self.mixes[biome]
        land = mix[np.digitize(mixing, [-0.8, 0.1, 0.9])]
        bands = MODALITIES["sentinel2"].bands
        light = 1 + 0.08 * texture[None] + 0.02 * rng.standard_normal((1, n, n))
        shape = (len(bands), n, n)
        reflectance = self.spectra[land].transpose(2, 0, 1) * light + 15 * rng.standard_normal(shape)
        data["sentinel2"][at] = np.clip(np.rint(reflectance), 1, 10000)
        data["sentinel2_cloudmask"][at] = 0
        data["cloud_score"][at, 0] = np.clip(np.rint(92 + 4 * texture), 0, 100)
        if level == "L2A":
            data["sentinel2"][at, bands.index("B10")] = 0
            data["sentinel2_cloudprod"][at, 0] = np.clip(np.rint(5 - 3 * texture), 0, 100)
            data["sentinel2_scl"][at, 0] = _SCL[land]
        else:
            absent |= {"sentinel2_cloudprod": "not_at_level", "sentinel2_scl": "not_at_level"}

        radar = rng.integers(0, 8)
        base = (_BACKSCATTER[land] + 0.8 * texture) * 100
        passes = [offset for offset, missing in ((0, 1), (4, 2)) if radar not in (0, missing)]
        # Over sea ice and Greenland the radar sends horizontally polarised waves: HH and HV, never beside VV and VH.
        horizontal = 2 if row % 16 == 5 else 0
        for offset in passes:
            speckle = 80 * rng.standard_normal((2, n, n))
            data["sentinel1"][at, offset + horizontal : offset + horizontal + 2] = np.rint(
                base + np.array([0, -650])[:, None, None] + speckle
            )
        if not passes:
            absent["sentinel1"] = "no_pass"
        height = 300 + 120 * biome + 90 * relief
        data["aster"][at, 0] = np.rint(height)
        data["aster"][at, 1] = np.rint(np.clip(np.hypot(*np.gradient(relief)) * 9000, 0, 9000))
        data["dynamic_world"][at, 0] = _DYNAMIC_WORLD[land]
        data["esa_worldcover"][at, 0] = np.array([value for value, _ in WORLDCOVER_CLASSES])[land]
        if rng.random() < 0.9:
            canopy = np.clip(_CANOPY[land] + 2 * texture, 0, 60)
            data["canopy_height_eth"][at] = np.rint([canopy, 1 + canopy / 6])
        else:
            absent["canopy_height_eth"] = "masked"
        if rng.random() < 0.92:
            warmth = 302 - 0.45 * abs(self.lat[row]) - biome + 6 * np.cos(2 * np.pi * (day - 200) / 365)
            month = np.array([warmth, warmth - 5, warmth + 6, 0.002 * (1 + biome)])
            data["era5"][at] = np.concatenate([month + rng.normal(0, [1, 1, 1, 1e-4]) for _ in range(3)])
        else:
            absent["era5"] = "masked"
        data["biome"][at] = biome
        data["eco_region"][at] = ECOREGION_NAMES.index(record["ecoregion"])

        status[at] = [Status.ABSENT if m.name in absent else Status.COMPLETE for m in STORED]
        if len(passes) == 1:
            status[at, [m.name for m in STORED].index("sentinel1")] = Status.PARTIAL
        return {
            **record, "outcome": "stored", "reason": "", "level": level, "time": time,
            "sentinel2_id": f"COPERNICUS/S2_HARMONIZED/{row:06d}", "scene_cloud": float(rng.uniform(0, 10)),
            "baseline": "02.14", "clear_fraction": 0.99,
            **{f"absent_{name}": reason for name, reason in absent.items()},
        }  # fmt: skip


def make_store(
    path: str | Path, *, rows: int = 112, tile_pixels: int = 64, shard_rows: int = 56, seed: int = 0
) -> Path:
    """Make a finalised store of ``rows`` tiles at ``path`` and return that path.

    Row r lies in biome r mod 14 and year 2017 + (r div 14) mod 4. Every 29th row is vacant; about a tenth of the
    tiles lack canopy or ERA5, an eighth Sentinel-1 and a quarter one of its passes; 40 % are L1C; every 16th was seen
    in HH and HV. ``shard_rows`` must divide ``rows``. The same arguments give the same store.
    """
    path = Path(path)
    maker = ShardMaker(rows, tile_pixels, seed)
    layout.create(path, tile_pixels=tile_pixels, shard_rows=shard_rows, attrs={"source": "synthetic", "seed": seed})
    layout.resize(path, rows)
    for shard in range(rows // shard_rows):
        commit_shard(path, shard, maker.shard(shard, shard_rows))
    statistics.finalize(path)
    return path
