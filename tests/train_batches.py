"""Random batches of stored values and a model specification for them, for tests of the trainer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_train.model import ModelSpec
from mmearth_train.tasks import GROUPS, Scaling, Task


def random_spec(input_size: int = 56, names: tuple[str, ...] = GROUPS["all"], model: str = "atto") -> ModelSpec:
    """A specification whose statistics roughly fit ``random_batch``."""
    rng = np.random.default_rng(7)
    tasks = []
    for name in names:
        modality = MODALITIES[name]
        bands = MODEL_INPUT_BANDS if name == "sentinel2" else modality.bands
        if modality.kind == "categorical":
            frequency = rng.dirichlet(np.ones(len(modality.classes)))
            tasks.append(Task(name, bands, Scaling(((0.0,) * len(bands),), ((1.0,) * len(bands),)), tuple(frequency)))
            continue
        mean = tuple(rng.uniform(50, 150, len(bands)))
        cyclic = modality.kind == "cyclic"
        scaling = Scaling(((0.0, 0.0),), ((1.0, 1.0),)) if cyclic else Scaling((mean,), ((60.0,) * len(bands),))
        tasks.append(Task(name, bands, input_scaling() if name == "sentinel2" else scaling, (0.0,) * len(bands)))
    return ModelSpec(model, input_size, MODEL_INPUT_BANDS, input_scaling(), tuple(tasks), seed=0)


def input_scaling() -> Scaling:
    """Statistics of the input bands that differ between the two levels."""
    bands = range(len(MODEL_INPUT_BANDS))
    return Scaling(
        (tuple(90.0 + i for i in bands), tuple(110.0 - i for i in bands)),
        (tuple(50.0 + i for i in bands), tuple(70.0 - i for i in bands)),
    )


def random_batch(n: int, size: int = 56, seed: int = 0, gaps: float = 0.1) -> dict[str, Tensor]:
    """Every pretext modality in its stored dtype; a share ``gaps`` of the values of each is no-data."""
    rng = np.random.default_rng(seed)
    batch = {"level": torch.from_numpy(np.arange(n, dtype=np.uint8) % 2)}
    for name in GROUPS["all"]:
        modality = MODALITIES[name]
        shape = (n, len(modality.bands)) + ((size, size) if modality.scope == "pixel" else ())
        if modality.kind == "categorical":
            values = rng.choice(modality.class_values, shape)
        elif modality.kind == "cyclic":
            values = rng.uniform(-1, 1, shape)
        else:
            values = rng.integers(1, 200, shape)
        stored = values.astype(modality.numpy_dtype)
        stored[rng.random(shape) < gaps] = modality.nodata
        batch[name] = torch.from_numpy(stored)
    return batch
