"""Training throughput with data in memory: images/s and peak memory of whole steps, beside the plain dense model.

    python3 benchmarks/gpu_training.py [--sizes atto:56:1024 tiny:56:512] [--steps 20] [--compile] [--profile]

A step is forward under bfloat16 autocast, the losses of all twelve tasks, backward, and fused AdamW, on one batch of
stored values that lies on the device. Needs torch and numpy alone: no store, no installed package. Runs on a CPU too,
where ``--sizes atto:56:4 --steps 1`` shows that it works.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
if find_spec("jaxtyping") is None:
    # Shapes in annotations are never evaluated; a bare machine only lacks the names.
    names = ModuleType("jaxtyping")
    names.Bool = names.Float = names.Integer = None  # type: ignore[attr-defined]
    sys.modules["jaxtyping"] = names

from benchmarks.dense_model import Dense
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.precision import autocast
from tests.train_batches import random_batch, random_spec

WARM_UP = 3
RATE = 1e-4


def measure(step: Callable[[], None], steps: int, batch: int, device: torch.device) -> tuple[float, float]:
    """Images per second after warming up, and the most GiB that the device held (NaN on a CPU)."""
    for _ in range(WARM_UP):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return batch * steps / seconds, peak


def stepper(model: nn.Module, objective: Callable[[], Tensor], device: torch.device) -> Callable[[], None]:
    """One optimisation step of ``objective``, without a wait for the device."""
    adamw = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

    def step() -> None:
        with autocast(device):
            loss = objective()
        loss.backward()
        adamw.step()
        adamw.zero_grad()

    return step


def run(size: str, input_size: int, n: int, arguments: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(0)
    compact = MPMAE(random_spec(input_size, model=size)).to(device)
    batch = {name: values.to(device) for name, values in random_batch(n, input_size).items()}
    visible, masked = (torch.from_numpy(p).to(device) for p in split_patches(0, 0, np.arange(n), 49))
    forward = torch.compile(compact) if arguments.compile else compact
    models: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "compact": (compact, lambda: compact.objective(forward(batch, visible, masked)))
    }
    if not arguments.no_dense:
        dense = Dense(compact).to(device)
        models["dense"] = (dense, lambda: dense(batch, visible))
    for name, (model, objective) in models.items():
        step = stepper(model, objective, device)
        speed, peak = measure(step, arguments.steps, n, device)
        print(f"{size} {input_size}/{input_size // 7} {name:8} {n} images: {speed:9.0f} images/s, {peak:6.1f} GiB")
        if arguments.profile:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if device.type == "cuda":
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            with torch.profiler.profile(activities=kinds) as profile:
                step()
            order = f"self_{device.type}_time_total"
            print(profile.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=60))
        model.zero_grad()
        del step
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["atto:56:1024", "atto:112:512", "tiny:56:512"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="torch.compile the compact model")
    parser.add_argument("--profile", action="store_true", help="the operations that take longest")
    parser.add_argument("--no-dense", action="store_true", help="without the baseline")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}")
    for text in arguments.sizes:
        size, input_size, n = text.split(":")
        run(size, int(input_size), int(n), arguments, device)


if __name__ == "__main__":
    main()
