"""From a store's statistics to the specification of a model that is to be trained on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_data.store import Store
from mmearth_train.loader import cyclic
from mmearth_train.model import INPUT, ModelSpec
from mmearth_train.tasks import Scaling, Task
from mmearth_train.variant import MENDED, Variant

LEVELS = ("L1C", "L2A")
"""Groups of the input's statistics, in the order of the store's level flags."""
UNSEEN = 0.5
"""Added to each class count: a class that the train split lacks is unlikely, not impossible (Jeffreys' prior)."""
UNSCALED = Scaling(((0.0,),), ((1.0,),))


def specify(
    store: Store,
    train: NDArray[np.int64],
    model: str,
    input_size: int,
    names: tuple[str, ...],
    seed: int,
    variant: Variant = MENDED,
) -> ModelSpec:
    """The specification of a model of size ``model`` that predicts ``names``, scaled by the store's train split."""
    scaling = _scaling(store, INPUT, MODEL_INPUT_BANDS, LEVELS)
    tasks = tuple(_task(store, train, name, scaling) for name in names)
    return ModelSpec(model, input_size, MODEL_INPUT_BANDS, scaling, tasks, seed, variant)


def _scaling(store: Store, name: str, bands: tuple[str, ...], groups: tuple[str, ...]) -> Scaling:
    pairs = [store.statistics.get(name, group).of_bands(bands) for group in groups]
    return Scaling.checked([mean.tolist() for mean, _ in pairs], [std.tolist() for _, std in pairs])


def _task(store: Store, train: NDArray[np.int64], name: str, input_scaling: Scaling) -> Task:
    modality = MODALITIES[name]
    if name == INPUT:
        return Task(name, MODEL_INPUT_BANDS, input_scaling, (0.0,) * len(MODEL_INPUT_BANDS))
    if modality.kind == "categorical":
        counts = store.statistics.get(name).class_counts + UNSEEN
        return Task(name, modality.bands, UNSCALED, tuple((counts / counts.sum()).tolist()))
    if modality.kind == "cyclic":
        values = cyclic(name, store.lon[train], store.lat[train], store.time[train])
        two = Scaling(((0.0, 0.0),), ((1.0, 1.0),))
        sine, cosine = (float(np.nanmean(column, dtype=np.float64)) for column in values.T)
        return Task(name, modality.bands, two, (sine, cosine))
    return Task(name, modality.bands, _scaling(store, name, modality.bands, ("all",)), (0.0,) * len(modality.bands))
