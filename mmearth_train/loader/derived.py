"""Modalities that are not stored: sine and cosine of place and month."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import MODALITIES
from mmearth_data.store import Store


def read(store: Store, name: str, start: int, stop: int) -> NDArray[np.generic]:
    """Rows of a modality as stored, or derived from place and time: (rows, bands, y, x) or (rows, bands)."""
    if MODALITIES[name].stored:
        return store.read(name, start, stop)
    return cyclic(name, store.lon[start:stop], store.lat[start:stop], store.time[start:stop])


def cyclic(
    name: str, lon: NDArray[np.float64], lat: NDArray[np.float64], time: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Sine and cosine (rows, 2) of lon or lat in degrees, or of the month of ``time`` (ms since 1970, NaT: NaN)."""
    if name == "month":
        moment = time.astype("datetime64[ms]")
        month = (moment.astype("datetime64[M]").astype(np.int64) % 12).astype(np.float64)
        angle = np.where(np.isnat(moment), np.nan, 2 * np.pi * month / 12)
    else:
        angle = np.deg2rad({"lat": lat, "lon": lon}[name].astype(np.float64))
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
