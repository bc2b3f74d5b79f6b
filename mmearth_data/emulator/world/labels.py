"""Dynamic World: a label per Sentinel-2 scene, with the scene's doubts, its snow, and nothing under clouds.

A composite reads every scene of a year over the same block. What the scenes share is kept, the block's usual labels;
what each of them changes is computed for a whole series at once, which costs little more than for a few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import climate, clouds, noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.charts import mistakes
from mmearth_data.emulator.world.landcover import MANGROVES, MOSS, Ground, ground
from mmearth_data.emulator.world.scenes import OpticalScene, Series
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bits = NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)

CLOUDED = 255
"""Instead of a label, where clouds hide the ground."""
_HIDES = 0.30
"""Share of the ground that clouds must hide for a pixel to have no label."""
_WATER, _TREES, _GRASS, _FLOODED, _CROPS, _SHRUB, _BUILT, _BARE, _SNOW = range(9)
_LABEL = np.array(
    [_TREES, _SHRUB, _GRASS, _CROPS, _BUILT, _BARE, _SNOW, _WATER, _FLOODED, _TREES, _SHRUB], dtype=np.uint8
)
"""The label of each cover class."""
_MISTAKEN = np.array([_FLOODED, _SHRUB, _SHRUB, _GRASS, _BARE, _GRASS, _BARE, _SHRUB, _BARE], dtype=np.uint8)
_DOUBT = np.array([0.02, 0.05, 0.24, 0.22, 0.14, 0.20, 0.10, 0.10, 0.04], dtype=np.float32)
"""How often a scene takes the label for the other one."""
_MAY_SNOW = 0.0
"""Above this temperature in °C no label changes to snow, whatever the scene's doubts."""
_KEPT_SCENES = 8192
_AT_ONCE = 12
"""Scenes computed in the same arrays: enough to spare calls, few enough for the processor's cache."""


def _parted(field: NDArray[_Kind]) -> NDArray[_Kind]:
    """A field of 10 m as the four pixels of each pixel of 20 m: (4, rows, columns)."""
    rows, columns = field.shape[0] // 2, field.shape[1] // 2
    return field.reshape(rows, 2, columns, 2).transpose(1, 3, 0, 2).reshape(4, rows, columns)


def _joined(parts: U8) -> U8:
    """What ``_parted`` was made of."""
    _, rows, columns = parts.shape
    return parts.reshape(2, 2, rows, columns).transpose(2, 0, 3, 1).reshape(2 * rows, 2 * columns)


@dataclass(frozen=True)
class _Usual:
    """What a block's labels are in every scene: all but ``coldest`` as ``_parted`` has them.

    ``label`` is the usual one, ``changes`` turns it into the scene's second thought (by exclusive or), ``doubt`` is how
    often that comes, ``warmth`` the annual mean in °C and ``coldest`` its least; ``bare`` ground shows snow, ``water``
    only once it is frozen.
    """

    label: U8
    changes: U8
    doubt: F32
    warmth: F32
    coldest: float
    bare: Bits
    water: Bits


@lru_cache(maxsize=96)
def _usual(world: World, block: Block) -> _Usual:
    land = ground(world, block)
    label = _LABEL[land.cover]
    label[(land.cover == MOSS) & (land.vigour > 0.45)] = _GRASS
    label[(land.cover == MANGROVES) & (land.vigour < 0.35)] = _FLOODED
    wrong = mistakes(noise.salt(world.seed, "dynamic world"), block, 9.0)
    label = _parted(np.where(wrong < _DOUBT[label] * np.float32(0.6), _MISTAKEN[label], label))
    return _Usual(
        label=label,
        changes=label ^ _MISTAKEN[label],
        doubt=_DOUBT[label],
        warmth=_parted(land.warmth),
        coldest=float(land.warmth.min()),
        bare=(label != _TREES) & (label != _BUILT),
        water=label == _WATER,
    )


class _Scene(NamedTuple):
    """What a scene changes in a block's usual labels, as packed bits (``_parted`` but for ``hidden``, of 20 m)."""

    hidden: U8
    doubted: U8
    snow: U8 | None


def _swing(land: Ground, months: NDArray[np.float64]) -> NDArray[np.float64]:
    """°C at a block's nodes by which months are warmer than the year: (months, nodes)."""
    return land.setting.swing * climate.season(land.block.lat, months[:, None])


def _scenes(world: World, block: Block, scenes: Sequence[tuple[int, float]]) -> list[_Scene]:
    """What each scene (datatake, month) changes in a block."""
    parts = (scenes[first : first + _AT_ONCE] for first in range(0, len(scenes), _AT_ONCE))
    return [made for part in parts for made in _together(world, block, part)]


def _together(world: World, block: Block, scenes: Sequence[tuple[int, float]]) -> list[_Scene]:
    """``_scenes`` of a few scenes, whose fields are made in the same arrays."""
    usual = _usual(world, block)
    months = np.array([month for _, month in scenes])
    datatakes = np.array([datatake for datatake, _ in scenes], dtype=np.uint32)
    hidden = clouds.hidden(world.planet, block, datatakes, months, _HIDES)
    rows, columns = block.rows(2), block.columns(2)
    keys = np.array([noise.salt("labels", datatake) for datatake, _ in scenes], dtype=np.uint32)
    # A scene's doubts come in patches of 20 m and more.
    moods = noise.uniform(noise.hash_grids(keys, rows, columns))
    moods += np.float32(0.12) * noise.smooths(keys ^ np.uint32(1), rows, columns, 3.0)
    swings = _swing(ground(world, block), months)
    made = []
    for number, mood in enumerate(moods):
        snow = None
        if float(swings[number].min()) + usual.coldest < _MAY_SNOW:
            cold = usual.warmth + _parted(block.spread(swings[number]))
            snow = cold + np.clip(mood, -1.5, 2.5) < np.float32(-2.0)
            snow &= usual.bare
            snow &= ~usual.water | (cold < np.float32(-6.0))
        doubted = np.packbits(mood < usual.doubt)
        made.append(_Scene(np.packbits(hidden[number]), doubted, None if snow is None else np.packbits(snow)))
    return made


class _Scenes:
    """What scenes change, kept for a while.

    A scene that is asked for alone is computed alone. Where a second one of its series is asked for over the same
    block, the rest of the series is computed with it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[World, Block, int, float], _Scene] = OrderedDict()
        self._lock = Lock()

    def get(self, world: World, block: Block, datatake: int, month: float, series: Series) -> _Scene:
        """What a scene changes in a block."""
        kept = self._kept.get((world, block, datatake, month))
        if kept is not None:
            return kept
        others = [scene for scene in series.scenes if scene != (datatake, month)]
        missing = [scene for scene in others if (world, block, *scene) not in self._kept]
        wanted = [(datatake, month), *(missing if len(missing) < len(others) else ())]
        made = _scenes(world, block, wanted)
        with self._lock:
            self._kept.update({(world, block, *scene): found for scene, found in zip(wanted, made, strict=True)})
            while len(self._kept) > _KEPT_SCENES:
                self._kept.popitem(last=False)
        return made[0]


_kept = _Scenes()


def labels(world: World, block: Block, scene: OpticalScene, series: Series) -> U8:
    """A scene's labels at 10 m, ``CLOUDED`` under clouds; ``series`` lists what is read with it."""
    usual = _usual(world, block)
    own = _kept.get(world, block, scene.datatake, scene.month, series)
    shape = usual.label.shape

    def unpacked(bits: U8) -> U8:
        return np.unpackbits(bits, count=usual.label.size).reshape(shape)

    label = usual.label ^ (usual.changes * unpacked(own.doubted))
    if own.snow is not None:
        label ^= (label ^ np.uint8(_SNOW)) * unpacked(own.snow)
    label |= np.unpackbits(own.hidden, count=shape[1] * shape[2]).reshape(shape[1:]) * np.uint8(CLOUDED)
    return _joined(label)
