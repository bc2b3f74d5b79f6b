"""How often each value of a band occurs, and what follows from that, the same however the rows were cut.

Integers are counted value by value (``counting.py``), so that everything is exact. Floats are counted in bins of equal
relative width (the leading bits of the number), which places a percentile within ``FLOAT_ERROR`` of its value; their
count, mean and spread are merged as in Chan, Golub and LeVeque (1983), so that no sum of squares is ever subtracted
from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import Modality
from mmearth_data.store.statistics import PERCENTILES, Histogram

BINS = 64
"""At most so many bins in the histograms that are kept."""
FLOAT_ERROR = 2.0**-12
"""A percentile of floats differs from the value itself by at most this part of it."""

_FLOAT_KEY_BITS = 20
_SIGN = np.uint32(1 << 31)


def _keys_of_floats(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The leading bits of float32 numbers, turned so that keys are ordered as the numbers are."""
    bits = values.view(np.uint32)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered >> np.uint32(32 - _FLOAT_KEY_BITS)).astype(np.int64)


def _floats_of_keys(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """The middle of each key's bin."""
    half = np.uint32(1 << (31 - _FLOAT_KEY_BITS))
    ordered = (keys.astype(np.uint32) << np.uint32(32 - _FLOAT_KEY_BITS)) | half
    bits = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Summary:
    """One band of some rows: ``counts`` of ``keys`` (ascending) without no-data, and how many values are no-data.

    A key is a stored integer less its dtype's minimum, or the leading bits of a float; of floats also ``mean``,
    ``squares`` (sum of squared deviations), ``min`` and ``max``, which integers' keys tell themselves.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    no_data: int
    mean: float = 0.0
    squares: float = 0.0
    min: float = np.inf
    max: float = -np.inf

    @property
    def count(self) -> int:
        """Values that are data."""
        return int(self.counts.sum())


def summarise_counts(modality: Modality, counts: NDArray[np.int64]) -> Summary:
    """The summary of one band of integers, whose values occur ``counts`` times from their dtype's minimum on."""
    missing = int(modality.nodata) - int(np.iinfo(modality.dtype).min)
    keys = np.flatnonzero(counts)
    keys = keys[keys != missing].astype(np.int64)
    return Summary(keys, counts[keys], int(counts[missing]))


def summarise_floats(stored: NDArray[np.float32]) -> Summary:
    """The summary of one band of floats, of any shape."""
    flat = stored.reshape(-1)
    data = flat[~np.isnan(flat)]
    keys, counts = np.unique(_keys_of_floats(data), return_counts=True)
    if not data.size:
        return Summary(keys, counts, flat.size)
    values = data.astype(np.float64)
    mean = values.mean()
    squares = np.square(values - mean).sum()
    return Summary(keys, counts, flat.size - data.size, float(mean), float(squares), values.min(), values.max())


def merge_floats(summaries: Sequence[Summary]) -> Summary:
    """The summary of all rows of ``summaries`` together; their order matters to the last digits alone."""
    keys, place = np.unique(np.concatenate([summary.keys for summary in summaries]), return_inverse=True)
    counts = np.zeros(len(keys), dtype=np.int64)
    np.add.at(counts, place, np.concatenate([summary.counts for summary in summaries]))
    seen, mean, squares = 0, 0.0, 0.0
    for summary in summaries:
        if new := summary.count:
            delta, share = summary.mean - mean, new / (seen + new)
            squares += summary.squares + delta * delta * seen * share
            mean += delta * share
            seen += new
    return Summary(
        keys=keys,
        counts=counts,
        no_data=sum(summary.no_data for summary in summaries),
        mean=mean,
        squares=squares,
        min=min(summary.min for summary in summaries),
        max=max(summary.max for summary in summaries),
    )


@dataclass(frozen=True)
class BandNumbers:
    """What is kept of one band: NaN and no histogram where it has no data."""

    mean: float
    std: float
    min: float
    max: float
    percentiles: NDArray[np.float64]
    histogram: Histogram | None


NO_NUMBERS = BandNumbers(np.nan, np.nan, np.nan, np.nan, np.full(len(PERCENTILES), np.nan), None)


def numbers(modality: Modality, summary: Summary) -> BandNumbers:
    """Mean, population standard deviation, extremes, percentiles and histogram that a summary amounts to.

    A percentile is the smallest value that at least so many of the values do not exceed.
    """
    count = summary.count
    if not count:
        return NO_NUMBERS
    if modality.numpy_dtype.kind == "f":
        low, high, mean, squares = summary.min, summary.max, summary.mean, summary.squares
        values = np.clip(_floats_of_keys(summary.keys), low, high)
    else:
        exact = summary.keys + int(np.iinfo(modality.dtype).min)
        mean = int((exact * summary.counts).sum()) / count
        values = exact.astype(np.float64)
        low, high = values[0], values[-1]
        squares = float((np.square(values - mean) * summary.counts).sum())
    # Integers throughout: rank = ⌈percent · count / 100⌉, without the rounding of a fraction.
    ranks = [-(-percent * count // 100) for percent in PERCENTILES]
    at = np.searchsorted(np.cumsum(summary.counts), ranks)
    return BandNumbers(
        mean=mean,
        std=float(np.sqrt(squares / count)),
        min=float(low),
        max=float(high),
        percentiles=values[at],
        histogram=_histogram(modality, values, summary.counts, float(low), float(high)),
    )


def _histogram(
    modality: Modality, values: NDArray[np.float64], counts: NDArray[np.int64], low: float, high: float
) -> Histogram:
    """Bins from ``low`` on; of integers each holds the same number of possible values."""
    if modality.numpy_dtype.kind == "f":
        width = (high - low) / BINS or 1.0
        bins = BINS if high > low else 1
    else:
        width = float(-(-(int(high) - int(low) + 1) // BINS))
        bins = int((high - low) // width) + 1
    index = np.minimum(((values - low) / width).astype(np.int64), bins - 1)
    totals = np.zeros(bins, dtype=np.int64)
    np.add.at(totals, index, counts)
    return Histogram(start=low, width=width, counts=totals)
