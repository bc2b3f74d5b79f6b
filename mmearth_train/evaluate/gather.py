"""One pass over the store: the features of every encoder and the values of every target, for every complete tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_data.store import Store
from mmearth_train.evaluate.targets import Target
from mmearth_train.evaluate.threads import single_threaded_workers

INPUT = "sentinel2"
LEVELS = ("L1C", "L2A")
_BATCH = 16
"""Images that pass an encoder together; more only leave the processor's cache."""


class FrozenEncoder(Protocol):
    """What evaluation needs of an encoder."""

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of sentinel2 it wants, in order."""
        ...

    def features(self, images: Tensor, level: Tensor) -> Tensor:
        """One vector per image, (N, C); images are (N, bands, size, size) in stored units, level is (N,)."""
        ...


@dataclass(frozen=True)
class BandMeans:
    """Mean and standard deviation of each band over the crop's valid pixels: what is there without any encoder.

    ``mean`` and ``std`` (2, bands) are the train split's in stored units, first L1C, then L2A; every image is measured
    in those of its level, as an encoder's input is. A band without a valid pixel is taken to be average.
    """

    bands: tuple[str, ...]
    mean: Tensor
    std: Tensor

    @classmethod
    def of_store(cls, store: Store) -> BandMeans:
        """Band means scaled by the statistics of ``store``; raises StoreError where they were not computed."""
        levels = [store.statistics.get(INPUT, level).of_bands(MODEL_INPUT_BANDS) for level in LEVELS]
        mean = torch.tensor(np.stack([mean for mean, _ in levels])).nan_to_num(nan=0.0)
        std = torch.tensor(np.stack([std for _, std in levels])).nan_to_num(nan=1.0)
        return cls(MODEL_INPUT_BANDS, mean, torch.where(std > 0, std, 1.0))

    def features(self, images: Tensor, level: Tensor) -> Tensor:
        """(N, bands, H, W) → (N, 2·bands): means, then standard deviations."""
        pixels = images.to(torch.float64).flatten(2)
        valid = (pixels != MODALITIES[INPUT].nodata).to(torch.float64)
        count = valid.sum(dim=2).clamp_min(1)
        centre, spread = self.mean[level.long()], self.std[level.long()]
        scaled = (pixels - centre[..., None]) / spread[..., None] * valid
        mean = scaled.sum(dim=2) / count
        deviation = ((scaled - mean[..., None]) ** 2 * valid).sum(dim=2) / count
        return torch.cat([mean, deviation.sqrt()], dim=1)


@dataclass(frozen=True)
class Gathered:
    """Arrays over tiles: the store's ``rows``, features by encoder, values and validity by target, all in row order."""

    rows: NDArray[np.int64]
    features: tuple[NDArray[np.float32], ...]
    values: tuple[tuple[NDArray[np.generic], NDArray[np.bool_]], ...]


def centre_crop(pixels: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """The ``size`` × ``size`` middle of (…, y, x); arrays without pixels, (n, bands), are left as they are."""
    if pixels.ndim < 4:
        return pixels
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]


def gather(
    store: Store,
    encoders: Sequence[FrozenEncoder],
    targets: Sequence[Target],
    crop: int,
    advance: Callable[[int], None],
) -> Gathered:
    """Features and target values of every row of ``store`` with complete sentinel2; ``advance`` is told of each batch.

    Whole chunks are read, so that nothing is decoded twice.
    """
    rows = store.select()
    features: list[list[NDArray[np.float32]]] = [[] for _ in encoders]
    values: list[list[tuple[NDArray[np.generic], NDArray[np.bool_]]]] = [[] for _ in targets]
    modalities = dict.fromkeys([INPUT, *(target.modality for target in targets)])
    with single_threaded_workers() as pool:
        for start in np.unique(rows // store.chunk_rows) * store.chunk_rows:
            stop = min(int(start) + store.chunk_rows, store.rows)
            here = rows[(rows >= start) & (rows < stop)]
            stored = {name: centre_crop(store.read(name, int(start), stop)[here - start], crop) for name in modalities}
            slices = [slice(first, first + _BATCH) for first in range(0, len(here), _BATCH)]
            pending = [
                [pool.submit(_features, encoder, stored[INPUT][part], store.level[here[part]]) for part in slices]
                for encoder in encoders
            ]
            for target, answers in zip(targets, values, strict=True):
                answers.append(target.compute(stored[target.modality]))
            for futures, found in zip(pending, features, strict=True):
                found += [future.result() for future in futures]
            advance(len(here))
    return Gathered(
        rows,
        tuple(np.concatenate(found) for found in features),
        tuple((np.concatenate([v for v, _ in a]), np.concatenate([ok for _, ok in a])) for a in values),
    )


def _features(encoder: FrozenEncoder, pixels: NDArray[np.generic], level: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One encoder's features of stored sentinel2 pixels (n, all bands, y, x)."""
    images = torch.from_numpy(pixels[:, [MODALITIES[INPUT].bands.index(band) for band in encoder.bands]])
    result: NDArray[np.float32] = encoder.features(images, torch.from_numpy(level)).to("cpu", torch.float32).numpy()
    return result
