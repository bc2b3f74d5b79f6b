"""The depthwise convolution: kernels of our own over visible sites beside the library's on the grid of all sites.

    python3 benchmarks/depthwise.py [--models atto tiny] [--images 1024]

For each stage of a model and for the decoder: milliseconds of the convolution and of its weight's gradient, either way,
and the part of the memory's traffic that cannot be avoided (sites read and written once) in GB/s. Then what the
convolutions of a whole step take: forward, the sites' gradient, which is a convolution too, and the weight's.

On a GPU the library is cuDNN and ours are Triton's, in bfloat16; it needs torch with Triton, and numpy. On a CPU, on
one core in float32, the library is oneDNN, and ours is the weight's gradient alone (numba). How the Triton kernels
would work can be seen there too, which takes minutes:

    TRITON_INTERPRET=1 python3 benchmarks/depthwise.py --models atto --images 1 --calls 1
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

from benchmarks.gpu_training import measure
from mmearth_train.decoder import WIDTH
from mmearth_train.depthwise import Convolution, WeightGradient, convolve_grid, grid_weight_gradient
from mmearth_train.encoder import SIZES

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
    """The library's name, what computes without it, and in which dtype."""

    library: str
    convolve: Convolution
    weight_gradient: WeightGradient
    dtype: torch.dtype


def ways_of_gpu() -> Ways:
    from mmearth_train import depthwise_gpu

    return Ways("cuDNN", depthwise_gpu.convolve, depthwise_gpu.weight_gradient, torch.bfloat16)


def ways_of_cpu() -> Ways:
    from mmearth_train import depthwise_cpu

    torch.set_num_threads(1)
    return Ways("oneDNN", convolve_grid, depthwise_cpu.weight_gradient, torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["atto", "tiny"], choices=SIZES)
    parser.add_argument("--images", type=int, help="by default 1024 on a GPU, 64 on a CPU")
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    own = ways_of_gpu() if gpu or os.environ.get("TRITON_INTERPRET") == "1" else ways_of_cpu()
    device = torch.device("cuda" if gpu else "cpu")
    name = torch.cuda.get_device_name() if gpu else "one core"
    images = arguments.images or (1024 if gpu else 64)
    print(f"torch {torch.__version__}, {name}, {images} images, ms: {own.library} on the grid, ours, ratio")
    for model in arguments.models:
        whole = [0.0, 0.0]
        for label, blocks, patches, s, channels in stages(model):
            x, grad, weight, visible = sites_of(
                images, patches, s, channels, torch.empty(0, dtype=own.dtype, device=device)
            )
            ways = {
                "convolution": (convolve_grid, own.convolve, (x, weight, visible, SIDE), 2),
                "weight's gradient": (
                    grid_weight_gradient, own.weight_gradient, (x, grad, visible, SIDE, KERNEL), 1,
                ),
            }  # fmt: skip
            for what, (theirs, ours, given, times) in ways.items():
                took = [measure(partial(theirs, *given), arguments.calls, device)[0]]
                took.append(took[0] if ours is theirs else measure(partial(ours, *given), arguments.calls, device)[0])
                rate = 2 * x.numel() * x.element_size() / took[1] / 1e9
                print(
                    f"{label:15} {what:18} {took[0] * 1e3:9.3f} {took[1] * 1e3:9.3f} {took[0] / took[1]:6.2f}  "
                    f"{rate:6.1f} GB/s",
                    flush=True,
                )
                whole = [sum_ + times * blocks * t for sum_, t in zip(whole, took, strict=True)]
        print(
            f"{model:15} {'of a whole step':18} {whole[0] * 1e3:9.3f} {whole[1] * 1e3:9.3f} "
            f"{whole[0] / whole[1]:6.2f}  {whole[1] / images * 1e3:6.3f} ms an image",
            flush=True,
        )


if __name__ == "__main__":
    main()
