"""Deterministic checks of a tile's content: is it possible, is it clear, has it gaps, what is complete.

Only what these functions say of the pixels, and facts of the archive, make a location give way to another; a failure
of the source never does. docs/operations.md lists every check with what follows from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mmearth_data import grid
from mmearth_data.modalities import MODALITIES, PIXEL, STORED, Modality
from mmearth_data.source import Absence, Acquisition, Corrupt, Tile
from mmearth_data.store.schema import Status

CLEAR_SCORE = 0.6
"""A pixel is clear from this Cloud Score+ cs_cdf on (the Cloud Score+ page of the catalogue suggests 0.5 to 0.65)."""
CLEAR_FRACTION = 0.9
"""A tile is clear when at least this fraction of its pixels is."""
QA60_CLOUD_BITS = (1 << 10) | (1 << 11)
"""QA60: bit 10 opaque cloud, bit 11 cirrus; a pixel is clear where both are 0 (Sentinel-2 catalogue page)."""
OFFSET = 1000
"""Added to all reflectances of products since OFFSET_BASELINE, and taken off again by the harmonised collections
(Sentinel-2 catalogue page; ESA, Copernicus Sentinel-2 products since processing baseline 04.00)."""
OFFSET_BASELINE = "04.00"
_CIRRUS_BAND = MODALITIES["sentinel2"].bands.index("B10")
_L1C_ONLY = ("B10",)
_L2A_ONLY = ("sentinel2_cloudprod", "sentinel2_scl")


class Suspicion(StrEnum):
    """What is stored although it looks odd, since it may be honest; a shard warns of it once."""

    CONSTANT = "constant"
    """A reflectance or backscatter band has the same value at every pixel (saturated snow, an empty answer)."""
    OFFSET = "offset"
    """No reflectance of an L2A tile is below 1000 (a desert, or the offset that was not taken off)."""


def check_content(tile: Tile, asked: Sequence[Modality] = PIXEL) -> None:
    """Raise Corrupt where the tile cannot be what was asked for: the modalities ``asked`` that are pixels.

    A modality has the wrong shape or dtype, or a valid value outside its range or classes; no modality has a valid
    pixel; or a clear L1C tile of a product with the reflectance offset still carries it, which shows at 1373 nm, where
    the atmosphere lets next to nothing through.
    """
    if all(not modality.valid(tile.pixels[modality.name]).any() for modality in PIXEL if modality.name in tile.pixels):
        raise Corrupt("no modality has a single valid pixel")
    side = int(grid.decode(tile.acquisition.location_id).pixels[0])
    for modality in (one for one in asked if one.scope == "pixel"):
        stored = tile.pixels.get(modality.name)
        shape = (len(modality.bands), side, side)
        if stored is None or stored.shape != shape or stored.dtype != modality.numpy_dtype:
            seen = "nothing" if stored is None else f"{stored.dtype} {stored.shape}"
            raise Corrupt(f"{modality.name} must be {modality.dtype} {shape}, not {seen}")
        valid = modality.valid(stored)
        values = stored if valid.all() else stored[valid]  # choosing all of them is a copy that takes most of the time
        if not values.size:
            continue
        low, high = modality.valid_range
        if values.min() < low or values.max() > high:
            raise Corrupt(f"{modality.name} must lie within {low:g}…{high:g}; {values.min()}…{values.max()} arrived")
        if modality.kind == "categorical":
            known = np.zeros(int(modality.class_values.max()) + 1, dtype=np.bool_)
            known[modality.class_values] = True
            if not known[values].all():
                raise Corrupt(f"{modality.name} holds the class {values[~known[values]][0]}, which it does not have")
    if tile.acquisition.level == "L1C" and tile.acquisition.baseline >= OFFSET_BASELINE and refusal(tile) is None:
        lowest = int(tile.pixels["sentinel2"][_CIRRUS_BAND].min())
        if lowest >= OFFSET:
            raise Corrupt(
                f"B10 must be near 0 in a clear L1C tile; it is {lowest} or more, with the offset of {OFFSET}"
            )


def suspicions(tile: Tile) -> tuple[Suspicion, ...]:
    """What is odd about a tile that may be stored."""
    found = []
    if any(_constant_bands(tile, name).any() for name in ("sentinel2", "sentinel1")):
        found.append(Suspicion.CONSTANT)
    if tile.acquisition.level == "L2A":
        reflectance = tile.pixels["sentinel2"]
        values = reflectance[MODALITIES["sentinel2"].valid(reflectance)]
        if values.size and values.min() >= OFFSET:
            found.append(Suspicion.OFFSET)
    return tuple(found)


def fingerprint(tile: Tile) -> bytes | None:
    """Equal for two tiles only where their reflectances are; None where every band is constant, which may recur.

    Two places never look the same to a sensor with noise, so equal ones mean that an answer was given twice.
    """
    if _constant_bands(tile, "sentinel2").sum() == len(tile.acquisition.available(MODALITIES["sentinel2"])):
        return None
    return hashlib.blake2b(np.ascontiguousarray(tile.pixels["sentinel2"]).data, digest_size=16).digest()


def _constant_bands(tile: Tile, name: str) -> NDArray[np.bool_]:
    """Which bands are one valid value at every pixel, shape (bands,)."""
    stored = tile.pixels[name]
    first = stored[:, :1, :1]
    constant: NDArray[np.bool_] = (stored == first).all(axis=(1, 2)) & MODALITIES[name].valid(first)[:, 0, 0]
    return constant


def clear_fraction(tile: Tile) -> float:
    """The fraction of the pixels with any reflectance that is clear; 0 where no pixel has any.

    Clear is Cloud Score+ cs_cdf ≥ 0.6 (compared in the stored hundredths); where a pixel has no score, QA60 without
    either cloud bit.
    """
    observed = (tile.pixels["sentinel2"] != MODALITIES["sentinel2"].nodata).any(axis=0)
    if not observed.any():
        return 0.0
    score, flags = tile.pixels["cloud_score"][0], tile.pixels["sentinel2_cloudmask"][0]
    scored = MODALITIES["cloud_score"].valid(score)
    flagged = MODALITIES["sentinel2_cloudmask"].valid(flags)
    unclouded = flagged & ((flags.astype(np.int64) & QA60_CLOUD_BITS) == 0)
    clear = np.where(scored, score >= round(CLEAR_SCORE * 100), unclouded)
    return float(clear[observed].mean())


def gap_pixels(tile: Tile) -> int:
    """Pixels at which a Sentinel-2 band that this level has is no-data."""
    modality = MODALITIES["sentinel2"]
    bands = [modality.bands.index(band) for band in expected_bands(modality, tile.acquisition)]
    return int((~modality.valid(tile.pixels["sentinel2"][bands])).any(axis=0).sum())


def refusal(tile: Tile) -> Absence | None:
    """Why the tile may not be stored, or None: CLOUDY before GAPS, and GAPS where there is nothing to be cloudy."""
    gaps = gap_pixels(tile)
    empty = not (tile.pixels["sentinel2"] != MODALITIES["sentinel2"].nodata).any()
    if not empty and clear_fraction(tile) < CLEAR_FRACTION:
        return Absence.CLOUDY
    return Absence.GAPS if gaps else None


def expected_bands(modality: Modality, acquisition: Acquisition) -> tuple[str, ...]:
    """Every band of ``modality`` that the acquisition's level and orbit modes can have, in registry order.

    Sentinel-2: all but B10 at L2A; its L2A masks only at L2A. Sentinel-1: the polarisations of both passes; of a pass
    that was not found those of the other one, since both directions would be observed in the region's mode.
    """
    if modality.name == "sentinel2":
        return tuple(b for b in modality.bands if acquisition.level == "L1C" or b not in _L1C_ONLY)
    if modality.name in _L2A_ONLY:
        return modality.bands if acquisition.level == "L2A" else ()
    if modality.name == "sentinel1":
        ascending, descending = acquisition.ascending, acquisition.descending
        modes = {"asc": ascending or descending, "desc": descending or ascending}
        wanted = {f"{prefix}_{band}" for prefix, radar in modes.items() if radar for band in radar.polarisations}
        return tuple(band for band in modality.bands if band in wanted)
    return modality.bands


def status_of(modality: Modality, stored: NDArray[np.generic], acquisition: Acquisition) -> Status:
    """COMPLETE where every expected band has data, PARTIAL where some do, ABSENT where none does.

    ``stored`` is (bands, …). A band has data where at least one value is valid; how much of it is the store's
    ``valid_fraction``. Never VACANT, which is the status of a row without a tile.
    """
    valid = modality.valid(stored).reshape(len(stored), -1)
    has_data = {band: bool(valid[index].any()) for index, band in enumerate(modality.bands)}
    if not any(has_data.values()):
        return Status.ABSENT
    complete = all(has_data[band] for band in expected_bands(modality, acquisition))
    return Status.COMPLETE if complete else Status.PARTIAL


def statuses(
    values: dict[str, NDArray[np.generic]], acquisition: Acquisition, stored: Sequence[Modality] = STORED
) -> NDArray[np.uint8]:
    """The status of every stored modality in store order, shape (len(stored),); ``values`` has each by name."""
    return np.array([status_of(m, values[m.name], acquisition) for m in stored], dtype=np.uint8)
