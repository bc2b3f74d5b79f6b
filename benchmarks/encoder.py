"""Time and memory of a pretraining step: the compact model against a plain dense masked one, interleaved in one run.

    python benchmarks/encoder.py [--model atto] [--input-size 56] [--batch 64] [--threads 1] [--rounds 5]

A step is forward, the losses of all twelve tasks, and backward, on batches in stored dtypes. The dense model computes
every site and blanks hidden ones after every layer, runs its decoder block once for each modality and predicts all
patches, as MMEarth's published code does. It is timed twice: with oneDNN, which PyTorch's builds for x86 convolve with,
and without, as on machines that have none. Memory is what autograd keeps between forward and backward.

Times are of the processor, the system's share of them included: what it takes to hand out fresh memory, which the
dense model needs much more of. A run with one thread stays on one core.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.dense_model import Dense
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from tests.train_batches import random_batch, random_spec

WITHOUT = "dense, no oneDNN"


@dataclass(frozen=True)
class Settings:
    """What to time."""

    model: str = "atto"
    input_size: int = 56
    batch: int = 64
    threads: int = 1
    rounds: int = 5


def kept_bytes(step: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd keeps for the backward pass of ``step``, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step()
    total = sum(storage.nbytes() for storage in kept.values())
    loss.backward()
    return total


def main(settings: Settings) -> None:
    if settings.threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(settings.threads)
    compact = MPMAE(random_spec(settings.input_size, model=settings.model))
    dense = Dense(compact)
    batch = random_batch(settings.batch, settings.input_size)
    visible, masked = map(torch.from_numpy, split_patches(0, 0, np.arange(settings.batch), 49))
    steps = {
        "dense": lambda: dense(batch, visible),
        WITHOUT: lambda: dense(batch, visible),
        "compact": lambda: compact.objective(compact(batch, visible, masked)),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    of_system: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(settings.rounds + 1):
        for name, step in steps.items():
            torch.backends.mkldnn.enabled = name != WITHOUT
            before = os.times()
            step().backward()
            after = os.times()
            torch.backends.mkldnn.enabled = True
            if turn:
                system = after.system - before.system
                times[name].append((after.user - before.user + system) / settings.batch * 1e3)
                of_system[name].append(system / settings.batch * 1e3)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    print(
        f"{settings.model} {settings.input_size}/{compact.spec.patch}, {settings.batch} images, "
        f"{settings.threads} thread(s)"
    )
    width = max(map(len, steps))
    for name, values in times.items():
        spread = f"(from {min(values):.1f} to {max(values):.1f}; {np.median(of_system[name]):.1f} of the system)"
        print(f"{name:{width}} {medians[name]:7.1f} ms/image {spread}")
    for name in ("dense", WITHOUT):
        ratio = np.median(np.array(times[name]) / np.array(times["compact"]))
        print(f"compact is {ratio:.2f} times as fast as {name}")
    models = {"dense": dense, "compact": compact}
    kept = {name: kept_bytes(steps[name], model) / settings.batch / 2**20 for name, model in models.items()}
    shared = kept["compact"] / kept["dense"]
    print(f"kept for the backward pass: {kept['dense']:.1f} → {kept['compact']:.1f} MiB/image ({shared:.2f})")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
