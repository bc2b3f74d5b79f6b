"""Kernels of our own beside the library's: the depthwise convolution over visible sites, and the layer norm.

    python3 benchmarks/kernels.py [--models atto tiny] [--images 1024]

For each stage of a model and for the decoder: milliseconds of the convolution, of its weight's gradient, of the norm
after it and of that one's gradients, either way, and the part of the memory's traffic that cannot be avoided (sites
read and written once) in GB/s. Then what they take of a whole step, in which the sites' gradient of a convolution is a
convolution too; a model's few other norms are left out.

On a GPU the library is cuDNN (on the grid of all sites) or torch, and ours are Triton's, in bfloat16; it needs torch
with Triton, and numpy. On a CPU, on one core in float32, the library is oneDNN, and ours is the gradient of a
convolution's weight alone (numba). How the Triton kernels would work can be seen there too, which takes minutes:

    TRITON_INTERPRET=1 python3 benchmarks/kernels.py --models atto --images 1 --calls 1
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import bare_machine

if find_spec("jaxtyping") is None:
    bare_machine.stand_in()

from benchmarks.gpu_training import WARM_UP, Act
from mmearth_train import layer_norm
from mmearth_train.decoder import WIDTH
from mmearth_train.depthwise import convolve_grid, grid_weight_gradient
from mmearth_train.encoder import SIZES
from mmearth_train.quickest import REPEATS, seconds
from mmearth_train.sites import EPS

SIDE = 7
VISIBLE = 19
KERNEL = 7


def stages(model: str) -> list[tuple[str, int, int, int, int]]:
    """Name, blocks, patches, side of a patch, and channels: of the encoder's four stages and of the decoder."""
    blocks, width = SIZES[model]
    found = [(f"{model} stage {i + 1}", blocks[i], VISIBLE, 8 >> i, width << i) for i in range(4)]
    return [*found, (f"{model} decoder", 1, SIDE**2, 1, WIDTH)]


def sites_of(n: int, patches: int, s: int, channels: int, like: Tensor) -> tuple[Tensor, ...]:
    """Random sites, their gradient, a weight, and which patches are visible; of the dtype and device of ``like``."""
    torch.manual_seed(0)
    x, grad = (like.new_empty(n, patches, s, s, channels).normal_() for _ in range(2))
    weight = like.new_empty(channels, 1, KERNEL, KERNEL).normal_()
    visible = torch.rand(n, SIDE**2, device=like.device).argsort(1)[:, :patches].sort(1).values
    return x, grad, weight, visible


class Ways(NamedTuple):
    """The library's and ours to compute one thing, how often a block does, and how many tensors of sites that takes."""

    theirs: Act
    ours: Act
    times: int
    tensors: int


def on_gpu(x: Tensor, grad: Tensor, weight: Tensor, visible: Tensor) -> dict[str, Ways]:
    """By what is computed; the norm is given a weight of as many channels."""
    from mmearth_train import depthwise_gpu, layer_norm_gpu

    scale = weight[:, 0, 0, 0].float()
    given = {
        "convolution": ((x, weight, visible, SIDE), convolve_grid, depthwise_gpu.convolve, 2, 2),
        "weight's gradient": (
            (x, grad, visible, SIDE, KERNEL), grid_weight_gradient, depthwise_gpu.weight_gradient, 1, 2,
        ),
        "layer norm": ((x, scale, scale, EPS, x.dtype), layer_norm.normalise, layer_norm_gpu.normalise, 1, 2),
        "its gradients": ((grad, x, scale, scale, EPS), layer_norm.gradients, layer_norm_gpu.gradients, 1, 3),
    }  # fmt: skip
    return {
        what: Ways(partial(theirs, *arguments), partial(ours, *arguments), times, tensors)
        for what, (arguments, theirs, ours, times, tensors) in given.items()
    }


def on_cpu(x: Tensor, grad: Tensor, weight: Tensor, visible: Tensor) -> dict[str, Ways]:
    """The same, where the convolution is the library's either way."""
    from mmearth_train import depthwise_cpu

    convolve, correlate = partial(convolve_grid, x, weight, visible, SIDE), (x, grad, visible, SIDE, KERNEL)
    theirs, ours = partial(grid_weight_gradient, *correlate), partial(depthwise_cpu.weight_gradient, *correlate)
    return {"convolution": Ways(convolve, convolve, 2, 2), "weight's gradient": Ways(theirs, ours, 1, 2)}


def measure(way: Act, calls: int, device: torch.device | None) -> float:
    """Seconds of a call in the best of several rounds, which have some ``calls`` together."""
    for _ in range(WARM_UP):
        way()
    return min(seconds(way, (), device) for _ in range(-(-calls // REPEATS))) / REPEATS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["atto", "tiny"], choices=SIZES)
    parser.add_argument("--images", type=int, help="by default 1024 on a GPU, 64 on a CPU")
    parser.add_argument("--calls", type=int, default=20, help="timed of each way")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda") if gpu else None
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    dtype, ways_of = (torch.bfloat16, on_gpu) if gpu or interpreted else (torch.float32, on_cpu)
    if not gpu:
        torch.set_num_threads(1)
    images = arguments.images or (1024 if gpu else 64)
    name = torch.cuda.get_device_name() if gpu else "one core"
    print(f"torch {torch.__version__}, {name}, {images} images, ms: the library's, ours, ratio")
    for model in arguments.models:
        whole = [0.0, 0.0]
        for label, blocks, patches, s, channels in stages(model):
            sites = sites_of(images, patches, s, channels, torch.empty(0, dtype=dtype, device=device))
            for what, ways in ways_of(*sites).items():
                theirs = ours = measure(ways.theirs, arguments.calls, device)
                if ways.ours is not ways.theirs:
                    ours = measure(ways.ours, arguments.calls, device)
                rate = ways.tensors * sites[0].numel() * sites[0].element_size() / ours / 1e9
                print(
                    f"{label:15} {what:18} {theirs * 1e3:9.3f} {ours * 1e3:9.3f} "
                    f"{theirs / ours:6.2f}  {rate:6.1f} GB/s",
                    flush=True,
                )
                whole = [total + ways.times * blocks * t for total, t in zip(whole, (theirs, ours), strict=True)]
        print(
            f"{model:15} {'of a whole step':18} {whole[0] * 1e3:9.3f} {whole[1] * 1e3:9.3f} "
            f"{whole[0] / whole[1]:6.2f}  {whole[1] / images * 1e3:6.3f} ms an image",
            flush=True,
        )


if __name__ == "__main__":
    main()
