"""The depthwise convolution on a GPU over visible sites alone, and the gradient of its weight, compiled by Triton.

Sites are rows of C channels. A map of the padded grid, (N, H + 2p, H + 2p), says which row each cell's site is, and -1
where it is hidden or beyond the edge: so neither a grid of values is needed nor a case for edges.

A lane works on ``VECTOR`` channels of a run of sites that lie side by side in one patch. It goes through the lines of
the run's window, and what it reads of a neighbour once goes into every site of the run. Sums are float32 and always
added up in the same order. With sites of side 8, 4, 2 and 1 runs have 4, 4, 2 and 1 of them.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Integer
from torch import Tensor

VECTOR = 8
"""Channels of a lane: one load of 16 bytes in bfloat16."""
LANES = 128
"""Of a program: four warps."""
RUN = 4
"""Sites of a lane, at most; their sums have to fit in registers."""
CHANNELS = 64
"""That a program adds up for the gradient of a weight, at most."""
PROGRAMS = 2048
"""Of a launch for it, at most: several for each multiprocessor of any GPU."""

LAUNCH = {"num_warps": LANES // 32, "enable_fp_fusion": True}
# ``visible`` may be a view of any row of a batch, and ``rows`` any number: neither is a reason to compile anew.
ONCE = {"do_not_specialize": ["rows"], "do_not_specialize_on_alignment": ["visible"]}


def takes(x: Tensor, side: int, kernel: int) -> bool:
    """Whether the kernels are made for sites like x (N, K, s, s, C): of several patches, and counted in 32 bits."""
    n, _, s, _, channels = x.shape
    known = x.dtype in (torch.float32, torch.bfloat16, torch.float16) and channels % VECTOR == 0
    cells = n * (side * s + kernel - 1) ** 2
    return known and side > 1 and max(x.numel(), cells) < 2**31


def convolve(
    x: Float[Tensor, "N K s s C"], weight: Float[Tensor, "C 1 k k"], visible: Integer[Tensor, "N K"], side: int
) -> Float[Tensor, "N K s s C"]:
    """Sites convolved without bias; k is odd and absent neighbours are zero."""
    x, visible = x.contiguous(), visible.contiguous()
    channels, rows, run = x.shape[-1], x.numel() // x.shape[-1], math.gcd(x.shape[2], RUN)
    geometry = _geometry(x, side, weight.shape[-1])
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        row_at = _rows_of_cells(visible, rows, geometry)
        _convolve[(triton.cdiv(rows // run * (channels // VECTOR), LANES),)](
            x, weight.flatten(1).t().contiguous(), visible, row_at, out, rows,
            C=channels, VECTOR=VECTOR, LANES=LANES, RUN=run, **geometry, **LAUNCH,
        )  # fmt: skip
    return out


def weight_gradient(
    x: Float[Tensor, "N K s s C"],
    grad: Float[Tensor, "N K s s C"],
    visible: Integer[Tensor, "N K"],
    side: int,
    kernel: int,
) -> Float[Tensor, "C 1 k k"]:
    """Gradient (C, 1, k, k) in float32 from sites and the gradient of what they were convolved to."""
    x, grad, visible = x.contiguous(), grad.contiguous(), visible.contiguous()
    channels, rows, run = x.shape[-1], x.numel() // x.shape[-1], math.gcd(x.shape[2], RUN)
    geometry = _geometry(x, side, kernel)
    width = math.gcd(channels, CHANNELS)
    runs = LANES * VECTOR // width
    blocks = channels // width
    shares = max(1, min(triton.cdiv(rows, runs * run), PROGRAMS // (kernel * blocks)))
    sums = torch.empty((shares, kernel, kernel, channels), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        row_at = _rows_of_cells(visible, rows, geometry)
        _correlate[(shares, kernel, blocks)](
            x, grad, visible, row_at, sums, rows, C=channels, CHANNELS=width, RUNS=runs, RUN=run, **geometry, **LAUNCH
        )
    return sums.sum(0).permute(2, 0, 1)[:, None].contiguous()


def _geometry(x: Tensor, side: int, kernel: int) -> dict[str, int]:
    """What the place of a site is worked out from: patches of a sample, side of a patch and of the grid, margin."""
    return {"K": x.shape[1], "S": x.shape[2], "SIDE": side, "PAD": kernel // 2}


def _rows_of_cells(visible: Integer[Tensor, "N K"], rows: int, geometry: dict[str, int]) -> Integer[Tensor, "N h h"]:
    """The row of each cell's site on the padded grid, or -1."""
    width = geometry["SIDE"] * geometry["S"] + 2 * geometry["PAD"]
    row_at = torch.full((len(visible), width, width), -1, dtype=torch.int32, device=visible.device)
    _number[(triton.cdiv(rows, LANES),)](visible, row_at, rows, LANES=LANES, **geometry, **LAUNCH)
    return row_at


@triton.jit
def _window(
    row: tl.tensor,
    inside: tl.tensor,
    visible: tl.tensor,
    K: tl.constexpr,
    S: tl.constexpr,
    SIDE: tl.constexpr,
    PAD: tl.constexpr,
) -> tl.tensor:
    """The cell of the padded grid in which the window around a row's site begins."""
    width: tl.constexpr = SIDE * S + 2 * PAD
    place = tl.load(visible + row // (S * S), mask=inside, other=0).to(tl.int32)
    y = place // SIDE * S + row % (S * S) // S
    x = place % SIDE * S + row % S
    return (row // (K * S * S) * width + y) * width + x


@triton.jit(**ONCE)
def _number(
    visible: tl.tensor,
    row_at: tl.tensor,
    rows: tl.tensor,
    LANES: tl.constexpr,
    K: tl.constexpr,
    S: tl.constexpr,
    SIDE: tl.constexpr,
    PAD: tl.constexpr,
) -> None:
    """Write each site's row into its cell."""
    row = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = row < rows
    window = _window(row, inside, visible, K, S, SIDE, PAD)
    tl.store(row_at + window + PAD * (SIDE * S + 2 * PAD) + PAD, row, mask=inside)


@triton.jit(**ONCE)
def _convolve(
    x: tl.tensor,
    weight: tl.tensor,
    visible: tl.tensor,
    row_at: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    C: tl.constexpr,
    VECTOR: tl.constexpr,
    LANES: tl.constexpr,
    RUN: tl.constexpr,
    K: tl.constexpr,
    S: tl.constexpr,
    SIDE: tl.constexpr,
    PAD: tl.constexpr,
) -> None:
    """A program has ``LANES`` lanes, the first ones those of the first run; the weight is (k, k, C)."""
    kernel: tl.constexpr = 2 * PAD + 1
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    row = lane // (C // VECTOR) * RUN
    inside = row < rows
    window = _window(row, inside, visible, K, S, SIDE, PAD)
    channel = (lane % (C // VECTOR))[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    totals = (tl.zeros((LANES, VECTOR), tl.float32),) * RUN
    for i in range(kernel):
        factors = ()
        for j in tl.static_range(kernel):
            factors += (tl.load(weight + (i * kernel + j) * C + channel).to(tl.float32),)
        for column in tl.static_range(RUN + kernel - 1):
            cell = row_at + window + i * (SIDE * S + 2 * PAD) + column
            neighbour = tl.load(cell, mask=inside, other=-1)[:, None]
            value = tl.load(x + neighbour * C + channel, mask=neighbour >= 0, other=0.0).to(tl.float32)
            sums = ()
            for site in tl.static_range(RUN):
                if site <= column and column - site < kernel:
                    sums += (totals[site] + value * factors[column - site],)
                else:
                    sums += (totals[site],)
            totals = sums
    for site in tl.static_range(RUN):
        place = out + (row + site)[:, None] * C + channel
        tl.store(place, totals[site].to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit(**ONCE)
def _correlate(
    x: tl.tensor,
    grad: tl.tensor,
    visible: tl.tensor,
    row_at: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    C: tl.constexpr,
    CHANNELS: tl.constexpr,
    RUNS: tl.constexpr,
    RUN: tl.constexpr,
    K: tl.constexpr,
    S: tl.constexpr,
    SIDE: tl.constexpr,
    PAD: tl.constexpr,
) -> None:
    """A program has a share of the sites, one line of the kernel, and some channels; sums are (shares, k, k, C)."""
    kernel: tl.constexpr = 2 * PAD + 1
    share, i = tl.program_id(0), tl.program_id(1)
    channel = (tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    totals = (tl.zeros((RUNS, CHANNELS), tl.float32),) * kernel
    for first in range(share * RUNS * RUN, rows, tl.num_programs(0) * RUNS * RUN):
        row = first + tl.arange(0, RUNS) * RUN
        inside = row < rows
        window = _window(row, inside, visible, K, S, SIDE, PAD)
        pulls = ()
        for site in tl.static_range(RUN):
            place = grad + (row + site)[:, None] * C + channel
            pulls += (tl.load(place, mask=inside[:, None], other=0.0).to(tl.float32),)
        for column in tl.static_range(RUN + kernel - 1):
            cell = row_at + window + i * (SIDE * S + 2 * PAD) + column
            neighbour = tl.load(cell, mask=inside, other=-1)[:, None]
            value = tl.load(x + neighbour * C + channel, mask=neighbour >= 0, other=0.0).to(tl.float32)
            added = ()
            for j in tl.static_range(kernel):
                if j <= column and column - j < RUN:
                    added += (totals[j] + pulls[column - j] * value,)
                else:
                    added += (totals[j],)
            totals = added
    for j in tl.static_range(kernel):
        tl.store(sums + ((share * kernel + i) * kernel + j) * C + channel, tl.sum(totals[j], 0)[None, :])
