"""MMEarth's published way to keep and to load tiles, for comparison: one HDF5 file, gzip, one tile per chunk.

Written from its description: arrays (tiles, bands, y, x) in one file, Sentinel-1 as float32, one-hot biomes and
ecoregions; a map-style dataset that reads, normalises and crops sample by sample, and a collating loader.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS

PIXEL = ("sentinel2", "sentinel1", "aster", "dynamic_world", "canopy_height_eth", "esa_worldcover")
MASKS = ("sentinel2_cloudmask", "sentinel2_cloudprod", "sentinel2_scl")
IMAGE = ("era5", "lat", "lon", "month", "biome", "eco_region")
DTYPES = {"sentinel1": "float32", "canopy_height_eth": "int8", "sentinel2_cloudprod": "uint16"}
CLASSES = {
    "dynamic_world": MODALITIES["dynamic_world"].class_values.tolist(),
    "esa_worldcover": MODALITIES["esa_worldcover"].class_values.tolist(),
}
BATCH = 64


class Writer:
    """Appends tiles to a new file, one at a time."""

    def __init__(self, path: Path, tiles: int, pixels: int) -> None:
        self.file = h5py.File(path, "w")
        self.random = np.random.default_rng(0)
        for name in (*PIXEL, *MASKS):
            modality = MODALITIES[name]
            shape = (len(modality.bands), pixels, pixels)
            self.file.create_dataset(
                name,
                shape=(tiles, *shape),
                chunks=(1, *shape),
                dtype=DTYPES.get(name, modality.dtype),
                compression="gzip",
            )
        for name in IMAGE:
            modality = MODALITIES[name]
            width = len(modality.classes) or len(modality.bands)
            self.file.create_dataset(
                name, shape=(tiles, width), chunks=(1, width), dtype=modality.dtype, compression="gzip"
            )

    def write(self, at: int, tile: dict[str, NDArray[Any]]) -> None:
        """One tile of stored values (bands, y, x) and (bands,), and lat, lon, month as sine and cosine."""
        for name in (*PIXEL, *MASKS):
            values = tile[name]
            if name == "sentinel1":
                # Backscatter comes as unrounded floats, of which the tile given here holds the nearest step of 0.01 dB.
                unrounded = (values + self.random.uniform(-0.5, 0.5, values.shape)) * 0.01
                values = np.where(values == MODALITIES[name].nodata, -np.inf, unrounded)
            self.file[name][at] = values.astype(DTYPES.get(name, values.dtype.name))
        for name in ("era5", "lat", "lon", "month"):
            self.file[name][at] = tile[name]
        for name in ("biome", "eco_region"):
            classes = np.zeros(len(MODALITIES[name].classes), dtype=MODALITIES[name].dtype)
            classes[int(tile[name][0])] = 1
            self.file[name][at] = classes


class Dataset:
    """Samples read one by one, each modality normalised by itself."""

    def __init__(self, path: Path, crop: int, statistics: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]):
        self.file = h5py.File(path, "r")
        self.crop, self.statistics = crop, statistics
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.file["sentinel2"])

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        pixels = self.file["sentinel2"].shape[-1]
        y, x = self.random.integers(0, pixels - self.crop + 1, 2)
        vertical, horizontal = self.random.integers(0, 2, 2)
        sample = {}
        for name in (*PIXEL, *IMAGE):
            dataset = self.file[name]
            bands = self._bands(name, dataset.shape[1])
            data = np.array(dataset[index, bands, ...])
            if name in CLASSES:
                data = self._class_indices(name, data)
            elif name not in ("biome", "eco_region"):
                mean, std = (values[bands].reshape(-1, *(1,) * (data.ndim - 1)) for values in self.statistics[name])
                nodata = -np.inf if name == "sentinel1" else MODALITIES[name].nodata
                data = np.where(data == nodata, np.nan, (data - mean) / std)
            if data.ndim == 3:
                data = data[:, y : y + self.crop, x : x + self.crop][:, :: 1 - 2 * vertical, :: 1 - 2 * horizontal]
            sample[name] = np.ascontiguousarray(data, dtype=np.float32)
        return sample

    def _bands(self, name: str, stored: int) -> list[int]:
        """Bands by their numbers, Sentinel-2 without B10: a list with a gap costs h5py five times a plain slice."""
        if name != "sentinel2":
            return list(range(stored))
        return [MODALITIES[name].bands.index(band) for band in MODEL_INPUT_BANDS]

    def _class_indices(self, name: str, data: NDArray[Any]) -> NDArray[np.float64]:
        indices = np.full(data.shape, np.nan)
        for index, value in enumerate(CLASSES[name]):
            indices = np.where(data == value, index, indices)
        return indices


def batches(dataset: Dataset, samples: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """``samples`` of the dataset in random order, collated."""
    order = np.random.default_rng(seed).permutation(len(dataset))[:samples].tolist()
    for start in range(0, samples, BATCH):
        yield default_collate([dataset[index] for index in order[start : start + BATCH]])
