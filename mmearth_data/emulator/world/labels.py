"""Dynamic World: a label per Sentinel-2 scene, with the scene's doubts, its snow, and nothing under clouds.

A composite reads every scene of a year over the same block. What the scenes share is kept, the block's usual labels;
the labels of a whole series are computed at once, which costs little more than for a few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from mmearth_data.emulator.world import climate, clouds, noise
from mmearth_data.emulator.world.blocks import Block
from mmearth_data.emulator.world.charts import mistakes
from mmearth_data.emulator.world.compiled import compiled
from mmearth_data.emulator.world.landcover import MANGROVES, MOSS, Ground, ground
from mmearth_data.emulator.world.scenes import OpticalScene, Series
from mmearth_data.emulator.world.setting import World

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bits = NDArray[np.bool_]

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
_KEPT_BYTES = 64 * 2**20
"""Labels kept, of all blocks together: of some fifty blocks with the scenes of a year."""
_AT_ONCE = 12
"""Scenes computed in the same arrays: enough to spare calls, few enough for the processor's cache."""


@dataclass(frozen=True)
class _Usual:
    """What a block's labels are in every scene.

    ``label`` is the usual one, ``second`` the scene's second thought and ``doubt`` how often that comes, ``warmth`` the
    annual mean in °C and ``coldest`` its least; ``bare`` ground shows snow, ``water`` only once it is frozen.
    """

    label: U8
    second: U8
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
    label = np.where(wrong < _DOUBT[label] * np.float32(0.6), _MISTAKEN[label], label)
    return _Usual(
        label=label,
        second=_MISTAKEN[label],
        doubt=_DOUBT[label],
        warmth=land.warmth,
        coldest=float(land.warmth.min()),
        bare=(label != _TREES) & (label != _BUILT),
        water=label == _WATER,
    )


def _swing(land: Ground, months: NDArray[np.float64]) -> NDArray[np.float64]:
    """°C at a block's nodes by which months are warmer than the year: (months, nodes)."""
    return land.setting.swing * climate.season(land.block.lat, months[:, None])


def _scenes(world: World, block: Block, scenes: Sequence[tuple[int, float]]) -> list[U8]:
    """The labels of each scene (datatake, month) over a block."""
    parts = (scenes[first : first + _AT_ONCE] for first in range(0, len(scenes), _AT_ONCE))
    return [made for part in parts for made in _together(world, block, part)]


def _together(world: World, block: Block, scenes: Sequence[tuple[int, float]]) -> list[U8]:
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
    made = np.empty((len(scenes), *usual.label.shape), dtype=np.uint8)
    for number, (mood, out) in enumerate(zip(moods, made, strict=True)):
        _thought(usual.label, usual.second, usual.doubt, mood, out)
        if float(swings[number].min()) + usual.coldest < _MAY_SNOW:
            _snowed(usual.bare, usual.water, usual.warmth + block.spread(swings[number]), mood, out)
        _clouded(hidden[number], out)
    made.flags.writeable = False
    return list(made)


@compiled
def _thought(label: U8, second: U8, doubt: F32, mood: F32, out: U8) -> None:
    """Labels at 10 m where a scene, whose mood is of 20 m, takes the usual ones and where second thoughts."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = second[i, j] if mood[i // 2, j // 2] < doubt[i, j] else label[i, j]


@compiled
def _snowed(bare: Bits, water: Bits, cold: F32, mood: F32, out: U8) -> None:
    """Snow on bare ground below -2 °C, or what the scene takes for that, and on water below -6 °C."""
    low, high, freezing, frozen = np.float32(-1.5), np.float32(2.5), np.float32(-2.0), np.float32(-6.0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            warmer = min(max(mood[i // 2, j // 2], low), high)
            if bare[i, j] and cold[i, j] + warmer < freezing and (not water[i, j] or cold[i, j] < frozen):
                out[i, j] = _SNOW


@compiled
def _clouded(hidden: Bits, out: U8) -> None:
    """No labels where clouds hide the ground at 20 m."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            if hidden[i // 2, j // 2]:
                out[i, j] = CLOUDED


class _Scenes:
    """The labels of scenes, kept for a while.

    A scene that is asked for alone is computed alone. Where a second one of its series is asked for over the same
    block, the rest of the series is computed with it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[World, Block], dict[tuple[int, float], U8]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, world: World, block: Block, scene: tuple[int, float], series: Series) -> U8:
        """The labels of a scene (datatake, month) over a block."""
        known = self._kept.get((world, block), {})
        kept = known.get(scene)
        if kept is not None:
            return kept
        others = [other for other in series.scenes if other != scene]
        missing = [other for other in others if other not in known]
        wanted = [scene, *(missing if len(missing) < len(others) else ())]
        made = _scenes(world, block, wanted)
        with self._lock:
            known = self._kept.setdefault((world, block), {})
            self._bytes += sum(labels.nbytes for new, labels in zip(wanted, made, strict=True) if new not in known)
            known.update(zip(wanted, made, strict=True))
            self._kept.move_to_end((world, block))
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                _, given_up = self._kept.popitem(last=False)
                self._bytes -= sum(labels.nbytes for labels in given_up.values())
        return made[0]


_kept = _Scenes()


def labels(world: World, block: Block, scene: OpticalScene, series: Series) -> U8:
    """A scene's labels at 10 m, ``CLOUDED`` under clouds; ``series`` lists what is read with it."""
    return _kept.get(world, block, (scene.datatake, scene.month), series)
