"""The depthwise convolution on a GPU: kernels of our own over visible sites beside cuDNN on the grid of all sites.

    python3 benchmarks/gpu_depthwise.py [--models atto tiny] [--images 1024]

For each stage of a model and for the decoder: milliseconds of the convolution and of its weight's gradient, either way,
in bfloat16, and the part of the memory's traffic that cannot be avoided (sites read and written once) in GB/s. Then
what the convolutions of a whole step take: forward, the sites' gradient, which is a convolution too, and the weight's.

Needs torch with Triton, and numpy. Without a GPU it shows that it works, which takes minutes:

    TRITON_INTERPRET=1 python3 benchmarks/gpu_depthwise.py --models atto --images 1 --calls 1
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import bare_machine

if find_spec("jaxtyping") is None:
    bare_machine.stand_in()

from benchmarks.gpu_training import measure
from mmearth_train import depthwise_gpu
from mmearth_train.decoder import WIDTH
from mmearth_train.depthwise import convolve_grid, grid_weight_gradient
from mmearth_train.encoder import SIZES

SIDE = 7
VISIBLE = 19
KERNEL = 7


def stages(model: str) -> list[tuple[str, int, int, int, int]]:
    """Name, blocks, patches, side of a patch, and channels: of the encoder's four stages and of the decoder."""
    blocks, width = SIZES[model]
    found = [(f"{model} stage {i + 1}", blocks[i], VISIBLE, 8 >> i, width << i) for i in range(4)]
    return [*found, (f"{model} decoder", 1, SIDE**2, 1, WIDTH)]


def sites_of(n: int, patches: int, s: int, channels: int, device: torch.device) -> tuple[Tensor, ...]:
    """Random sites, their gradient, a weight, and which patches are visible."""
    torch.manual_seed(0)
    x, grad = (torch.randn(n, patches, s, s, channels, device=device).bfloat16() for _ in range(2))
    weight = torch.randn(channels, 1, KERNEL, KERNEL, device=device).bfloat16()
    visible = torch.rand(n, SIDE**2, device=device).argsort(1)[:, :patches].sort(1).values
    return x, grad, weight, visible


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["atto", "tiny"], choices=SIZES)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        sys.exit(
            "gpu_depthwise.py: torch sees no GPU; run it where one is, "
            "or try it with TRITON_INTERPRET=1 and --models atto --images 1 --calls 1"
        )
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {arguments.images} images, ms: cuDNN on the grid, ours, ratio")
    for model in arguments.models:
        whole = [0.0, 0.0]
        for label, blocks, patches, s, channels in stages(model):
            x, grad, weight, visible = sites_of(arguments.images, patches, s, channels, device)
            ways = {
                "convolution": (convolve_grid, depthwise_gpu.convolve, (x, weight, visible, SIDE), 2),
                "weight's gradient": (
                    grid_weight_gradient, depthwise_gpu.weight_gradient, (x, grad, visible, SIDE, KERNEL), 1,
                ),
            }  # fmt: skip
            for what, (theirs, own, given, times) in ways.items():
                took = [
                    measure(lambda way=way, given=given: way(*given), arguments.calls, device)[0]
                    for way in (theirs, own)
                ]
                rate = 2 * x.numel() * x.element_size() / took[1] / 1e9
                print(
                    f"{label:15} {what:18} {took[0] * 1e3:9.3f} {took[1] * 1e3:9.3f} {took[0] / took[1]:6.2f}  "
                    f"{rate:6.0f} GB/s",
                    flush=True,
                )
                whole = [sum_ + times * blocks * t for sum_, t in zip(whole, took, strict=True)]
        grid, ours = whole
        print(
            f"{model:15} {'of a whole step':18} {grid * 1e3:9.3f} {ours * 1e3:9.3f} {grid / ours:6.2f}  "
            f"{ours / arguments.images * 1e6:6.2f} µs an image",
            flush=True,
        )


if __name__ == "__main__":
    main()
