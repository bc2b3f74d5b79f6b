"""Layer norm on a GPU, many rows in a program, and its gradients; compiled by Triton.

A program holds ``TILE`` numbers, of as many rows as have room; what lies beyond a row's channels is masked. Sums are
float32 and always added up in the same order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

TILE = 2048
"""Numbers of a program, at least: 16 of each thread."""
TURNS = 8
"""Of a program for the gradients, at least: what it adds up is then little beside what it reads."""
PROGRAMS = 660
"""Of a launch for them, at most, with four warps each: as many as run at once on the 132 multiprocessors of an H200."""
VECTOR = 8
"""Channels of a load of 16 bytes in bfloat16."""
WIDEST = 4096
"""Channels of a row that the registers of a program hold."""

FUSED = {"enable_fp_fusion": True}
ONCE = {"do_not_specialize": ["rows"]}  # any number of them is no reason to compile anew


def takes(x: Tensor) -> bool:
    """Whether the kernels are made for rows like those of x (…, C): of whole loads, and counted in 32 bits."""
    known = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return known and x.shape[-1] % VECTOR == 0 and x.shape[-1] <= WIDEST and 0 < x.numel() < 2**31


def normalise(
    x: Float[Tensor, "... C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"], eps: float, dtype: torch.dtype
) -> Float[Tensor, "... C"]:
    """The norm in ``dtype``."""
    x = x.contiguous()
    out = torch.empty_like(x, dtype=dtype)
    shape = _shape(x)
    rows = x.numel() // shape["C"]
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _normalise[(triton.cdiv(rows, shape["ROWS"]),)](
            x, weight, bias, out, rows, EPS=eps, **shape, num_warps=_warps(shape), **FUSED
        )
    return out


def gradients(
    grad: Float[Tensor, "... C"], x: Float[Tensor, "... C"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"],
    eps: float,
) -> tuple[Float[Tensor, "... C"], Float[Tensor, " C"], Float[Tensor, " C"]]:  # fmt: skip
    """Of x, weight and bias, given that of the result."""
    grad, x = grad.contiguous(), x.contiguous()
    grad_x, shape = torch.empty_like(x), _shape(x)
    rows = x.numel() // shape["C"]
    programs = min(triton.cdiv(rows, TURNS * shape["ROWS"]), PROGRAMS * 4 // _warps(shape))
    sums = torch.empty((2, programs, shape["C"]), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _differentiate[(programs,)](
            grad, x, weight, grad_x, sums, rows, EPS=eps, **shape, num_warps=_warps(shape), **FUSED
        )  # fmt: skip
    grad_weight, grad_bias = sums.sum(1).to(weight.dtype)
    return grad_x, grad_weight, grad_bias


def _shape(x: Tensor) -> dict[str, int]:
    """A tile's: channels, and the power of two that holds them, times rows."""
    width = triton.next_power_of_2(x.shape[-1])
    return {"C": x.shape[-1], "WIDTH": width, "ROWS": max(1, TILE // width)}


def _warps(shape: dict[str, int]) -> int:
    return max(4, shape["WIDTH"] // 512)


@triton.jit
def _normalised(
    x: tl.tensor, place: tl.tensor, inside: tl.tensor, C: tl.constexpr, EPS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Rows with mean 0 and variance 1, and what they were scaled by (rows, 1); 0 where nothing is."""
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 1)[:, None] / C, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1)[:, None] / C + EPS)
    return centred * scale, scale


@triton.jit(**ONCE)
def _normalise(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    EPS: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """A program has ``ROWS`` rows of x and of out (rows, C)."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    place, inside = row * C + channel, (row < rows) & (channel < C)
    factor = tl.load(weight + channel, mask=channel < C, other=0.0).to(tl.float32)
    added = tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)
    found, _ = _normalised(x, place, inside, C, EPS)
    tl.store(out + place, (found * factor + added).to(out.dtype.element_ty), mask=inside)


@triton.jit(**ONCE)
def _differentiate(
    grad: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    grad_x: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    EPS: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """A program has every so many rows, and a row of the sums (2, programs, C): the weight's, then the bias's."""
    share, shares = tl.program_id(0), tl.num_programs(0)
    channel = tl.arange(0, WIDTH)[None, :]
    factor = tl.load(weight + channel, mask=channel < C, other=0.0).to(tl.float32)
    of_weight = tl.zeros((ROWS, WIDTH), tl.float32)
    of_bias = tl.zeros((ROWS, WIDTH), tl.float32)
    for first in range(share * ROWS, rows, shares * ROWS):
        row = (first + tl.arange(0, ROWS))[:, None]
        place, inside = row * C + channel, (row < rows) & (channel < C)
        found, scale = _normalised(x, place, inside, C, EPS)
        pull = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        of_weight += pull * found
        of_bias += pull
        pull *= factor
        along = tl.sum(pull * found, 1)[:, None] / C
        level = tl.sum(pull, 1)[:, None] / C
        tl.store(grad_x + place, ((pull - level - found * along) * scale).to(grad_x.dtype.element_ty), mask=inside)
    end = sums + share * C + tl.arange(0, WIDTH)
    tl.store(end, tl.sum(of_weight, 0), mask=tl.arange(0, WIDTH) < C)
    tl.store(end + shares * C, tl.sum(of_bias, 0), mask=tl.arange(0, WIDTH) < C)
