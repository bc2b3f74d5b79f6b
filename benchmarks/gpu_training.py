"""Training throughput on a GPU: images/s and peak memory of whole steps, beside the plain dense model.

    python3 benchmarks/gpu_training.py [--sizes atto:56:1024 tiny:56:512] [--steps 20] [--compile] [--profile]

A step is forward under bfloat16 autocast, the losses of all twelve tasks, backward, and fused AdamW. Measured on one
batch of stored values that lies on the device, with torch and numpy alone: no store, no installed package. Then, where
the packages of mmearth[train,sample] are there, as the trainer runs, from a store whose chunks are decoded anew each
time: the one that ``--store`` names, or one of synthetic tiles made for the while. On a CPU it wants to be told what to
run: ``--sizes atto:56:4 --steps 1 --tiles 112`` shows that it works.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import DeviceType

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import bare_machine

if find_spec("jaxtyping") is None:
    bare_machine.stand_in()

from benchmarks.dense_model import Dense
from mmearth_train.distributed import ALONE
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.precision import autocast
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.step import Step
from tests.train_batches import random_batch, random_spec

SIZES = ("atto:56:1024", "atto:112:512", "tiny:56:512")
"""Model, input size and images in a step, on a GPU."""
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
    return batch * steps / seconds, peak_memory(device)


def peak_memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")


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


def run_in_memory(size: str, input_size: int, n: int, arguments: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(0)
    compact = MPMAE(random_spec(input_size, model=size)).to(device)
    batch = {name: values.to(device) for name, values in random_batch(n, input_size).items()}
    visible, masked = (torch.from_numpy(p).to(device) for p in split_patches(0, 0, np.arange(n), 49))
    forward = torch.compile(compact, mode=arguments.compile) if arguments.compile else compact
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
            profile(step, device)
        model.zero_grad()
        del step
        gc.collect()


def profile(step: Callable[[], None], device: torch.device) -> None:
    """The operations that take longest on the device, and the first of them by name."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as found:
        step()
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = found.key_averages()
    print(events.table(sort_by=order, row_limit=15, max_name_column_width=60))
    # Kernels have rows of their own, whose time is that of the operations which launched them once more.
    times = {event.key: getattr(event, order) for event in events if event.device_type == DeviceType.CPU}
    longest = max(times, key=times.__getitem__)
    print(f"bottleneck: {longest}, {times[longest] / sum(times.values()):.0%} of the {device.type}'s time")


def run_from_store(size: str, input_size: int, n: int, arguments: argparse.Namespace, device: torch.device) -> None:
    """The trainer's own feed and step, decoding, cropping and copying included; and the feed alone."""
    try:
        from mmearth_data.store import open_store
        from mmearth_train.feed import Feed
        from mmearth_train.loader import Loader
        from mmearth_train.specification import specify
        from mmearth_train.tasks import GROUPS
        from tests.synthetic import make_store
    except ModuleNotFoundError as error:
        print(f"{size} {input_size} from a store: not measured, {error.name} of mmearth[train,sample] is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store
        if path is None:
            rows = -(-arguments.tiles // 56) * 56
            path = make_store(Path(folder) / "store", rows=rows, tile_pixels=64 if input_size == 56 else 128)
        store = open_store(path)
        train = store.select("train")
        batch = min(n, len(train))
        rows = train[: len(train) // batch * batch]  # no batch is smaller than the others
        model = MPMAE(specify(store, train, size, input_size, GROUPS["all"], seed=0)).to(device)
        recipe = RECIPES["default"]
        step = Step(model, optimizer(model, model.decays, recipe), ALONE, device, whole=True)
        loader = Loader(
            store, rows, GROUPS["all"], batch_size=batch, crop=input_size, seed=0, memory_bytes=0,
            pinned=device.type == "cuda",
        )  # fmt: skip
        feed = Feed(loader, 0, batch, device)
        for name, act in {"store": lambda parts: step(parts, RATE), "feed alone": lambda parts: None}.items():
            batches = feed.steps(0, 10**6)
            speed, peak = measure(lambda act=act, batches=batches: act(next(batches)), arguments.steps, batch, device)
            print(
                f"{size} {input_size}/{input_size // 7} {name:10} {batch} of {len(rows)} images: "
                f"{speed:9.0f} images/s, {peak:6.1f} GiB"
            )
            batches.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", help=f"model:input:images; on a GPU {' '.join(SIZES)}")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--compile", nargs="?", const="default", help="torch.compile, with CUDA graphs: reduce-overhead"
    )
    parser.add_argument("--profile", action="store_true", help="the operations that take longest")
    parser.add_argument("--no-dense", action="store_true", help="without the baseline")
    parser.add_argument("--store", type=Path, help="a finalised store to train from")
    parser.add_argument("--tiles", type=int, default=2240, help="size of the store that is made otherwise")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.sizes:
        sys.exit(
            "gpu_training.py: torch sees no GPU, and a CPU would take hours; run it where one is, "
            "or try it with --sizes atto:56:4 --steps 1 --tiles 112"
        )
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}")
    for run in (run_in_memory, run_from_store):
        for text in arguments.sizes or SIZES:
            size, input_size, n = text.split(":")
            run(size, int(input_size), int(n), arguments, device)


if __name__ == "__main__":
    main()
