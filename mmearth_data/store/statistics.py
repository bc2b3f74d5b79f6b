"""Statistics of a store's bands: what they hold, and the JSON file that keeps them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import STORED, UnknownModalityError
from mmearth_data.store.files import StoreError, sha256, write_atomic
from mmearth_data.store.layout import STATISTICS
from mmearth_data.store.objects import Place, at
from mmearth_data.store.schema import LEVELS

ALL = "all"
"""The one group of every modality but sentinel2, whose groups are its levels."""
TRAINING = "train"
"""The split whose statistics scale what a model sees."""
PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)
"""Percentiles that are kept of each band."""


@dataclass(frozen=True)
class Histogram:
    """``counts[i]`` values lie from ``start`` + i·``width`` up to the next bin; the last bin holds the maximum too."""

    start: float
    width: float
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class BandStatistics:
    """What one group of rows holds of a modality's bands, in stored units and without no-data.

    ``count``, ``no_data`` int64, ``mean``, ``std`` (population), ``min``, ``max`` float64, all of shape (bands,);
    ``percentiles`` float64 (bands, PERCENTILES); ``histograms`` one per band. NaN and None where a band has no value,
    and for categorical modalities, whose numbers are names. ``class_values`` and ``class_counts`` int64 (classes,) in
    order of class index; empty for the others.
    """

    bands: tuple[str, ...]
    count: NDArray[np.int64]
    no_data: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    percentiles: NDArray[np.float64]
    histograms: tuple[Histogram | None, ...]
    class_values: NDArray[np.int64]
    class_counts: NDArray[np.int64]

    def of_bands(self, bands: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of ``bands``, picked by name."""
        picked = [self.bands.index(band) for band in bands]
        return self.mean[picked], self.std[picked]


@dataclass(frozen=True)
class Statistics:
    """Statistics of one split: ``rows`` rows, and per modality its groups ('L1C', 'L2A' of sentinel2, else 'all')."""

    split: str
    rows: int
    modalities: dict[str, dict[str, BandStatistics]]

    def get(self, modality: str, group: str = ALL) -> BandStatistics:
        """One group of one stored modality; raises UnknownModalityError or KeyError, naming what there is."""
        if modality not in self.modalities:
            raise UnknownModalityError(f"no statistics of {modality!r}; there are: {', '.join(self.modalities)}")
        groups = self.modalities[modality]
        if group not in groups:
            raise KeyError(f"{modality} has the groups {', '.join(groups)}, not {group!r}")
        return groups[group]


def groups_of(modality: str) -> tuple[str, ...]:
    """The groups that a modality's statistics are kept apart in."""
    return LEVELS if modality == "sentinel2" else (ALL,)


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _histogram_to_json(histogram: Histogram | None) -> dict[str, Any] | None:
    if histogram is None:
        return None
    return {"start": histogram.start, "width": histogram.width, "counts": histogram.counts.tolist()}


def _to_json(statistics: BandStatistics) -> dict[str, Any]:
    return {
        "bands": list(statistics.bands),
        "count": statistics.count.tolist(),
        "no_data": statistics.no_data.tolist(),
        **{name: _numbers(getattr(statistics, name)) for name in ("mean", "std", "min", "max")},
        "percentiles": [_numbers(values) for values in statistics.percentiles],
        "histograms": [_histogram_to_json(histogram) for histogram in statistics.histograms],
        "class_values": statistics.class_values.tolist(),
        "class_counts": statistics.class_counts.tolist(),
    }


def _floats(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _histogram_from_json(document: dict[str, Any] | None) -> Histogram | None:
    if document is None:
        return None
    counts = np.array(document["counts"], dtype=np.int64)
    return Histogram(float(document["start"]), float(document["width"]), counts)


def _from_json(document: dict[str, Any]) -> BandStatistics:
    return BandStatistics(
        bands=tuple(document["bands"]),
        count=np.array(document["count"], dtype=np.int64),
        no_data=np.array(document["no_data"], dtype=np.int64),
        mean=_floats(document["mean"]),
        std=_floats(document["std"]),
        min=_floats(document["min"]),
        max=_floats(document["max"]),
        percentiles=np.stack([_floats(values) for values in document["percentiles"]]),
        histograms=tuple(_histogram_from_json(histogram) for histogram in document["histograms"]),
        class_values=np.array(document["class_values"], dtype=np.int64),
        class_counts=np.array(document["class_counts"], dtype=np.int64),
    )


def _digest(document: dict[str, Any]) -> str:
    """SHA-256 of everything in the document but the digest itself, independent of white space."""
    content = {name: value for name, value in document.items() if name != "sha256"}
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def save(path: str | Place, *splits: Statistics) -> None:
    """Write the statistics of ``splits`` into the store at ``path``, at once, in place of any that are there."""
    document: dict[str, Any] = {
        "units": "stored",
        "percentiles": list(PERCENTILES),
        "splits": {
            statistics.split: {
                "rows": statistics.rows,
                "modalities": {
                    name: {group: _to_json(values) for group, values in groups.items()}
                    for name, groups in statistics.modalities.items()
                },
            }
            for statistics in splits
        },
    }
    document["sha256"] = _digest(document)
    content = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    write_atomic(at(path) / STATISTICS, content)


def load(path: str | Place, split: str = TRAINING) -> Statistics:
    """Statistics of one split of the store at ``path``; raises StoreError where they are missing or damaged."""
    file, remedy = at(path) / STATISTICS, f"compute it again with: mmearth finalize --store {path}"
    try:
        document = json.loads(file.read_bytes())
        if _digest(document) != document["sha256"]:
            raise StoreError(f"{file} is damaged (its SHA-256 is not the one it states); {remedy}")
        found = document["splits"][split]
        modalities = {
            name: {group: _from_json(values) for group, values in groups.items()}
            for name, groups in found["modalities"].items()
        }
        statistics = Statistics(split=split, rows=found["rows"], modalities=modalities)
    except FileNotFoundError:
        raise StoreError(f"{path} has no statistics; compute them with: mmearth finalize --store {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged or of another version; {remedy}") from error
    missing = [m.name for m in STORED if m.name not in statistics.modalities]
    if missing:
        raise StoreError(f"{file} lacks {missing[0]}; {remedy}")
    return statistics
