"""Training throughput on a GPU: images/s and peak memory of whole steps, eager, compiled and as a CUDA graph.

    python3 benchmarks/gpu_training.py [--sizes atto:56:1024 tiny:56:512] [--ways eager graph dense] [--profile]

A step is forward under bfloat16 autocast, the losses of all twelve tasks, backward, and fused AdamW. First on one batch
of stored values that lies on the device, with torch and numpy alone (no store, no installed package), in several ways:

    eager           as the trainer does without options
    graph           the same step recorded once as a CUDA graph and replayed: no launch waits for Python
    compiled        forward and backward by torch.compile, as the trainer does with --compile
    compiled-graph  both
    dense           the plain dense masked model, eager: the baseline

A way that fails says why on its line, the others are still measured, and the exit code is 1. Then, where the packages
of mmearth[train,sample] are there, as the trainer runs, from a store whose chunks are decoded anew each time: the one
that ``--store`` names, or one of synthetic tiles made for the while. On a CPU it wants to be told what to run:
``--sizes atto:56:4 --steps 1 --tiles 112 --ways eager dense`` shows that it works.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
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
from mmearth_train.model import MPMAE, Losses
from mmearth_train.precision import autocast
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.step import Step
from tests.train_batches import random_batch, random_spec

SIZES = ("atto:56:1024", "atto:112:512", "tiny:56:512")
"""Model, input size and images in a step, on a GPU."""
WAYS = ("eager", "graph", "compiled", "compiled-graph", "dense")
PARTS = 4
"""That a batch from a store is computed on in, as the default batch of 4096 is in parts of 1024."""
WARM_UP = 3
RATE = 1e-4

Act = Callable[[], None]


def measure(step: Act, steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds that a step takes after warming up, and the most GiB that the device held (NaN on a CPU)."""
    for _ in range(WARM_UP):
        step()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise(device)
    return (time.perf_counter() - start) / steps, peak_memory(device)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget_memory(device: torch.device) -> None:
    """Give back what earlier steps held and count the most that is held from here on."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")


def pinned_memory(device: torch.device) -> float:
    """GiB of the host's memory that are pinned now, with what torch rounds up (NaN on a CPU)."""
    if device.type != "cuda":
        return float("nan")
    return float(torch.cuda.host_memory_stats()["active_bytes.current"]) / 2**30


def stepper(model: nn.Module, objective: Callable[[], Tensor], device: torch.device) -> Act:
    """One optimisation step of ``objective``, without a wait for the device."""
    adamw = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True, capturable=device.type == "cuda"
    )

    def step() -> None:
        with autocast(device):
            loss = objective()
        loss.backward()
        adamw.step()
        adamw.zero_grad()

    return step


def recorded(step: Act) -> Act:
    """``step`` as a CUDA graph, recorded after it has run aside so often that nothing is set up any more."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(_keeps: Act = step) -> None:
        """``step`` holds what the graph writes to and does not own: moments, and weights."""
        graph.replay()

    return replay


def step_of(way: str, compact: MPMAE, batch: dict[str, Tensor], patches: Sequence[Tensor], device: torch.device) -> Act:
    """A step on ``batch`` and its visible and masked patches; the model's weights go on from where they are."""
    if way == "dense":
        dense = Dense(compact).to(device)
        return stepper(dense, lambda: dense(batch, patches[0]), device)
    forward: Callable[..., Losses] = compact
    if way.startswith("compiled"):
        torch.compiler.reset()  # after eight models of whatever size it would leave the next one eager
        forward = torch.compile(compact, dynamic=False)
    step = stepper(compact, lambda: compact.objective(forward(batch, *patches)), device)
    return recorded(step) if way.endswith("graph") else step


def run_way(
    way: str,
    label: str,
    compact: MPMAE,
    batch: dict[str, Tensor],
    patches: Sequence[Tensor],
    arguments: argparse.Namespace,
    device: torch.device,
) -> float:
    """Time one way, and say so; returns the seconds of a step."""
    step = step_of(way, compact, batch, patches, device)
    took, peak = measure(step, arguments.steps, device)
    speed = len(batch["level"]) / took
    print(f"{label}: {speed:9.0f} images/s, {took * 1e3:8.1f} ms a step, {peak:6.1f} GiB", flush=True)
    if arguments.profile and not way.endswith("graph"):
        profile(step, device)
    return took


def run_in_memory(size: str, input_size: int, n: int, arguments: argparse.Namespace, device: torch.device) -> int:
    """Every way that was asked for; returns how many failed."""
    torch.manual_seed(0)
    compact = MPMAE(random_spec(input_size, model=size)).to(device)
    batch = {name: values.to(device) for name, values in random_batch(n, input_size).items()}
    patches = tuple(torch.from_numpy(p).to(device) for p in split_patches(0, 0, np.arange(n), 49))
    took: dict[str, float] = {}
    for way in arguments.ways:
        label = f"{size} {input_size}/{input_size // 7} {way:14} {n} images"
        forget_memory(device)
        try:
            took[way] = run_way(way, label, compact, batch, patches, arguments, device)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc()
            said = str(error).strip().partition("\n")[0]
            print(f"{label}: failed, {type(error).__name__}: {said}", flush=True)
            compact.zero_grad()
    if len(took) > 1:
        first = "eager" if "eager" in took else next(iter(took))
        ratios = ", ".join(f"{way} {took[first] / seconds:.2f}" for way, seconds in took.items())
        print(f"{size} {input_size}/{input_size // 7} speed beside {first}: {ratios}", flush=True)
    return len(arguments.ways) - len(took)


def profile(step: Act, device: torch.device) -> None:
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
    longest, total = max(times, key=times.__getitem__), sum(times.values())
    share = f"{times[longest] / total:.0%} of the {device.type}'s time" if total else "but the profiler saw no time"
    print(f"bottleneck: {longest}, {share}", flush=True)


def run_from_store(size: str, input_size: int, n: int, arguments: argparse.Namespace, device: torch.device) -> int:
    """The trainer's own feed and step, decoding, cropping and copying included; and the feed alone. Returns 0."""
    try:
        from mmearth_data.store import open_store
        from mmearth_train.feed import Feed
        from mmearth_train.loader import Loader
        from mmearth_train.specification import specify
        from mmearth_train.tasks import GROUPS
        from tests.synthetic import make_store
    except ModuleNotFoundError as error:
        print(f"{size} {input_size} from a store: not measured, {error.name} of mmearth[train,sample] is not installed")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store
        if path is None:
            rows = -(-arguments.tiles // 56) * 56
            path = make_store(Path(folder) / "store", rows=rows, tile_pixels=64 if input_size == 56 else 128)
        store = open_store(path)
        train = store.select("train")
        batch = min(PARTS * n, len(train))
        rows = train[: len(train) // batch * batch]  # no batch is smaller than the others
        model = MPMAE(specify(store, train, size, input_size, GROUPS["all"], seed=0)).to(device)
        recipe = RECIPES["default"]
        step = Step(model, optimizer(model, model.decays, recipe), ALONE, device, whole=batch <= n)
        loader = Loader(
            store, rows, GROUPS["all"], batch_size=batch, crop=input_size, seed=0, memory_bytes=0,
            pinned=device.type == "cuda",
        )  # fmt: skip
        feed = Feed(loader, 0, n, device)
        for name, act in {"store": lambda parts: step(parts, RATE), "feed alone": lambda parts: None}.items():
            forget_memory(device)
            batches = feed.steps(0, 10**6)
            took, peak = measure(lambda act=act, batches=batches: act(next(batches)), arguments.steps, device)
            print(
                f"{size} {input_size}/{input_size // 7} {name:14} {batch} of {len(rows)} images: "
                f"{batch / took:9.0f} images/s, {took * 1e3:8.1f} ms a step, {peak:6.1f} GiB, "
                f"{pinned_memory(device):4.1f} GiB pinned",
                flush=True,
            )
            batches.close()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", help=f"model:input:images; on a GPU {' '.join(SIZES)}")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="what to measure from memory; everything by default")
    parser.add_argument("--profile", action="store_true", help="the operations that take longest")
    parser.add_argument("--store", type=Path, help="a finalised store to train from")
    parser.add_argument("--tiles", type=int, default=2240, help="size of the store that is made otherwise")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.sizes:
        sys.exit(
            "gpu_training.py: torch sees no GPU, and a CPU would take hours; run it where one is, "
            "or try it with --sizes atto:56:4 --steps 1 --tiles 112 --ways eager dense"
        )
    possible = [way for way in WAYS if device.type == "cuda" or not way.endswith("graph")]
    arguments.ways = arguments.ways or possible
    if not set(arguments.ways) <= set(possible):
        parser.error("only a GPU has graphs; leave out graph and compiled-graph")
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}")
    failed = 0
    for run in (run_in_memory, run_from_store):
        for text in arguments.sizes or SIZES:
            size, input_size, n = text.split(":")
            failed += run(size, int(input_size), int(n), arguments, device)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
