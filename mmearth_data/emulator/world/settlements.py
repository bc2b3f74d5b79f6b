"""Towns and villages: where people live, denser towards a centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.setting import Setting, World

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """``spacing`` and radii in pixels; ``settled`` is the share of places that are."""

    name: str
    spacing: int
    smallest: float
    largest: float
    settled: float


KINDS = (Kind("town", 1100, 45.0, 260.0, 0.75), Kind("village", 300, 9.0, 34.0, 0.6))


@dataclass(frozen=True)
class Places:
    """The centres of a kind of settlement in frame pixels, one per cell of its lattice, and which of them are settled.

    ``radius`` in pixels where one person of the density's unit lives.
    """

    row: F64
    column: F64
    radius: F64
    settled: NDArray[np.bool_]


def places(world: World, kind: Kind, rows: I64, columns: I64) -> Places:
    """The places of lattice cells rows × columns, cells ``kind.spacing`` pixels wide."""
    key = noise.salt(world.seed, kind.name)
    chance = [noise.uniform(noise.hash_grid(key ^ salt, rows, columns)) for salt in range(4)]
    return Places(
        row=(rows[:, None] + 0.15 + 0.7 * chance[0]) * kind.spacing,
        column=(columns[None, :] + 0.15 + 0.7 * chance[1]) * kind.spacing,
        radius=kind.smallest * np.exp(chance[2].astype(np.float64) ** 2.5 * np.log(kind.largest / kind.smallest)),
        settled=chance[3] < kind.settled,
    )


def people(block: Block, setting: Setting) -> F32:
    """How densely the land around each pixel is lived in; 1 in a country of many people."""
    return block.spread(
        np.sqrt(setting.trait["people"])
        * np.exp(0.45 * setting.layer["people 45"] + 0.25 * setting.layer["people 9"])
        / (1.0 + 0.04 * setting.relief)
    )


def density(world: World, block: Block, inhabited: F32) -> F32:
    """How built-up each pixel's surroundings are: 0 in the country, 1 in a town's centre."""
    rows, columns = block.rows(), block.columns()
    reach = float(inhabited.max())
    result = np.zeros((len(rows), len(columns)), dtype=np.float32)
    for kind in KINDS:
        limit, spacing = kind.largest * reach, kind.spacing
        grid_rows = np.arange((rows[0] - limit) // spacing, (rows[-1] + limit) // spacing + 1).astype(np.int64)
        grid_columns = np.arange((columns[0] - limit) // spacing, (columns[-1] + limit) // spacing + 1).astype(np.int64)
        found = places(world, kind, grid_rows, grid_columns)
        near_row = np.clip(found.row, rows[0], rows[-1]) - found.row
        near_column = np.clip(found.column, columns[0], columns[-1]) - found.column
        touching = (np.hypot(near_row, near_column) < found.radius * reach) & found.settled
        for i, j in zip(*np.nonzero(touching), strict=True):
            y = (rows - found.row[i, j]).astype(np.float32)[:, None]
            x = (columns - found.column[i, j]).astype(np.float32)[None, :]
            distance = np.sqrt(y * y + x * x)
            nearness = np.float32(1.0) - distance / (inhabited * np.float32(found.radius[i, j]) + 1e-3)
            np.maximum(result, nearness, out=result)
    return result
