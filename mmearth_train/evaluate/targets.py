"""What the frozen features are asked to tell: targets computed from stored modalities over the crop.

Adding a target is adding one entry to ``TARGETS``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmearth_data import modalities

Kind = Literal["classification", "regression"]

MIN_VALID_FRACTION = 0.5
"""A tile takes part in a target when at least this share of the crop's pixels has data."""
MIN_BLOCKS = 10
"""An output of a fraction target is scored when it occurs in at least this many blocks: with fewer, a bootstrap
replicate may draw almost none of it, and R² against nearly no variance means nothing."""
OCCURS = 0.01
"""A class occurs in a tile when it covers at least this share of the crop's valid pixels."""
A_ROOF = 0.0005
"""A place is built-up from this share under roofs on: 157 m² of a 560 m crop, a house or two."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Compute = Callable[[NDArray[np.generic]], tuple[NDArray[Any], NDArray[np.bool_]]]


class UnknownTargetError(ValueError):
    """A name that is not a target; the message lists those that are."""


class MissingModalityError(ValueError):
    """A target is asked for whose modality the store does not hold; the message says how to get it."""


@dataclass(frozen=True)
class Target:
    """One question: ``compute`` turns stored values (n, bands[, y, x]) into values (n,) or (n, outputs) and a mask.

    A classification's values are class indices in the order of ``outputs``; a regression's are in ``units``, one
    column per output. ``given_away_by`` names the pretext tasks that hold the answer or another product of it: an
    encoder that was trained on one of them has seen the target.
    """

    name: str
    kind: Kind
    modality: str
    given_away_by: tuple[str, ...]
    outputs: tuple[str, ...]
    units: str
    compute: Compute
    composition: bool = False
    """Whether the outputs are shares of one whole, of which only those that occur often enough are scored."""

    def seen(self, pretext: tuple[str, ...]) -> bool:
        """Whether an encoder with these pretext tasks saw the target."""
        return not set(self.given_away_by).isdisjoint(pretext)


def _class_names(modality: str) -> tuple[str, ...]:
    return tuple(name for _, name in modalities.get(modality).classes)


def worldcover_fractions(stored: NDArray[np.generic]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Share of each class among the valid pixels, (n, 1, y, x) → (n, classes), and which tiles have enough of them."""
    modality = modalities.get("esa_worldcover")
    flat = stored.reshape(len(stored), -1)
    counts = np.stack([(flat == value).sum(axis=1) for value in modality.class_values], axis=1)
    valid = counts.sum(axis=1)
    return counts / np.maximum(valid, 1)[:, None], valid >= MIN_VALID_FRACTION * flat.shape[1]


def worldcover_class(stored: NDArray[np.generic]) -> tuple[IntArray, NDArray[np.bool_]]:
    """Index of the commonest class, (n, 1, y, x) → (n,); the lower class value where two are equally common."""
    fractions, valid = worldcover_fractions(stored)
    return fractions.argmax(axis=1), valid


def canopy_height(stored: NDArray[np.generic]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mean height in metres over pixels with data, (n, 2, y, x) → (n, 1)."""
    modality = modalities.get("canopy_height_eth")
    height = stored[:, modality.bands.index("height")].reshape(len(stored), -1)
    valid = modality.valid(height)
    count = valid.sum(axis=1)
    total = np.where(valid, height, 0).sum(axis=1, dtype=np.float64) * modality.scale_factor
    return (total / np.maximum(count, 1))[:, None], count >= MIN_VALID_FRACTION * height.shape[1]


def _mean_share(
    stored: NDArray[np.generic], name: str, band: str, whole: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """A band's mean over pixels with data as a share of ``whole``, (n, bands, y, x) → (n, 1)."""
    modality = modalities.get(name)
    values = stored[:, modality.bands.index(band)].reshape(len(stored), -1)
    valid = modality.valid(values)
    count = valid.sum(axis=1)
    total = np.where(valid, values, 0).sum(axis=1, dtype=np.float64)
    return (total / (whole * np.maximum(count, 1)))[:, None], count >= MIN_VALID_FRACTION * values.shape[1]


def water_share(stored: NDArray[np.generic]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Share of place and time under water from 1984 to 2021, (n, 2, y, x) → (n, 1)."""
    return _mean_share(stored, "jrc_surface_water", "occurrence", 100.0)


def built_share(stored: NDArray[np.generic]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Share of the ground under roofs in 2020, (n, 2, y, x) → (n, 1)."""
    return _mean_share(stored, "ghsl_built_surface", "built_surface", 10_000.0)


def _present(share: Compute, least: float) -> Compute:
    """Whether a share is at least ``least``: classes absent and present."""

    def compute(stored: NDArray[np.generic]) -> tuple[IntArray, NDArray[np.bool_]]:
        values, valid = share(stored)
        return (values[:, 0] >= least).astype(np.int64), valid

    return compute


def biome(stored: NDArray[np.generic]) -> tuple[IntArray, NDArray[np.bool_]]:
    """Index of the RESOLVE biome, (n, 1) → (n,)."""
    valid = modalities.get("biome").valid(stored[:, 0])
    return np.where(valid, stored[:, 0], 0).astype(np.int64), valid


_LAND_COVER = ("esa_worldcover", "dynamic_world")
_PRESENCE = ("absent", "present")

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="worldcover_class", kind="classification", modality="esa_worldcover", given_away_by=_LAND_COVER,
            outputs=_class_names("esa_worldcover"), units="1", compute=worldcover_class,
        ),
        Target(
            name="worldcover_fractions", kind="regression", modality="esa_worldcover", given_away_by=_LAND_COVER,
            outputs=_class_names("esa_worldcover"), units="1", compute=worldcover_fractions, composition=True,
        ),
        Target(
            name="biome", kind="classification", modality="biome", given_away_by=("biome", "eco_region"),
            outputs=_class_names("biome"), units="1", compute=biome,
        ),
        Target(
            name="canopy_height", kind="regression", modality="canopy_height_eth",
            given_away_by=("canopy_height_eth",), outputs=("mean height",), units="m", compute=canopy_height,
        ),
        Target(
            name="water_share", kind="regression", modality="jrc_surface_water", given_away_by=_LAND_COVER,
            outputs=("mean share",), units="1", compute=water_share,
        ),
        Target(
            name="water_present", kind="classification", modality="jrc_surface_water", given_away_by=_LAND_COVER,
            outputs=_PRESENCE, units="1", compute=_present(water_share, OCCURS),
        ),
        Target(
            name="built_share", kind="regression", modality="ghsl_built_surface", given_away_by=_LAND_COVER,
            outputs=("mean share",), units="1", compute=built_share,
        ),
        Target(
            name="built_present", kind="classification", modality="ghsl_built_surface", given_away_by=_LAND_COVER,
            outputs=_PRESENCE, units="1", compute=_present(built_share, A_ROOF),
        ),
    )
}  # fmt: skip
"""Every target by name.

Surface water and built-up surface are never pretext tasks. But both land cover maps have a class for each, so encoders
that learned from those maps are said to have seen them.
"""


def choose(names: tuple[str, ...], held: Collection[str]) -> tuple[Target, ...]:
    """The targets called ``names``; where none is named, every one whose modality is among ``held``.

    Raises UnknownTargetError, listing the known, and MissingModalityError where a named one's modality is not held.
    """
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise UnknownTargetError(f"unknown task {unknown[0]!r}; choose from: {', '.join(TARGETS)}")
    if not names:
        return tuple(target for target in TARGETS.values() if target.modality in held)
    chosen = tuple(TARGETS[name] for name in dict.fromkeys(names))
    for target in chosen:
        if target.modality not in held:
            raise MissingModalityError(
                f"task {target.name} needs {target.modality}, which the store lacks; "
                f"collect one with --downstream {target.modality}"
            )
    return chosen


def scored_outputs(fractions: FloatArray, block: IntArray) -> NDArray[np.bool_]:
    """Which columns of fractions (n, outputs) occur in enough blocks to be scored, shape (outputs,)."""
    return np.array([len(np.unique(block[column >= OCCURS])) >= MIN_BLOCKS for column in fractions.T])
