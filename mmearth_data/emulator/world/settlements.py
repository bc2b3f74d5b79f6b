"""Towns and villages: where people live, denser towards a centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.setting import Setting, World

F32 = NDArray[np.float32]

_KINDS = (("town", 1100, 45.0, 260.0, 0.75), ("village", 300, 9.0, 34.0, 0.6))
"""Name, spacing in pixels, smallest and largest radius in pixels, and how many of the places are settled."""


def density(world: World, block: Block, setting: Setting) -> F32:
    """How built-up each pixel's surroundings are: 0 in the country, 1 in a town's centre."""
    rows, columns = block.rows(), block.columns()
    people = block.spread(
        np.sqrt(setting.trait["people"])
        * np.exp(0.45 * setting.layer["people 45"] + 0.25 * setting.layer["people 9"])
        / (1.0 + 0.04 * setting.relief)
    )
    reach = float(people.max())
    result = np.zeros((len(rows), len(columns)), dtype=np.float32)
    for name, spacing, smallest, largest, settled in _KINDS:
        limit = largest * reach
        grid_rows = np.arange((rows[0] - limit) // spacing, (rows[-1] + limit) // spacing + 1).astype(np.int64)
        grid_columns = np.arange((columns[0] - limit) // spacing, (columns[-1] + limit) // spacing + 1).astype(np.int64)
        key = noise.salt(world.seed, name)
        chance = [noise.uniform(noise.hash_grid(key ^ salt, grid_rows, grid_columns)) for salt in range(4)]
        radius = smallest * np.exp(chance[2].astype(np.float64) ** 2.5 * np.log(largest / smallest))
        middle_row = (grid_rows[:, None] + 0.15 + 0.7 * chance[0]) * spacing
        middle_column = (grid_columns[None, :] + 0.15 + 0.7 * chance[1]) * spacing
        near_row = np.clip(middle_row, rows[0], rows[-1]) - middle_row
        near_column = np.clip(middle_column, columns[0], columns[-1]) - middle_column
        touching = (np.hypot(near_row, near_column) < radius * reach) & (chance[3] < settled)
        for i, j in zip(*np.nonzero(touching), strict=True):
            y = (rows - middle_row[i, j]).astype(np.float32)[:, None]
            x = (columns - middle_column[i, j]).astype(np.float32)[None, :]
            distance = np.sqrt(y * y + x * x)
            np.maximum(result, np.float32(1.0) - distance / (people * np.float32(radius[i, j]) + 1e-3), out=result)
    return result
