"""Roofs: how much of the ground is built on in each epoch, as the Global Human Settlement Layer tells it.

Follows from the settlements that are there: denser towards a town's centre, where it also began; the epochs after the
last observed one are extrapolated. Bands and units are those of JRC/GHSL/P2023A/GHS_BUILT_S: square metres of each
cell of 100 m in the Mollweide projection (Pesaresi and Politis 2023, doi:10.2905/9F06F36F-4B11-47EC-ABB0-4F8B7B1D72EA).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from mmearth_data.emulator.assets import NativeGrid
from mmearth_data.emulator.world import noise, points
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.landcover import BUILT, ground
from mmearth_data.emulator.world.scenes import Masked, Read
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]

BANDS = ("built_surface", "built_surface_nres")
OBSERVED = 2020
"""The last epoch that was observed."""
_CELL_M2 = 10_000.0
_FINE = 5
"""Points along the side of a cell at which the ground is looked at: every 20 m."""
_OLDEST = 75.0
_NOT_RESIDENTIAL = 0.18
_GROWTH = 0.01
"""Yearly growth of what is built after the last observed epoch."""
_SEA = 2
"""Index of the share of sea among the fields."""


@lru_cache(maxsize=32)
def _roofs(world: World, block: Block, year: int) -> F32:
    """At 10 m: share under roofs in a year, share under roofs that are not homes, sea: (3, rows, columns)."""
    land = ground(world, block)
    key = noise.salt(world.seed, "roofs")
    lot = noise.uniform(land.parcel ^ np.uint32(key))
    use = noise.uniform(land.parcel * np.uint32(2246822519) ^ np.uint32(key))
    share = np.clip(np.float32(0.10) + np.float32(0.75) * land.town + np.float32(0.25) * lot, 0.05, 0.95)
    began = np.float32(OBSERVED) - np.float32(_OLDEST) * np.clip(land.town + np.float32(0.5) * (lot - 0.5), 0.0, 1.0)
    share *= (land.cover == BUILT) & ~land.road & (began <= year)
    share *= np.float32(1.0 + _GROWTH * max(0, year - OBSERVED))
    share = np.minimum(share, np.float32(0.98))
    return np.stack([share, share * (use < _NOT_RESIDENTIAL), (land.terrain.shore < 0.0).astype(np.float32)])


@lru_cache(maxsize=16)
def _cells(
    world: World, year: int, grid: NativeGrid, row0: int, column0: int, height: int, width: int
) -> NDArray[np.float64]:
    """The fields' means over the cells of a window, (3, height, width); both bands of a tile ask for the same."""
    a, _, c, _, e, f = grid.transform
    steps = (np.arange(_FINE) + 0.5) / _FINE
    x, y = np.meshgrid(
        c + a * (np.arange(column0, column0 + width)[:, None] + steps).ravel(),
        f + e * (np.arange(row0, row0 + height)[:, None] + steps).ravel(),
    )
    lon, lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)
    there = np.isfinite(lon) & np.isfinite(lat)
    fields = np.zeros((3, *x.shape))
    fields[_SEA] = 1.0
    if there.any():
        fields[:, there] = points.at(lon[there], lat[there], lambda block: _roofs(world, block, year))
    means: NDArray[np.float64] = fields.reshape(3, height, _FINE, width, _FINE).mean(axis=(2, 4))
    return means


def reader(world: World, band: str, year: int, grid: NativeGrid) -> Read:
    """A reader of windows of one band of an epoch's image; masked where a cell is all sea, or off the Earth."""
    key = noise.salt(world.seed, "roofs seen")

    def read(row0: int, column0: int, height: int, width: int) -> Masked:
        means = _cells(world, year, grid, row0, column0, height, width)
        rows, columns = np.arange(row0, row0 + height), np.arange(column0, column0 + width)
        # The same error for both bands and all epochs, so that a part is never more than the whole.
        error = np.exp(0.12 * noise.normal(noise.hash_grid(key, rows, columns)).astype(np.float64))
        values = np.rint(np.minimum(_CELL_M2 * means[BANDS.index(band)] * error, _CELL_M2)).astype(np.uint16)
        return values, means[_SEA] < 1.0

    return read
