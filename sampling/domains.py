"""Domains: for each ecoregion the blocks of cells that may hold its cells, and which need no further test.

A block is a square of k × k cells, itself a cell of the tile grid with k times the pixels (about 40 km). Blocks
wholly inside one polygon need no point-in-polygon test, blocks wholly inside their zone no eligibility test; most of
the land lies in such blocks, which is what makes a plan of a million cells quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import shapely

from mmearth_data import grid
from mmearth_data.grid import BoolArray, FloatArray

_LARGEST_BLOCK_PIXELS = 4096
_TEMPLATE_ZONE = 31
_HALF_WIDTH_METRES = 390_000
"""Widest half zone: 6° at 56° N in 32V (374 km), 3° at the equator (334 km), and a block's margin."""
_NORTHERN_REACH, _SOUTHERN_REACH = 9_300_000, 3_700_000
"""Northings beyond Sentinel-2's coverage: 82.8° N (9.20 Mm) and 56° S (3.79 Mm south of the false northing)."""

Geometries = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Blocks:
    """Blocks as equally long arrays: zone, south, column and row in blocks; ``whole``: all their cells are eligible."""

    edge: int
    """Cells along one edge."""
    pixels: int
    """Pixels along one edge of a cell."""
    zone: npt.NDArray[np.int64]
    south: BoolArray
    column: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    whole: BoolArray

    def take(self, members: npt.NDArray[np.int64]) -> Blocks:
        """The blocks at these positions."""
        return Blocks(
            self.edge,
            self.pixels,
            self.zone[members],
            self.south[members],
            self.column[members],
            self.row[members],
            self.whole[members],
        )

    @property
    def cells(self) -> int:
        """How many cells the blocks hold, eligible or not."""
        return len(self.zone) * self.edge**2

    def cell_ids(self, index: npt.NDArray[np.int64]) -> grid.IdArray:
        """Ids of cells by their number in [0, cells): block by block, within a block row by row."""
        block, offset = np.divmod(index, self.edge**2)
        down, across = np.divmod(offset, self.edge)
        return grid.encode(
            grid.Cells(
                zone=self.zone[block],
                south=self.south[block],
                column=self.column[block] * self.edge + across,
                row=self.row[block] * self.edge + down,
                pixels=np.full(len(index), self.pixels, dtype=np.int64),
            )
        )


@dataclass(frozen=True)
class Domain:
    """Where one ecoregion's cells may lie: its blocks, those ``inside`` it alone, and who else lies in the others.

    ``rivals`` are positions of earlier ecoregions that share a block with it: where polygons overlap, a cell
    belongs to the first that contains its centre.
    """

    blocks: Blocks
    inside: BoolArray
    rivals: tuple[int, ...]


def domains(polygons: Geometries, pixels: int) -> list[Domain]:
    """The domain of each polygon (degrees, EPSG:4326), in order, for tiles of ``pixels`` pixels."""
    blocks, *bounds = _world_blocks(pixels)
    west, south, east, north = shapely.total_bounds(polygons)
    near = (bounds[0] <= east) & (bounds[1] <= north) & (bounds[2] >= west) & (bounds[3] >= south)
    blocks = blocks.take(np.flatnonzero(near))
    tree = shapely.STRtree(shapely.box(*(bound[near] for bound in bounds)))
    count = len(blocks.zone)
    owner, touched = tree.query(polygons, predicate="intersects")
    order = np.lexsort((touched, owner))
    owner, touched = owner[order], touched[order]
    contained = np.zeros(len(owner), dtype=np.bool_)
    pair = owner * count + touched
    inner, inner_block = tree.query(polygons, predicate="contains_properly")
    contained[np.searchsorted(pair, inner * count + inner_block)] = True
    alone = np.bincount(touched, minlength=count)[touched] == 1
    rivals = _rivals(owner, touched, len(polygons))
    starts = np.searchsorted(owner, np.arange(len(polygons) + 1))
    return [
        Domain(blocks.take(touched[a:b]), (contained & alone)[a:b], rivals[number])
        for number, (a, b) in enumerate(pairwise(starts))
    ]


def _rivals(owner: npt.NDArray[np.int64], block: npt.NDArray[np.int64], count: int) -> list[tuple[int, ...]]:
    """For each polygon the earlier ones that share a block with it."""
    order = np.lexsort((owner, block))
    owner, block = owner[order], block[order]
    pairs: list[npt.NDArray[np.int64]] = []
    for step in range(1, len(owner)):
        same = block[step:] == block[:-step]
        if not same.any():
            break
        pairs.append(np.unique(np.column_stack([owner[step:][same], owner[:-step][same]]), axis=0))
    found: list[set[int]] = [set() for _ in range(count)]
    for later, earlier in np.concatenate(pairs) if pairs else ():
        found[later].add(int(earlier))
    return [tuple(sorted(members)) for members in found]


def _world_blocks(pixels: int) -> tuple[Blocks, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Every block that holds ground of its own zone within coverage, and bounds in degrees that enclose each.

    UTM zones differ by their meridian alone, so bounds are computed for one zone per hemisphere and shifted.
    """
    edge = 1 << int(np.log2(_LARGEST_BLOCK_PIXELS // pixels))
    size = pixels * edge * grid.PIXEL_METRES
    parts = [_hemisphere_blocks(pixels * edge, size, south=south) for south in (False, True)]
    zone, hemisphere, column, row, west, south, east, north = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    # A zone's outline runs along meridians and parallels and has no part narrower than a block, so the corners of
    # a block's bounds tell whether all of it, some of it or nothing lies in the zone.
    at_corner = np.stack([grid.zone_of(lon, lat) for lon in (west, east) for lat in (south, north)]) == zone
    covered = (south >= grid.SOUTHERN_LIMIT) & (north <= grid.NORTHERN_LIMIT)
    in_hemisphere = ~hemisphere | ((row + 1) * size <= grid.FALSE_NORTHING)
    whole = at_corner.all(axis=0) & covered & in_hemisphere
    kept = at_corner.any(axis=0) & (north > grid.SOUTHERN_LIMIT) & (south < grid.NORTHERN_LIMIT)
    blocks = Blocks(edge, pixels, zone, hemisphere, column, row, whole).take(np.flatnonzero(kept))
    # Only now: beyond the antimeridian lies another zone, but no polygon.
    west, east = np.maximum(west, -180.0), np.minimum(east, 180.0)
    return blocks, west[kept], south[kept], east[kept], north[kept]


def _hemisphere_blocks(block_pixels: int, size: int, *, south: bool) -> tuple[npt.NDArray[np.generic], ...]:
    """(zone, south, column, row, west, south, east, north) of one hemisphere's blocks in all 60 zones."""
    columns = np.arange((500_000 - _HALF_WIDTH_METRES) // size, (500_000 + _HALF_WIDTH_METRES) // size + 1)
    first, last = (_SOUTHERN_REACH, grid.FALSE_NORTHING) if south else (0, _NORTHERN_REACH)
    rows = np.arange(first // size, last // size + 1)
    column, row = (array.ravel() for array in np.meshgrid(columns, rows))
    template = grid.encode(
        grid.Cells(
            zone=np.full(column.shape, _TEMPLATE_ZONE),
            south=np.full(column.shape, south),
            column=column,
            row=row,
            pixels=np.full(column.shape, block_pixels),
        )
    )
    # Points every 10 km along an outline grown by a 32nd of the block (1.3 km): edges bow by some 30 m between them.
    lon, lat = grid.footprints(template, per_edge=4, margin=size / 32)
    zones = np.arange(1, 61)
    shift = np.repeat(6.0 * (zones - _TEMPLATE_ZONE), len(column))
    return (
        np.repeat(zones, len(column)),
        np.full(60 * len(column), south),
        np.tile(column, 60),
        np.tile(row, 60),
        np.tile(lon.min(axis=1), 60) + shift,
        np.tile(lat.min(axis=1), 60),
        np.tile(lon.max(axis=1), 60) + shift,
        np.tile(lat.max(axis=1), 60),
    )
