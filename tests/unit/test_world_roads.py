"""Roads link the settlements of the procedural Earth, and every sensor sees them."""

from __future__ import annotations

from functools import cache

import numpy as np

from mmearth_data.emulator.world import blocks, charts, frames, landcover, radar, roads, setting, settlements, spectra
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.catalogue.orbits import HalfPlane
from mmearth_data.emulator.world.phenology import shares
from mmearth_data.emulator.world.planet import LATITUDE, LONGITUDE
from mmearth_data.emulator.world.scenes import RadarScene

TOWN = settlements.KINDS[0]
SWING = 30
"""Pixels by which a road may bend away from the straight line between two towns."""


@cache
def world() -> setting.World:
    return setting.world(0)


@cache
def windows(count: int = 5) -> tuple[tuple[int, int, int], ...]:
    """Frame, first row and first column of places in populous biomes."""
    rng, found = np.random.default_rng(8), []
    rows, columns = np.nonzero(np.isin(world().biomes, (4, 12)) & (np.abs(LATITUDE[:, None]) < 60))
    for number in rng.choice(len(rows), count, replace=False):
        lon, lat = LONGITUDE[columns[number]][None], LATITUDE[rows[number]][None]
        epsg = int(frames.frame_of(lon, lat)[0])
        x, y = frames.from_lonlat(epsg, lon, lat)
        found.append((epsg, int(-y[0] / 10), int(x[0] / 10)))
    return tuple(found)


def crossed(epsg: int, row: int, column: int) -> bool:
    """Whether there is a road within SWING pixels."""
    side = 2 * SWING + 1
    place = (row - SWING, column - SWING)
    return bool(blocks.assemble(epsg, 1, *place, side, side, mask).any())


def mask(block: Block) -> np.ndarray:
    return roads.over(world(), block, settlements.people(block, world().setting(block)))


def test_neighbouring_towns_are_linked_where_enough_people_live() -> None:
    linked = total = 0
    for epsg, row, column in windows():
        cells = (
            np.arange(row // TOWN.spacing, row // TOWN.spacing + 2),
            np.arange(column // TOWN.spacing - 1, column // TOWN.spacing + 2),
        )
        found = settlements.places(world(), TOWN, *cells)
        for i in range(2):
            for j in range(2):
                if not (found.settled[i, j] and found.settled[i, j + 1]):
                    continue
                ends = [np.array([found.row[i, k], found.column[i, k]]) for k in (j, j + 1)]
                middles = [(ends[0] * (1 - t) + ends[1] * t).astype(int) for t in (0.15, 0.32, 0.5, 0.68, 0.85)]
                lived = [settlements.people(b, world().setting(b)).min() for b in (_block(epsg, m) for m in middles)]
                if min(lived) < 0.4:
                    continue
                total += 1
                linked += all(crossed(epsg, *map(int, middle)) for middle in middles)
    assert total >= 4
    assert linked == total


def _block(epsg: int, at: np.ndarray) -> Block:
    return blocks.block(epsg, int(at[0]) // blocks.CORE, int(at[1]) // blocks.CORE)


def test_roads_are_lines_and_the_land_map_and_the_radar_tell_them_from_towns_and_fields() -> None:
    seen: dict[str, list[np.ndarray]] = {
        name: [] for name in ("map", "road", "town", "forest", "sealed", "sealed forest")
    }
    scene = RadarScene(1, 6.5, 2019, True, HalfPlane(1.0, 0.0, 0.0), 80.0, ())
    for epsg, row, column in windows():
        for step in range(30):
            block = blocks.block(epsg, row // blocks.CORE + step // 6, column // blocks.CORE + step % 6)
            land = landcover.ground(world(), block)
            road = land.road & (land.town <= 0.0)
            if road.sum() < 60:
                continue
            # Roads are lines of one to three pixels: hardly any square of 5 × 5 is all road.
            wide = np.lib.stride_tricks.sliding_window_view(land.road, (5, 5)).all(axis=(2, 3))
            assert wide.mean() < 0.002
            echo = radar.backscatter(world(), block, scene, "VV")
            sealed = shares(world(), block, 6.5 if not block.south else 0.5, 2019)[spectra.BUILT]
            forest = land.cover == landcover.TREES
            seen["map"].append(charts.worldcover(world(), block)[road] == 50)
            seen["road"].append(echo[road])
            seen["town"].append(echo[(land.cover == landcover.BUILT) & ~land.road])
            seen["forest"].append(echo[forest])
            seen["sealed"].append(sealed[road])
            seen["sealed forest"].append(sealed[forest])
    mean = {name: float(np.concatenate(parts).mean()) for name, parts in seen.items()}
    assert len(seen["map"]) >= 8
    assert mean["map"] > 0.8
    assert mean["road"] < mean["town"] - 6.0
    assert mean["road"] < mean["forest"] - 3.0
    assert mean["sealed"] > mean["sealed forest"] + 0.5
