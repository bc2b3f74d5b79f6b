"""The gradient of a depthwise convolution's weight on a CPU, from visible sites alone.

oneDNN takes several times as long for it as for the convolution itself, on a grid that holds hidden sites too. Here
each visible site meets its visible neighbours only, 64 channels at a time, which is four times faster and more
(``benchmarks/kernels.py``). Compiled by numba, once per dtype, and kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from torch import Tensor

from mmearth_data.compiled import compiled

BLOCK = 64
"""Channels whose sums for all places of the kernel fit in a core's first cache, with their neighbours' values."""


def weight_gradient(
    x: Float[Tensor, "N K s t C"],
    grad: Float[Tensor, "N K s t C"],
    visible: Integer[Tensor, "N K"],
    side: int,
    kernel: int,
) -> Float[Tensor, "C 1 k k"]:
    """Gradient (C, 1, k, k), in float32 or float64, from sites and that of what they were convolved to (N, K, s, t, C).

    Samples are shared among torch's threads; the sums depend on how many there are by rounding alone.
    """
    channels, pad = x.shape[-1], kernel // 2
    height, width = x.shape[2:4]
    precise = torch.promote_types(x.dtype, torch.float32)
    rows = [values.to(precise).reshape(-1, channels).numpy() for values in (x, grad)]
    row_at = np.full((len(x), side * height + 2 * pad, side * width + 2 * pad), -1, dtype=np.int32)
    _number(visible.numpy(), side, height, width, pad, row_at)
    threads = max(1, min(torch.get_num_threads(), len(x)))
    sums = np.zeros((threads, kernel, kernel, channels), dtype=rows[0].dtype)
    parts = np.array_split(row_at, threads)
    if threads == 1:
        _accumulate(*rows, parts[0], sums[0])
    else:
        list(_pool(threads).map(lambda part, total: _accumulate(*rows, part, total), parts, sums))
    return torch.from_numpy(sums.sum(0)).permute(2, 0, 1)[:, None].contiguous()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "mmearth-weight-gradient")


def _number_sites(
    visible: NDArray[np.int64], side: int, height: int, width: int, pad: int, row_at: NDArray[np.int32]
) -> None:
    """Write each visible site's row into its place on the padded grid."""
    row = 0
    for n in range(visible.shape[0]):
        for k in range(visible.shape[1]):
            top, left = visible[n, k] // side * height + pad, visible[n, k] % side * width + pad
            for y in range(top, top + height):
                for x in range(left, left + width):
                    row_at[n, y, x] = row
                    row += 1


def _accumulate_sites(x: NDArray[Any], grad: NDArray[Any], row_at: NDArray[np.int32], total: NDArray[Any]) -> None:
    """Add the products of each site's gradient with its neighbours; sample by sample, which keeps sums short."""
    kernel, channels = total.shape[1:]
    pad = kernel // 2
    sums = np.empty((kernel, kernel, BLOCK), dtype=total.dtype)
    for first in range(0, channels, BLOCK):
        count = min(BLOCK, channels - first)
        for n in range(row_at.shape[0]):
            sums[:] = 0
            for y in range(pad, row_at.shape[1] - pad):
                for x0 in range(pad, row_at.shape[2] - pad):
                    row = row_at[n, y, x0]
                    if row < 0:
                        continue
                    pull = grad[row, first : first + count]
                    for i in range(kernel):
                        for j in range(kernel):
                            neighbour = row_at[n, y + i - pad, x0 + j - pad]
                            if neighbour < 0:
                                continue
                            to, value = sums[i, j], x[neighbour, first : first + count]
                            for c in range(count):
                                to[c] += pull[c] * value[c]
            for i in range(kernel):
                for j in range(kernel):
                    for c in range(count):
                        total[i, j, first + c] += sums[i, j, c]


_number: Callable[..., None] = compiled(_number_sites)
_accumulate: Callable[..., None] = compiled(_accumulate_sites, fastmath={"contract"})
