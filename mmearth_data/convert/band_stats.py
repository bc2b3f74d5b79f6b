"""Statistics of exported values in the published layout's terms: one streaming pass, mergeable part by part.

Keys as in ``NAME_band_stats.json``: the array's name, with ``_l1c`` or ``_l2a`` for what Sentinel-2 delivers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.convert.published import data_mask, encode
from mmearth_data.convert.rows import Rows
from mmearth_data.counting import Counter
from mmearth_data.modalities import Modality, get
from mmearth_data.store.schema import LEVELS
from mmearth_data.store.statistics import TRAINING

BY_LEVEL = ("sentinel2", "sentinel2_cloudmask", "sentinel2_cloudprod")
DESCRIBED = (*BY_LEVEL, "sentinel1", "aster", "canopy_height_eth", "era5", "lat", "lon", "month")
"""Arrays that the layout keeps statistics of; the others hold classes."""

Moments = dict[str, list[float]]
"""Count, mean, sum of squared deviations (``squares``), min and max of each band."""


def key(name: str, level: str) -> str:
    """The statistics that a tile of ``level`` counts for."""
    return f"{name}_{level.lower()}" if name in BY_LEVEL else name


def keys() -> list[str]:
    """Every key of the file."""
    return [k for name in DESCRIBED for k in ([f"{name}_l1c", f"{name}_l2a"] if name in BY_LEVEL else [name])]


def moments(name: str, values: NDArray[Any]) -> Moments:
    """The moments of rows (n, bands, …) of a published array, no-data left out."""
    result: Moments = {"count": [], "mean": [], "squares": [], "min": [], "max": []}
    mask = data_mask(name, values)
    for band in range(values.shape[1]):
        data = values[:, band][mask[:, band]].astype(np.float64)
        mean = float(data.mean()) if data.size else 0.0
        result["count"].append(float(data.size))
        result["mean"].append(mean)
        result["squares"].append(float(np.square(data - mean).sum()))
        result["min"].append(float(data.min(initial=math.inf)))
        result["max"].append(float(data.max(initial=-math.inf)))
    return result


def moments_of_counts(modality: Modality, counts: NDArray[np.int64]) -> Moments:
    """The moments of a modality of integers whose stored values occur ``counts`` (bands, values) times, as published.

    Counts are those of each value from the dtype's least on.
    """
    limits = np.iinfo(modality.dtype)
    stored = np.arange(limits.min, limits.max + 1).astype(modality.dtype)
    values = encode(modality, np.repeat(stored[:, None], len(counts), axis=1))
    mask = data_mask(modality.name, values)
    result: Moments = {"count": [], "mean": [], "squares": [], "min": [], "max": []}
    for band, times in enumerate(counts):
        some = mask[:, band] & (times > 0)
        data, often = values[some, band].astype(np.float64), times[some]
        count = int(often.sum())
        mean = float((data * often).sum() / count) if count else 0.0
        result["count"].append(float(count))
        result["mean"].append(mean)
        result["squares"].append(float((np.square(data - mean) * often).sum()))
        result["min"].append(float(data.min(initial=math.inf)))
        result["max"].append(float(data.max(initial=-math.inf)))
    return result


def merge(one: Moments | None, other: Moments) -> Moments:
    """Moments of both, as in Chan, Golub and LeVeque (1983)."""
    if one is None:
        return other
    a, b = ({name: np.array(values) for name, values in moments.items()} for moments in (one, other))
    count = a["count"] + b["count"]
    share = np.divide(b["count"], count, out=np.zeros(len(count)), where=count > 0)
    delta = b["mean"] - a["mean"]
    merged = {
        "count": count,
        "mean": a["mean"] + delta * share,
        "squares": a["squares"] + b["squares"] + delta**2 * a["count"] * share,
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
    }
    return {name: values.tolist() for name, values in merged.items()}


def described(found: Moments | None, bands: int) -> dict[str, list[float]]:
    """Mean, standard deviation, min and max as the file has them: NaN where a band has no value."""
    nothing = [math.nan] * bands
    if found is None:
        return {"mean": nothing, "std": nothing, "min": nothing, "max": nothing}
    count = np.array(found["count"])
    std = np.sqrt(np.divide(found["squares"], count, out=np.full(bands, math.nan), where=count > 0))
    some = count > 0
    return {
        "mean": np.where(some, found["mean"], math.nan).tolist(),
        "std": std.tolist(),
        "min": np.where(some, found["min"], math.nan).tolist(),
        "max": np.where(some, found["max"], math.nan).tolist(),
    }


class TrainStatistics:
    """Band statistics of the train split's rows, as the layout has their values."""

    def __init__(self) -> None:
        self._integers = [m for m in map(get, DESCRIBED) if m.stored and m.numpy_dtype.kind != "f"]
        self._counter = Counter({modality.name: len(LEVELS) for modality in self._integers})
        integers = {modality.name for modality in self._integers}
        # In one order in every process: what is written of them is compared with what another run writes.
        self._of_floats = [name for name in DESCRIBED if name not in integers]
        self._floats: dict[str, Moments] = {}
        self._rows = dict.fromkeys(LEVELS, 0)

    def add(self, rows: Rows, derived: dict[str, NDArray[Any]]) -> None:
        """Count those of ``rows`` that are of the train split."""
        part = np.array([LEVELS.index(r["level"]) if r["split"] == TRAINING else -1 for r in rows.records])
        for number, level in enumerate(LEVELS):
            self._rows[level] += int((part == number).sum())
        for modality in self._integers:
            self._counter.add(modality, rows.arrays[modality.name], part)
        for name in self._of_floats:
            values = (derived[name] if name in derived else rows.arrays[name])[part >= 0]
            if len(values):
                self._floats[name] = merge(self._floats.get(name), moments(name, values))

    def moments(self) -> dict[str, Moments]:
        """The moments of every key that a row counted for."""
        found = dict(self._floats)
        for modality in self._integers:
            by_level = [self._counter.counts(modality, part) for part in range(len(LEVELS))]
            if modality.name not in BY_LEVEL:
                found[modality.name] = moments_of_counts(modality, np.sum(by_level, axis=0))
                continue
            for level, counts in zip(LEVELS, by_level, strict=True):
                if self._rows[level]:
                    found[key(modality.name, level)] = moments_of_counts(modality, counts)
        return found
