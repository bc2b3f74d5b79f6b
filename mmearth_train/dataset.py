"""A plain map-style dataset over a store, with TorchGeo's sample keys, for whoever wants just that.

Sample keys as in TorchGeo: ``image``, ``mask``, ``bounds``, ``crs`` and ``transform`` as its geospatial datasets have
them, further modalities under the names of its ``MMEarth`` (``image_sentinel1``, ``mask_dynamic_world``, ``era5``).
Training at speed is the loader's business: this class decodes a whole chunk of tiles to return one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mmearth_data.modalities import Modality, UnknownModalityError, get
from mmearth_data.store import Store, open_store
from mmearth_data.store.files import readable
from mmearth_data.store.layout import LOCATIONS
from mmearth_data.store.objects import Place, at

IGNORE_INDEX = 255
"""No-data in masks; eco_region, which has more classes, uses −1."""
PIXEL_METRES = 10.0

Sample = dict[str, Any]


class MMEarthDataset(Dataset[Sample]):
    """The rows of a store with complete sentinel2, as samples.

    ``image`` float32 (bands, y, x): stored value × the registry's scale factor, NaN for no-data (Sentinel-1 in dB,
    ASTER's slope in hundredths of a degree). ``mask`` int64 (y, x): class indices, 255 for no-data. ``bounds`` float64
    (9,): start, stop and step of x, y (metres in ``crs``) and of time (seconds since 1970). ``crs`` 'EPSG:n'.
    ``transform`` float64 (6,): affine from pixel to ``crs``. ``lon``, ``lat`` degrees, ``date`` 'YYYY-MM-DD', ``level``
    'L1C' or 'L2A', ``location_id``. Bounds and transform are NaN where the pixels' origin is not known, as in stores
    imported from MMEarth's published files.
    """

    def __init__(
        self,
        store: str | Place,
        split: str | None = "train",
        *,
        image: str = "sentinel2",
        mask: str | None = "esa_worldcover",
        others: Sequence[str] = (),
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        """Open the rows of one ``split``, or of all with None.

        ``image`` is a continuous and ``mask`` a categorical pixel modality; ``others`` are any stored ones. Raises
        StoreError and UnknownModalityError.
        """
        self.image, self.mask = _checked(image, "continuous"), _checked(mask, "categorical") if mask else None
        self.others = tuple(get(name) for name in others)
        underived = [modality.name for modality in self.others if not modality.stored]
        if underived:
            raise UnknownModalityError(f"{underived[0]} is not stored; take lon, lat and date of the sample")
        self.path, self.split, self.transforms = at(store), split, transforms
        self.rows: NDArray[np.int64] = self._store().select(split)
        table = pq.read_table(readable(self.path / LOCATIONS), columns=["row", "epsg", "x0", "y0"])
        lines = np.searchsorted(table["row"].to_numpy(), self.rows)
        self._epsg, self._x0, self._y0 = (
            table[name].cast("float64").to_numpy()[lines] for name in ("epsg", "x0", "y0")
        )

    def _store(self) -> Store:
        """The store, opened anew in each process: its file handles and threads do not survive a fork."""
        opened: tuple[int, Store] | None = self.__dict__.get("_opened")
        if opened is None or opened[0] != os.getpid():
            opened = os.getpid(), open_store(self.path)
            self.__dict__["_opened"] = opened
            self.__dict__["_decoded"] = {}
        return opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_decoded")}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``; raises IndexError beyond the last one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows in its {self.split or 'whole'} split, not {index}")
        index %= len(self)
        row, store = int(self.rows[index]), self._store()
        sample: Sample = {"image": self._read(self.image, row)}
        if self.mask is not None:
            sample["mask"] = self._read(self.mask, row)
        for modality in self.others:
            sample[_key(modality)] = self._read(modality, row)
        moment = np.datetime64(int(store.time[row]), "ms")
        sample |= {
            "bounds": self._bounds(index, float(store.time[row]) / 1000),
            "crs": f"EPSG:{int(self._epsg[index])}",
            "transform": torch.tensor(
                [PIXEL_METRES, 0.0, self._x0[index], 0.0, -PIXEL_METRES, self._y0[index]], dtype=torch.float64
            ),
            "lon": float(store.lon[row]),
            "lat": float(store.lat[row]),
            "date": str(moment.astype("datetime64[D]")),
            "level": ("L1C", "L2A")[store.level[row]],
            "location_id": int(store.location_id[row]),
        }
        return self.transforms(sample) if self.transforms is not None else sample

    def _bounds(self, index: int, seconds: float) -> Tensor:
        left, top = self._x0[index], self._y0[index]
        side = self._store().tile_pixels * PIXEL_METRES
        known = float("nan") if np.isnan(left) else PIXEL_METRES
        values = [left, left + side, known, top - side, top, known, seconds, seconds, 1.0]
        return torch.tensor(values, dtype=torch.float64)

    def _read(self, modality: Modality, row: int) -> Tensor:
        """One row as TorchGeo would have it; the chunk that it came from stays decoded for its neighbours."""
        store = self._store()
        start = row - row % store.shard_rows % store.chunk_rows
        decoded: dict[str, tuple[int, NDArray[Any]]] = self.__dict__["_decoded"]
        if decoded.get(modality.name, (-1, None))[0] != start:
            stop = min(start + store.chunk_rows, store.rows)
            decoded[modality.name] = start, store.read(modality.name, start, stop)
        stored = decoded[modality.name][1][row - start]
        valid = modality.valid(stored)
        if modality.kind == "categorical":
            return _classes(modality, stored, valid)
        scaled = stored.astype(np.float32) * np.float32(modality.scale_factor)
        return torch.from_numpy(np.where(valid, scaled, np.float32("nan")))


def _checked(name: str, kind: str) -> Modality:
    modality = get(name)
    if modality.scope != "pixel" or modality.kind != kind:
        raise UnknownModalityError(f"{name} is no {kind} modality of pixels; choose another one")
    return modality


def _key(modality: Modality) -> str:
    """The key of a further modality, as TorchGeo's ``MMEarth`` names it."""
    if modality.scope == "image":
        return modality.name
    return f"{'mask' if modality.kind == 'categorical' else 'image'}_{modality.name}"


def _classes(modality: Modality, stored: NDArray[Any], valid: NDArray[np.bool_]) -> Tensor:
    """Class indices without the band axis: (y, x), or a scalar for one value per tile."""
    nothing = IGNORE_INDEX if len(modality.classes) <= IGNORE_INDEX else -1
    known = valid & np.isin(stored, modality.class_values)
    index = np.where(known, np.searchsorted(modality.class_values, stored), nothing)
    return torch.from_numpy(index[0].astype(np.int64)) if index.ndim > 1 else torch.tensor(int(index[0]))
