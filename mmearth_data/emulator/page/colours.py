"""What the page's maps look like: each layer of the world as an RGB picture of one tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import overview
from mmearth_data.emulator.world.landcover import WATER
from mmearth_data.emulator.world.overview import View
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def _rgb(*colours: str) -> F32:
    """Colours such as "a1b2c3" as rows of red, green, blue (0–255)."""
    return np.array([[int(colour[at : at + 2], 16) for at in (0, 2, 4)] for colour in colours], dtype=np.float32)


COVER = _rgb(
    "5b8f62", "c3b573", "bfd294", "e8d49b", "c4615f", "dbd2c4", "f7f9fb", "9cc3dc", "83bab1", "47a08a", "dedcb4"
)  # fmt: skip
"""By class index."""
COVER_NAMES = (
    "Trees", "Shrubs", "Grass", "Crops", "Built up", "Bare", "Snow and ice", "Water", "Wetland", "Mangroves", "Moss"
)  # fmt: skip
_SEEN = _rgb(
    "35502f", "75704a", "77834c", "8d8857", "9d978f", "b9a27f", "f4f6f8", "1d3a4d", "4b5f45", "2f5740", "84835f"
)
"""The same as an eye above the air would see them."""
BIOME = _rgb(
    "3f8f5f", "8fb45c", "5f9e86", "79ac6a", "4f8579", "6f9fa3", "d3b866", "ddd08f", "74b5bd", "b59aa8", "c9d3d6",
    "cf9067", "e7d3ae", "3aa394", "f2f5f7",
)  # fmt: skip
"""By BIOME_NUM − 1, rock and ice last."""
_SEA, _DEEP = _rgb("b3d3e5", "8bb5d1")
STEPS = np.array([0.0, 150.0, 500.0, 1100.0, 2000.0, 3200.0, 4800.0], dtype=np.float32)
HEIGHTS = _rgb("8fb98a", "b7cd95", "e2dcae", "d3b78c", "b1906f", "a08f86", "f6f6f6")
"""Metres above the sea, and their colours."""
_SLOPE_METRES = 30.0
"""Slopes are taken over so much on each side, three of the world's pixels: the edges of one alone would be lit."""
_SHADE_METRES = 2500.0
"""Slopes are drawn as if pixels were never wider: mountains of a continent would be flat otherwise."""


def _reach(view: View) -> int:
    """Pixels on each side that a slope is taken over."""
    return max(1, math.ceil(_SLOPE_METRES / view.metres))


def _shaded(picture: F32, height: F32, view: View) -> F32:
    """A picture (3, n, n) lit from the north-west; heights have ``_reach`` pixels more on each side."""
    reach, size = _reach(view), view.size
    apart = min(view.metres, _SHADE_METRES) * (reach + 1.0)
    sums = np.zeros((len(height) + 1, len(height) + 1))
    sums[1:, 1:] = height.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)

    def mean(top: int, left: int, rows: int, columns: int) -> F32:
        """Means of a box of pixels that moves with each pixel of the picture."""
        low, high = slice(top, top + size), slice(top + rows, top + rows + size)
        west, east = slice(left, left + size), slice(left + columns, left + columns + size)
        total = sums[high, east] - sums[low, east] - sums[high, west] + sums[low, west]
        return (total / (rows * columns)).astype(np.float32)

    across = reach | 1
    start = reach - across // 2
    east = (mean(start, reach + 1, across, reach) - mean(start, 0, across, reach)) / apart
    south = (mean(reach + 1, start, reach, across) - mean(0, start, reach, across)) / apart
    steeper = np.float32(1.0 + np.log2(1.0 + view.metres / 40.0))
    light: F32 = np.clip(np.float32(1.0) + (-east - south) * steeper * np.float32(0.5), 0.72, 1.22)
    return picture * light


def _at_sea(picture: F32, shore: F32, depth: F32) -> F32:
    """A picture with the sea where the shore is negative, darker where ``depth`` is less."""
    deep = np.clip(-depth / np.float32(1400.0), 0.0, 1.0)
    sea = _SEA[:, None, None] + (_DEEP - _SEA)[:, None, None] * deep
    return np.where(shore < 0.0, sea, picture)


def _wider(view: View) -> View:
    """The view with the margin that its slopes need."""
    reach = _reach(view)
    return View(view.west - reach * view.metres, view.north + reach * view.metres, view.metres, view.size + 2 * reach)


def _inner(field: NDArray[Any], view: View) -> NDArray[Any]:
    """What lies in a view of what was made for a wider one."""
    reach = _reach(view)
    return field[..., reach:-reach, reach:-reach]


def _blended(shares: F32, colours: F32) -> F32:
    blended: F32 = np.tensordot(colours.T, shares, axes=1) / np.maximum(shares.sum(axis=0), np.float32(1e-3))
    return blended


def _of_classes(world: World, view: View, colours: F32, shaded: bool) -> F32:
    wide = _wider(view)
    if view.fine:
        cover, height = overview.near(world, wide)
        picture = np.moveaxis(colours[_inner(cover, view)], -1, 0)
    else:
        fields = overview.afar(world, wide)
        picture = _at_sea(
            _blended(_inner(fields.shares, view), colours), _inner(fields.shore, view), _inner(fields.depth, view)
        )
        height = np.maximum(fields.height, 0.0) * (fields.shore >= 0.0)
    return _shaded(picture, height, view) if shaded else picture


def cover(world: World, view: View) -> F32:
    """Land cover: the class of each pixel, or from afar the mean colour of what is there."""
    return _of_classes(world, view, COVER, shaded=False)


def true_colour(world: World, view: View) -> F32:
    """What an eye would see in summer, without air and clouds."""
    if not view.fine:
        return _of_classes(world, view, _SEEN, shaded=True)
    reflectance = overview.summer(world, view)
    bright = np.clip(reflectance / np.float32(3000.0), 0.0, 1.0) ** np.float32(0.6) * np.float32(255.0)
    return _shaded(bright.astype(np.float32), overview.near(world, _wider(view))[1], view)


def elevation(world: World, view: View) -> F32:
    """Height above the sea, with shaded slopes."""
    wide = _wider(view)
    if view.fine:
        cover, height = overview.near(world, wide)
        wet = (_inner(cover, view) == WATER) & (_inner(height, view) <= 0.0)
        shore = depth = np.where(wet, np.float32(-1.0), np.float32(1.0))
    else:
        fields = overview.afar(world, wide)
        shore, depth = _inner(fields.shore, view), _inner(fields.depth, view)
        height = np.maximum(fields.height, 0.0) * (fields.shore >= 0.0)
    tint = np.stack([np.interp(_inner(height, view), STEPS, HEIGHTS[:, channel]) for channel in range(3)])
    return _at_sea(_shaded(tint.astype(np.float32), height, view), shore, depth)


def biome(world: World, view: View) -> F32:
    """Biomes, as the ecoregions have them."""
    number = overview.biome(world, view)
    land = np.moveaxis(BIOME[np.maximum(number, 1) - 1], -1, 0)
    sea = np.where(number == 0, np.float32(-1.0), np.float32(1.0))
    if view.fine:
        return _at_sea(land, sea, sea)
    fields = overview.afar(world, view)
    return _at_sea(land, np.minimum(fields.shore, sea), fields.depth)


LAYERS: dict[str, tuple[str, Callable[[World, View], F32]]] = {
    "true": ("True colour", true_colour),
    "cover": ("Land cover", cover),
    "biomes": ("Biomes", biome),
    "elevation": ("Elevation", elevation),
}
"""Title and painter of each layer of the map; a painter yields (3, size, size), 0–255."""
