"""Deterministic checks of a tile's content: is it possible, is it clear, has it gaps, what is complete.

Only what these functions say of the pixels, and facts of the archive, make a location give way to another; a failure
of the source never does.
"""

from __future__ import annotations

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
_L1C_ONLY = ("B10",)
_L2A_ONLY = ("sentinel2_cloudprod", "sentinel2_scl")


def check_content(tile: Tile) -> None:
    """Raise Corrupt where a modality has the wrong shape or dtype, or a valid value outside its range or classes."""
    side = int(grid.decode(tile.acquisition.location_id).pixels[0])
    for modality in PIXEL:
        stored = tile.pixels.get(modality.name)
        shape = (len(modality.bands), side, side)
        if stored is None or stored.shape != shape or stored.dtype != modality.numpy_dtype:
            seen = "nothing" if stored is None else f"{stored.dtype} {stored.shape}"
            raise Corrupt(f"{modality.name} must be {modality.dtype} {shape}, not {seen}")
        values = stored[modality.valid(stored)]
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


def statuses(values: dict[str, NDArray[np.generic]], acquisition: Acquisition) -> NDArray[np.uint8]:
    """The status of every stored modality in store order, shape (len(STORED),); ``values`` has each by name."""
    return np.array([status_of(m, values[m.name], acquisition) for m in STORED], dtype=np.uint8)
