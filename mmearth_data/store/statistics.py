"""Statistics of a store's bands: what they hold, and the JSON file that keeps them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import MODALITIES, UnknownModalityError
from mmearth_data.store.files import StoreError, write_atomic
from mmearth_data.store.layout import STATISTICS
from mmearth_data.store.schema import LEVELS

ALL = "all"
"""The one group of every modality but sentinel2, whose groups are its levels."""


@dataclass(frozen=True)
class BandStatistics:
    """What one group of rows holds of a modality's bands, in stored units and without no-data.

    ``count`` int64, ``mean``, ``std`` (population), ``min``, ``max`` float64, all of shape (bands,); NaN where a band
    has no value, and for categorical modalities, whose numbers are names. ``class_values`` and ``class_counts`` int64
    (classes,) in order of class index; empty for the others.
    """

    bands: tuple[str, ...]
    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
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


def _to_json(statistics: BandStatistics) -> dict[str, Any]:
    return {
        "bands": list(statistics.bands),
        "count": statistics.count.tolist(),
        **{name: _numbers(getattr(statistics, name)) for name in ("mean", "std", "min", "max")},
        "class_values": statistics.class_values.tolist(),
        "class_counts": statistics.class_counts.tolist(),
    }


def _floats(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _from_json(document: dict[str, Any]) -> BandStatistics:
    return BandStatistics(
        bands=tuple(document["bands"]),
        count=np.array(document["count"], dtype=np.int64),
        mean=_floats(document["mean"]),
        std=_floats(document["std"]),
        min=_floats(document["min"]),
        max=_floats(document["max"]),
        class_values=np.array(document["class_values"], dtype=np.int64),
        class_counts=np.array(document["class_counts"], dtype=np.int64),
    )


def save(path: str | Path, statistics: Statistics) -> None:
    """Write ``statistics`` into the store at ``path``, at once."""
    document = {
        "split": statistics.split,
        "rows": statistics.rows,
        "units": "stored",
        "modalities": {
            name: {group: _to_json(values) for group, values in groups.items()}
            for name, groups in statistics.modalities.items()
        },
    }
    content = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    write_atomic(Path(path) / STATISTICS, content)


def load(path: str | Path) -> Statistics:
    """The statistics of the store at ``path``; raises StoreError where they were not computed or are damaged."""
    file = Path(path) / STATISTICS
    try:
        document = json.loads(file.read_bytes())
        modalities = {
            name: {group: _from_json(values) for group, values in groups.items()}
            for name, groups in document["modalities"].items()
        }
        statistics = Statistics(split=document["split"], rows=document["rows"], modalities=modalities)
    except FileNotFoundError:
        raise StoreError(f"{path} has no statistics; compute them with: mmearth finalize --store {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged; compute it again with: mmearth finalize --store {path}") from error
    missing = [m.name for m in MODALITIES.values() if m.stored and m.name not in statistics.modalities]
    if missing:
        raise StoreError(f"{file} lacks {missing[0]}; compute it again with: mmearth finalize --store {path}")
    return statistics
