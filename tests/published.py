"""A data set in MMEarth's published layout, made as its own writer makes it and without any of our code.

Pixels are float32 with −inf where masked, and HDF5 converts them to each array's dtype as they are written: that is
where the layout's odd values come from (127 in canopy heights, −32768 in elevations).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LAYOUT = {
    "sentinel2": ("uint16", 13), "sentinel2_cloudmask": ("uint16", 1), "sentinel2_cloudprod": ("uint16", 1),
    "sentinel2_scl": ("uint8", 1), "sentinel1": ("float32", 8), "aster": ("int16", 2), "era5": ("float32", 12),
    "dynamic_world": ("uint8", 1), "canopy_height_eth": ("int8", 2), "lat": ("float32", 2), "lon": ("float32", 2),
    "biome": ("uint8", 14), "eco_region": ("uint16", 846), "month": ("float32", 2), "esa_worldcover": ("uint8", 1),
}  # fmt: skip
"""Names, dtypes and widths of the arrays, as the data set's writer declares them."""
FLAT = ("era5", "lat", "lon", "biome", "eco_region", "month")
RADAR = ("asc_VV", "asc_VH", "asc_HH", "asc_HV", "desc_VV", "desc_VH", "desc_HH", "desc_HV")
WORLDCOVER = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100])


@dataclass
class Published:
    """Where the data set lies, and what its tiles are: pixels before HDF5 converted them, facts, rows by split."""

    folder: Path
    ids: list[str]
    pixels: dict[str, NDArray[np.float32]]
    info: dict[str, Any]
    splits: dict[str, list[int]]
    empty: int
    """The row without any Sentinel-2 pixel."""
    blended: int
    """Canopy values that are neither heights nor no-data."""
    classless: int
    """The row whose biome and ecoregion are unknown."""


def write_published(folder: Path, *, tiles: int = 70, side: int = 16, seed: int = 5) -> Published:
    """Write a data set of ``tiles`` tiles of ``side`` px into ``folder``, named after it."""
    rng = np.random.default_rng(seed)
    shape = {
        name: (tiles, width) if name in FLAT else (tiles, width, side, side) for name, (_, width) in LAYOUT.items()
    }
    ids = [str(number) for number in rng.permutation(10 * tiles)[:tiles]]
    pixels: dict[str, NDArray[np.float32]] = {}

    def masked(name: str, values: NDArray[Any], share: float = 0.1) -> None:
        """Pixels, some of them masked in all bands."""
        values = values.astype(np.float32)
        holes = rng.random((tiles, 1, side, side)) < share
        pixels[name] = np.where(holes, np.float32(-np.inf), values)

    l2a = rng.random(tiles) < 0.5
    masked("sentinel2", rng.integers(1, 12000, shape["sentinel2"]), 0.05)
    pixels["sentinel2"][l2a, 10] = 0
    pixels["sentinel2_cloudmask"] = rng.choice([0, 1024, 2048], shape["sentinel2_cloudmask"]).astype(np.float32)
    pixels["sentinel2_cloudprod"] = rng.integers(0, 101, shape["sentinel2_cloudprod"]).astype(np.float32)
    probability = l2a & (rng.random(tiles) < 0.7)
    pixels["sentinel2_cloudprod"][~probability] = 65535
    pixels["sentinel2_scl"] = rng.integers(0, 12, shape["sentinel2_scl"]).astype(np.float32)
    pixels["sentinel2_scl"][~l2a] = 255
    empty = 3
    pixels["sentinel2"][empty] = -np.inf

    masked("sentinel1", rng.uniform(-35, 5, shape["sentinel1"]))
    modes = rng.choice(["VV VH", "HH HV", "VV"], tiles)
    seen = rng.choice(["asc desc", "asc", "desc", ""], tiles)
    listed = [[f"{way}_{band}" for way in seen[i].split() for band in modes[i].split()] for i in range(tiles)]
    for i in range(tiles):
        pixels["sentinel1"][i, [band not in listed[i] for band in RADAR]] = -np.inf
    aster = rng.uniform(-50, 4000, shape["aster"])
    aster[:, 1] = rng.uniform(0, 70, aster[:, 1].shape)
    masked("aster", aster)
    masked("dynamic_world", rng.integers(0, 10, shape["dynamic_world"]))
    canopy = rng.integers(0, 60, shape["canopy_height_eth"]).astype(np.float32)
    canopy[rng.random(canopy.shape) < 0.1] = 255
    canopy[:5, 0, 0, :2] = 110
    canopy[5] = 255
    masked("canopy_height_eth", canopy)
    blended = int((pixels["canopy_height_eth"] == 110).sum())
    masked("esa_worldcover", rng.choice(WORLDCOVER, shape["esa_worldcover"]))
    pixels["esa_worldcover"][6] = 255

    era5 = rng.uniform(240, 310, shape["era5"])
    era5[:, 3::4] = rng.uniform(0, 0.01, (tiles, 3))
    absent = rng.random(era5.shape) < 0.05
    absent[7] = True
    lat, lon = rng.uniform(-55, 80, tiles), rng.uniform(-179, 179, tiles)
    days = np.datetime64("2017-01-01", "D") + rng.integers(0, 4 * 365, tiles)
    classless = 9
    info: dict[str, Any] = {}
    for i, name in enumerate(ids):
        zone = int((lon[i] + 180) // 6) + 1
        values = [None if absent[i, j] else float(era5[i, j]) for j in range(12)]
        optical = ["B1", "SCL", "MSK_CLDPRB", "QA60"] if probability[i] else ["B1", "QA60"]
        passes = {way: [b.split("_")[1] for b in listed[i] if b.startswith(way)] or None for way in ("asc", "desc")}
        info[name] = {
            "S2_DATE": str(days[i]), "S2_type": "l2a" if l2a[i] else "l1c",
            "CRS": f"EPSG:{(32600 if lat[i] >= 0 else 32700) + zone}", "lat": float(lat[i]), "lon": float(lon[i]),
            "biome": None if i == classless else int(rng.integers(14)),
            "eco_region": None if i == classless else int(rng.integers(846)), "NO_DATA": False,
            "BANDS": {"sentinel2": optical, **{f"sentinel1_{way}": found for way, found in passes.items()},
                      "aster": ["b1", "slope"], "note": "ü ☃ \"{},:"},
            "era5": {"month1": values[:4], "month2": values[4:8], "year": values[8:]},
        }  # fmt: skip
    rows = rng.permutation(tiles)
    splits = {"train": rows[: tiles - 20].tolist(), "val": rows[tiles - 20 : tiles - 8].tolist(), "test": []}
    splits["test"] = rows[tiles - 8 : tiles - 1].tolist()
    _write(folder, ids, pixels, info, splits)
    return Published(folder, ids, pixels, info, splits, empty, blended, classless)


def _write(folder: Path, ids: list[str], pixels: dict[str, Any], info: dict[str, Any], splits: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    tiles, side = len(ids), pixels["sentinel2"].shape[-1]
    with h5py.File(folder / f"{folder.name}.h5", "w") as file:
        for name, (dtype, width) in LAYOUT.items():
            row = (width,) if name in FLAT else (width, side, side)
            file.create_dataset(name, (tiles, *row), dtype=dtype, compression="gzip", chunks=(1, *row))
        kind = np.dtype([("tile_id", "S100"), ("S2_type", "S10")])
        metadata = file.create_dataset("metadata", (tiles,), dtype=kind, compression="gzip", chunks=(1,))
        for i, name in enumerate(ids):
            facts = info[name]
            for modality, values in pixels.items():
                file[modality][i] = values[i]
            file["era5"][i] = np.array([v for part in facts["era5"].values() for v in part], dtype=object).astype(
                "float32"
            )
            for angle in ("lat", "lon"):
                radians = np.deg2rad(facts[angle])
                file[angle][i] = np.array([np.sin(radians), np.cos(radians)], dtype="float32")
            month = 2 * np.pi * int(facts["S2_DATE"].split("-")[1]) / 12
            file["month"][i] = np.array([np.sin(month), np.cos(month)], dtype="float32")
            for classes, width in (("biome", 14), ("eco_region", 846)):
                hot = np.zeros(width)
                hot[facts[classes]] = 1  # with None every class, as in the published files
                file[classes][i] = hot
            metadata[i] = (name, facts["S2_type"])
    skipped = {"999999": {**info[ids[0]], "NO_DATA": True}}
    shuffled = dict(sorted((info | skipped).items()))
    (folder / f"{folder.name}_tile_info.json").write_text(json.dumps(shuffled))
    (folder / f"{folder.name}_splits.json").write_text(json.dumps(splits))
    (folder / f"{folder.name}_band_stats.json").write_text("{}")
