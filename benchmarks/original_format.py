"""MMEarth's published way to keep and to load tiles, for comparison: one HDF5 file, gzip, one tile per chunk.

Written from what its published loader does with each sample: it asks the file for the sample's name, takes the bands of
each modality by a list of their numbers, normalises in float64 with the level's statistics, compares with every class
in turn, compares with the no-data value, and converts to float32, or int64 for classes. Whole tiles are collated; they
are cropped on the device. There is nothing here that it does not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
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
NO_DATA = {"sentinel2": 0, "sentinel1": -np.inf, "aster": -np.inf, "canopy_height_eth": 255, "esa_worldcover": 255}
NO_DATA |= {"era5": np.inf, "biome": 255, "eco_region": 65535, "lat": -np.inf, "lon": -np.inf, "month": -np.inf}
NAME_DTYPE = np.dtype([("tile_id", "S100"), ("S2_type", "S10")])
BATCH = 64

Numbers = dict[str, dict[str, list[float]]]
"""Mean and deviation of each band by name, as its JSON file has them; sentinel2's under the names of its levels."""


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

        self.file.create_dataset("metadata", shape=(tiles,), chunks=(1,), dtype=NAME_DTYPE, compression="gzip")

    def write(self, at: int, tile: dict[str, NDArray[Any]]) -> None:
        """One tile of stored values (bands, y, x) and (bands,), and lat, lon, month as sine and cosine."""
        for name in (*PIXEL, *MASKS):
            values = tile[name]
            if name == "sentinel1":
                # Backscatter comes as unrounded floats, of which the tile given here holds the nearest step of 0.01 dB.
                unrounded = (values + self.random.uniform(-0.5, 0.5, values.shape)) * 0.01
                values = np.where(values == MODALITIES[name].nodata, -np.inf, unrounded)
            self.file[name][at] = values.astype(DTYPES.get(name, values.dtype.name))
        self.file["metadata"][at] = (str(at), "l2a" if at % 5 > 1 else "l1c")
        for name in ("era5", "lat", "lon", "month"):
            self.file[name][at] = tile[name]
        for name in ("biome", "eco_region"):
            classes = np.zeros(len(MODALITIES[name].classes), dtype=MODALITIES[name].dtype)
            classes[int(tile[name][0])] = 1
            self.file[name][at] = classes


class Dataset:
    """Samples read one by one, each modality normalised by itself."""

    def __init__(self, path: Path, numbers: Numbers) -> None:
        self.file, self.numbers = h5py.File(path, "r"), numbers
        names = self.file["metadata"][:]
        self.level = {
            name.decode(): level.decode() for name, level in zip(names["tile_id"], names["S2_type"], strict=True)
        }

    def __len__(self) -> int:
        return len(self.file["sentinel2"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        tile_id = self.file["metadata"][index][0].decode()
        level = self.level[tile_id]
        sample: dict[str, Any] = {}
        for name in (*PIXEL, *IMAGE):
            dataset = self.file[name]
            one_hot = name in ("biome", "eco_region")
            bands = list(range(len(MODALITIES[name].bands)))
            if name == "sentinel2":
                bands = [MODALITIES[name].bands.index(band) for band in MODEL_INPUT_BANDS]
            data = np.array(dataset[index, ...] if one_hot else dataset[index, bands, ...])
            if name in CLASSES:
                data = self._class_indices(name, data)
            elif not one_hot:
                numbers = self.numbers[f"sentinel2_{level}" if name == "sentinel2" else name]
                mean, std = (np.array(numbers[what])[bands] for what in ("mean", "std"))
                shape = (-1, *(1,) * (data.ndim - 1))
                data = (data - mean.reshape(shape)) / std.reshape(shape)
            if name != "dynamic_world":
                data = np.where(data == NO_DATA[name], np.nan, data)
            if one_hot or name in CLASSES:
                sample[name] = np.where(np.isnan(data), -1, data).astype(np.int64)
            else:
                sample[name] = data.astype(np.float32)
        return sample | {"id": tile_id}

    def _class_indices(self, name: str, data: NDArray[Any]) -> NDArray[Any]:
        values: list[float] = [*CLASSES[name]]
        indices: list[float] = [*range(len(values))]
        if name == "esa_worldcover":
            values, indices = [*values, 255], [*indices, 255]
        if name == "dynamic_world":
            data = np.where(data == 0, np.nan, data)
            values, indices = [*values, np.nan], [*indices, np.nan]
        for value, index in zip(values, indices, strict=True):
            data = np.where(data == value, index, data)
        return np.where(data > len(CLASSES[name]) - 1, np.nan, data)


def batches(dataset: Dataset, samples: int, seed: int) -> Iterator[dict[str, Any]]:
    """``samples`` of the dataset in random order, collated."""
    order = np.random.default_rng(seed).permutation(len(dataset))[:samples].tolist()
    for start in range(0, samples, BATCH):
        yield default_collate([dataset[index] for index in order[start : start + BATCH]])
