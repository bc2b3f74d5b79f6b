"""The choice of cells: each biome's whole order of them, round by round and year by year."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmearth_data import grid
from mmearth_data.grid import FloatArray, IdArray
from sampling import quotas
from sampling.candidates import CellStream
from sampling.config import SampleConfig
from sampling.errors import TooFewCellsError
from sampling.keyed import IntArray, key_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Claimants:
    """Ecoregions as they compete for locations; streams, areas (km²) and groups are by ecoregion."""

    biomes: Sequence[str]
    members: Sequence[IntArray]
    """Positions of each biome's ecoregions."""
    streams: Sequence[CellStream]
    areas: FloatArray
    groups: IntArray
    """Groups that share a biome equally."""


def choose(
    config: SampleConfig, claimants: Claimants, shape: tuple[int, int], told: Progress
) -> tuple[IdArray, IntArray]:
    """Cell ids and positions of their ecoregions for (rounds, years), each of shape (biomes, rounds, years).

    Raises TooFewCellsError where a biome runs out of cells.
    """
    rounds, years = shape
    cells: dict[int, IdArray] = {}
    region: dict[int, IntArray] = {}
    done, total = 0, len(claimants.streams)
    told("cells", done, total)
    # The smallest biome first: it is the one that a plan too large fails on.
    sizes = [float(claimants.areas[members].sum()) for members in claimants.members]
    for number in sorted(range(len(sizes)), key=sizes.__getitem__):
        belonging = claimants.members[number]
        mine = [claimants.streams[k] for k in belonging]
        weight = quotas.weights(claimants.areas[belonging])
        seats = _seats(mine, weight, claimants.groups[belonging], rounds * years)
        if len(seats) < rounds * years:
            raise _too_few(config, claimants.biomes, number, mine, shape, sizes)
        chosen = np.empty(len(seats), dtype=np.int64)
        for place, stream in enumerate(mine):
            taken = seats == place
            chosen[taken] = stream.take(int(taken.sum()))
        order = quotas.year_order(key_of(config.seed, "years", claimants.biomes[number]), rounds, years)
        back = np.argsort(order, axis=1)
        cells[number] = np.take_along_axis(chosen.reshape(rounds, years), back, axis=1)
        region[number] = np.take_along_axis(belonging[seats].reshape(rounds, years), back, axis=1)
        done += len(belonging)
        told("cells", done, total)
    numbers = range(len(sizes))
    return np.stack([cells[k] for k in numbers]), np.stack([region[k] for k in numbers])


def _seats(streams: Sequence[CellStream], weight: FloatArray, group: IntArray, seats: int) -> IntArray:
    """Which of one biome's ecoregions gets each seat; fewer than ``seats`` where the biome runs out of cells.

    How many cells an ecoregion holds is known only once its stream ran dry, so seats are apportioned again until
    every stream has what it was given; the outcome is that of caps known from the start.
    """
    while True:
        caps = np.array([stream.bound for stream in streams], dtype=np.int64)
        order = quotas.apportion_in_groups(weight, caps, group, seats)
        wanted = np.bincount(order, minlength=len(streams))
        short = False
        for stream, count in zip(streams, wanted, strict=True):
            short |= len(stream.take(int(count))) < count
        if not short:
            return order


def _too_few(
    config: SampleConfig,
    biomes: Sequence[str],
    lacking: int,
    streams: Sequence[CellStream],
    shape: tuple[int, int],
    areas: Sequence[float],
) -> TooFewCellsError:
    """What to say where a biome has too few cells: how many each has, and the largest plan that fits."""
    cells = sum(len(stream.take(stream.bound)) for stream in streams)
    cell_km2 = (config.tile_size * grid.PIXEL_METRES / 1000) ** 2
    held = [cells if k == lacking else round(area / cell_km2) for k, area in enumerate(areas)]
    listed = ", ".join(f"{name} {'' if k == lacking else 'about '}{held[k]:,}" for k, name in enumerate(biomes))
    rounds, years = shape
    most = quotas.largest_plan(min(held), years, len(biomes))
    return TooFewCellsError(
        f"{config.locations:,} locations need {rounds * years:,} cells in each biome, reserves included, and "
        f"{biomes[lacking]} has {cells:,} eligible ones; ask for at most {most:,} (cells by biome: {listed})",
        most,
    )
