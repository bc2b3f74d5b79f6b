"""MMEarth's published layout (version 001): its files, its arrays, and the values it writes where it has nothing.

One folder NAME holds ``NAME.h5`` with an array per modality and row, ``NAME_tile_info.json`` (facts by tile id),
``NAME_splits.json`` (rows of each split) and ``NAME_band_stats.json``. Facts from the data set's own writer and readers
(MMEarth-data, MMEarth-train and TorchGeo's ``MMEarth``). Pixels arrived there as float32 with −inf where masked and
went through HDF5's conversion to the array's dtype, which clamps: int8 canopy holds 127 for the asset's no-data 255 and
−128 for masked pixels, int16 ASTER −32768. Slope lost its fraction on the way: whole degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.convert.journal import ConversionError
from mmearth_data.modalities import BIOME_NAMES, ECOREGION_NAMES, MODALITIES, STORED, Modality

TILE_ID, METADATA = "tile_id", "metadata"
METADATA_DTYPE = np.dtype([(TILE_ID, "S100"), ("S2_type", "S10")])
"""The compound dtype of ``metadata``: one entry per row."""
SPLITS = ("train", "val", "test")
"""Keys of ``NAME_splits.json`` that every reader knows."""
ONE_HOT = {"biome": len(BIOME_NAMES), "eco_region": len(ECOREGION_NAMES)}
CYCLIC = ("lat", "lon", "month")
"""Arrays of sines and cosines: derived from ``NAME_tile_info.json``, here as there."""
UNPUBLISHED = ("cloud_score",)
"""Stored modalities that the layout has no array for."""

DTYPES: dict[str, str] = {
    "sentinel2": "<u2",
    "sentinel2_cloudmask": "<u2",
    "sentinel2_cloudprod": "<u2",
    "sentinel2_scl": "|u1",
    "sentinel1": "<f4",
    "aster": "<i2",
    "era5": "<f4",
    "dynamic_world": "|u1",
    "canopy_height_eth": "|i1",
    "lat": "<f4",
    "lon": "<f4",
    "biome": "|u1",
    "eco_region": "<u2",
    "month": "<f4",
    "esa_worldcover": "|u1",
}
"""Every array but ``metadata`` and its dtype, in the order in which the data set's writer makes them."""

_NO_DATA: dict[str, tuple[int, ...]] = {
    "sentinel2": (0,),
    "sentinel2_cloudmask": (65535,),
    "sentinel2_cloudprod": (65535,),
    "sentinel2_scl": (255, 0),
    "aster": (-32768,),
    "dynamic_world": (0,),
    "canopy_height_eth": (127, -128),
    "esa_worldcover": (255, 0),
}
"""Values that stand for no-data; the first is the one that is written. WorldCover's is 255, for TorchGeo would take a 0
for its first class."""
_SLOPE = 1
"""Index of slope among ASTER's bands: whole degrees there, hundredths here."""
_RADAR_STEPS = 100
"""Steps of the stored Sentinel-1 values per dB."""


@dataclass(frozen=True)
class Files:
    """Where the four files of a data set lie."""

    data: Path
    tile_info: Path
    splits: Path
    band_stats: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Files:
        """The files called ``name`` in ``folder``."""
        tables = (folder / f"{name}_{part}.json" for part in ("tile_info", "splits", "band_stats"))
        return cls(folder / f"{name}.h5", *tables)

    @classmethod
    def find(cls, folder: Path) -> Files:
        """The data set in ``folder``; raises ConversionError unless it holds exactly one ``.h5`` and its tables."""
        if not folder.is_dir():
            raise ConversionError(f"{folder} is no folder; name the one that holds data_….h5 and its JSON files")
        found = sorted(folder.glob("*.h5"))
        if len(found) != 1:
            seen = ", ".join(file.name for file in found) or "none"
            raise ConversionError(f"{folder} must hold one .h5 file of MMEarth's published layout; there is: {seen}")
        files = cls.of(folder, found[0].stem)
        for table in (files.tile_info, files.splits):
            if not table.is_file():
                raise ConversionError(f"{table} is missing; download it beside {files.data.name}")
        return files


def row_shape(name: str, tile_pixels: int) -> tuple[int, ...]:
    """Shape of one row of an array."""
    if name in CYCLIC:
        return (2,)
    if name in ONE_HOT:
        return (ONE_HOT[name],)
    modality = MODALITIES[name]
    side = (tile_pixels, tile_pixels) if modality.scope == "pixel" else ()
    return (len(modality.bands), *side)


def published() -> tuple[Modality, ...]:
    """The stored modalities that the layout has an array for, in store order."""
    return tuple(modality for modality in STORED if modality.name not in UNPUBLISHED)


def decode(modality: Modality, values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Rows of a published array as the store has them, and how many impossible values became no-data.

    Impossible is what is neither the layout's no-data nor within the registry's range or classes: pixels of a canopy
    height blended with its no-data, for one.
    """
    if modality.name in ONE_HOT:
        return _from_one_hot(modality, values)
    if values.dtype.kind == "f":
        return _from_floats(modality, values)
    if values.itemsize > 2:
        stored, impossible = _from_integers(modality, values)
        return stored, int(np.count_nonzero(impossible))
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    tables, impossible = _decoded(modality.name, values.dtype.str)
    return _look_up(tables, values), int(np.count_nonzero(_look_up(impossible, values))) if impossible.any() else 0


def _every(dtype: str, bands: int) -> NDArray[Any]:
    """Each number of an integer dtype of up to 16 bits in order of its bit pattern, (values, bands)."""
    unsigned = f"u{np.dtype(dtype).itemsize}"
    patterns = np.arange(1 << 8 * np.dtype(dtype).itemsize, dtype=unsigned)
    return np.repeat(patterns.view(dtype)[:, None], bands, axis=1)


def _look_up(tables: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """What ``tables`` (bands, patterns) have for each of ``values`` (n, bands, …): one pass, whatever the rules are."""
    patterns = np.ascontiguousarray(values).view(f"u{values.itemsize}")
    found = np.empty(values.shape, tables.dtype)
    for band, table in enumerate(tables):
        found[:, band] = table[patterns[:, band]]
    return found


@cache
def _decoded(name: str, dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Each value of an array as the store has it, and whether it is impossible, both (bands, patterns)."""
    modality = MODALITIES[name]
    stored, impossible = _from_integers(modality, _every(dtype, len(modality.bands)))
    return np.ascontiguousarray(stored.T), np.ascontiguousarray(impossible.T)


def _from_integers(modality: Modality, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    missing = np.isin(values, _NO_DATA[modality.name])
    scaled = values.astype(np.int64)
    if modality.name == "aster":
        scaled[:, _SLOPE] *= 100
    if modality.kind == "categorical":
        possible = np.isin(scaled, modality.class_values)
    else:
        low, high = modality.valid_range
        possible = (scaled >= low) & (scaled <= high)
    stored = np.where(possible & ~missing, scaled, int(modality.nodata)).astype(modality.numpy_dtype)
    return stored, ~possible & ~missing


def _from_floats(modality: Modality, values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Sentinel-1 in dB and ERA5; −inf and NaN are no-data, and so is TorchGeo's +inf for ERA5."""
    radar = modality.name == "sentinel1"
    scaled = np.rint(values * np.float32(_RADAR_STEPS)) if radar else values
    low, high = modality.valid_range
    possible = (scaled >= low) & (scaled <= high)  # neither NaN nor an infinity is
    stored = np.where(possible, scaled, np.float32(modality.nodata)).astype(modality.numpy_dtype)
    missing = np.count_nonzero(np.isnan(values)) + np.count_nonzero(values == -np.inf)
    if not radar:
        missing += np.count_nonzero(values == np.inf)
    return stored, int(values.size - np.count_nonzero(possible) - missing)


def _from_one_hot(modality: Modality, values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Class ids (n, 1); a row without exactly one 1 names no class."""
    one = (values != 0).sum(axis=1) == 1
    ids = np.where(one, values.argmax(axis=1), int(modality.nodata)).astype(modality.numpy_dtype)
    return ids[:, None], 0


def encode(modality: Modality, stored: NDArray[Any]) -> NDArray[Any]:
    """Rows of the store as the published layout writes them: ``decode`` undone, slope cut to whole degrees."""
    name, dtype = modality.name, np.dtype(DTYPES[modality.name])
    if name in ONE_HOT:
        hot: NDArray[Any] = np.equal(stored, np.arange(ONE_HOT[name])).astype(dtype)
        return hot
    return _look_up(_encoded(name), stored) if stored.dtype.kind != "f" else stored.astype(dtype)


@cache
def _encoded(name: str) -> NDArray[Any]:
    """Each stored value of a modality of integers as the layout writes it, (bands, patterns)."""
    modality = MODALITIES[name]
    stored = _every(modality.dtype, len(modality.bands))
    values = stored / np.float32(_RADAR_STEPS) if name == "sentinel1" else stored.astype(np.int32)
    if name == "aster":
        values[:, _SLOPE] //= 100
    no_data = -np.inf if name == "sentinel1" else _NO_DATA[name][0]
    written = np.where(modality.valid(stored), values, no_data).astype(DTYPES[name])
    return np.ascontiguousarray(written.T)


def cyclic(name: str, degrees_or_month: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sine and cosine (n, 2) of latitudes or longitudes in degrees, or of months 1–12 as 2π·month/12."""
    angle = degrees_or_month * (2 * np.pi / 12 if name == "month" else np.pi / 180)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def data_mask(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a published array of numbers holds data."""
    if values.dtype.kind == "f":
        finite: NDArray[np.bool_] = np.isfinite(values)
        return finite
    return ~np.isin(values, _NO_DATA[name])
