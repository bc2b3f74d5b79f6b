"""Candidates: each ecoregion's cells in a pseudo-random order of its own, drawn as far as they are asked for.

The order is a keyed permutation of the cells in the ecoregion's domain, of which those stay that are eligible and
have their centre in the ecoregion. Cells of the tile grid are equally large to 0.2 %, so drawing them evenly is
drawing evenly by area; the order depends on seed, ecoregion and polygons, never on how many cells are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from mmearth_data import grid
from mmearth_data.grid import BoolArray, IdArray
from sampling.domains import Domain, Geometries
from sampling.keyed import permuted
from sampling.splits import clear_of_borders

_LEAST_STEP, _LARGEST_STEP = 64, 1 << 17
_ASSUMED_RATE = 0.3
_LARGEST_SCALE = 1.001
"""Kilometres on the ground per kilometre of UTM's grid are below this everywhere."""


@dataclass
class Refused:
    """Cells with their centre in the ecoregion that were looked at and left out."""

    at_borders: int = 0
    """Not eligible: they reach over a border of their zone, of their hemisphere or of Sentinel-2's coverage."""
    in_buffer: int = 0
    """Too near to another block of the splits."""


class CellStream:
    """The eligible cells of one ecoregion in their order; grows on demand and never repeats a cell."""

    def __init__(
        self,
        polygon: shapely.Geometry,
        rivals: Sequence[shapely.Geometry],
        domain: Domain,
        key: int,
        buffer_km: float = 0.0,
    ) -> None:
        """Polygons are in degrees and prepared; ``rivals`` take precedence where they overlap ``polygon``.

        Cells of different blocks of the splits keep ``buffer_km`` between them.
        """
        self._polygon = polygon
        self._rivals = rivals
        self._domain = domain
        self._key = key
        self._margin = buffer_km / 2
        self.refused = Refused()
        self._drawn = 0
        self._found: IdArray = np.empty(0, dtype=np.int64)

    @property
    def bound(self) -> int:
        """No more cells than this exist; exact once the stream is exhausted."""
        return len(self._found) + self._domain.blocks.cells - self._drawn

    @property
    def exhausted(self) -> bool:
        """Whether every cell of the domain was looked at."""
        return self._drawn == self._domain.blocks.cells

    def take(self, count: int) -> IdArray:
        """Ids of the first ``count`` cells, or of all where the ecoregion has fewer, shape (≤ count,)."""
        parts, found = [self._found], len(self._found)
        while found < count and not self.exhausted:
            rate = found / self._drawn if found else _ASSUMED_RATE
            step = int(np.clip(1.05 * (count - found) / rate, _LEAST_STEP, _LARGEST_STEP))
            index = np.arange(self._drawn, min(self._drawn + step, self._domain.blocks.cells))
            parts.append(self._accepted(index))
            found += len(parts[-1])
            self._drawn += len(index)
        self._found = np.concatenate(parts)
        return self._found[:count]

    def _accepted(self, index: IdArray) -> IdArray:
        """Those cells at these places of the order that are eligible and belong to the ecoregion."""
        blocks = self._domain.blocks
        number = permuted(self._key, index, blocks.cells)
        block = number // blocks.edge**2
        ids = blocks.cell_ids(number)
        kept = self._domain.inside[block]
        kept[~kept] = self._contains(ids[~kept])
        doubtful = kept & ~blocks.whole[block]
        kept[doubtful] = grid.eligible(ids[doubtful])
        self.refused.at_borders += int(np.count_nonzero(doubtful & ~kept))
        if self._margin:
            clear = self._clear(ids[kept])
            self.refused.in_buffer += int(np.count_nonzero(~clear))
            kept[kept] = clear
        return ids[kept]

    def _clear(self, ids: IdArray) -> BoolArray:
        """Whether each cell's whole footprint lies half the buffer or more inside its block of the splits."""
        edge = self._domain.blocks.pixels * grid.PIXEL_METRES / 1000
        return clear_of_borders(*grid.centres(ids), self._margin + _LARGEST_SCALE * edge / 2**0.5)

    def _contains(self, ids: IdArray) -> BoolArray:
        """Whether each cell's centre lies in the ecoregion and in none that comes first, shape (n,)."""
        lon, lat = grid.centres(ids)
        kept: BoolArray = shapely.contains_xy(self._polygon, lon, lat)
        for rival in self._rivals:
            kept[kept] = ~shapely.contains_xy(rival, lon[kept], lat[kept])
        return kept


def cell_streams(
    polygons: Geometries, domains: Sequence[Domain], keys: Sequence[int], buffer_km: float = 0.0
) -> list[CellStream]:
    """One stream per polygon; prepares the polygons in place."""
    shapely.prepare(polygons)
    return [
        CellStream(polygon, [polygons[rival] for rival in domain.rivals], domain, key, buffer_km)
        for polygon, domain, key in zip(polygons, domains, keys, strict=True)
    ]
