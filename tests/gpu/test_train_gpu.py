"""On a GPU the model computes what it computes on a CPU; run with: python -m pytest tests/gpu."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_train import quickest
from mmearth_train.depthwise import convolve_grid, depthwise, grid_weight_gradient
from mmearth_train.layer_norm import LayerNorm
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.precision import autocast
from mmearth_train.sites import EPS
from mmearth_train.variant import VARIANTS
from tests.train_batches import random_batch, random_spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not made for this system")
N = 16
SIZES = pytest.mark.parametrize(("size", "side"), [("atto", 56), ("atto", 112), ("tiny", 56)])
WAYS = pytest.mark.usefixtures("either_way")
SITES = pytest.mark.parametrize(("side", "s", "channels"), [(7, 8, 40), (7, 16, 40), (7, 1, 320), (1, 28, 96)])


def loss_and_gradients(
    device: str, bfloat16: bool, preset: str = "default", size: str = "atto", side: int = 56
) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = MPMAE(replace(random_spec(side, model=size), variant=VARIANTS[preset])).to(device)
    batch = {name: values.to(device) for name, values in random_batch(N, side).items()}
    visible, masked = (torch.from_numpy(patches).to(device) for patches in split_patches(0, 0, np.arange(N), 49))
    with autocast(torch.device(device)) if bfloat16 else torch.autocast(device, enabled=False):
        found = model(batch, visible, masked)
    loss = model.objective(found)
    loss.backward()
    return loss.item(), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def convolved(device: str, side: int, s: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    """The convolution of one random input, and the gradients of its sites and its weight."""
    torch.manual_seed(0)
    keep = 19 if side == 7 else 1
    visible = torch.stack([torch.randperm(side**2)[:keep].sort().values for _ in range(4)])
    x, weight = torch.randn(4, keep, s, s, channels), torch.randn(channels, 1, 7, 7)
    # Values that bfloat16 has: what is compared is what happens to them.
    inputs = [t.bfloat16().to(device, dtype).requires_grad_() for t in (x, weight)]
    y = depthwise(*inputs, visible.to(device), side)
    y.backward(torch.randn(y.shape).bfloat16().to(device, dtype))
    return [y.detach().cpu(), *(t.grad.cpu() for t in inputs)]


@WAYS
@SITES
def test_the_depthwise_convolution_agrees_with_the_cpu(side: int, s: int, channels: int) -> None:
    torch.backends.cudnn.allow_tf32 = False
    pairs = zip(*(convolved(device, side, s, channels, torch.float32) for device in ("cpu", "cuda")), strict=True)
    assert all((one - other).norm() <= 1e-5 * one.norm() for one, other in pairs)


@WAYS
@SITES
def test_in_bfloat16_the_depthwise_convolution_is_exact_but_for_rounding(side: int, s: int, channels: int) -> None:
    exact = convolved("cpu", side, s, channels, torch.float32)
    rounded = convolved("cuda", side, s, channels, torch.bfloat16)
    assert all((one - other.float()).norm() <= 2**-8 * one.norm() for one, other in zip(exact, rounded, strict=True))


@TRITON
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("patches", "s", "channels"), [(19, 8, 40), (19, 4, 80), (19, 2, 160), (19, 1, 320), (49, 1, 512)]
)
def test_kernels_of_visible_sites_agree_with_cudnn_on_the_grid_and_give_the_same_bits_again(
    patches: int, s: int, channels: int, dtype: torch.dtype
) -> None:
    from mmearth_train import depthwise_gpu

    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    visible = torch.stack([torch.randperm(49)[:patches] for _ in range(33)]).cuda()
    x, grad = (torch.randn(33, patches, s, s, channels, device="cuda").to(dtype) for _ in range(2))
    weight = torch.randn(channels, 1, 7, 7, device="cuda").to(dtype)
    assert depthwise_gpu.takes(x, 7, 7)
    pairs = (
        (depthwise_gpu.convolve, convolve_grid, (x, weight, visible, 7)),
        (depthwise_gpu.weight_gradient, grid_weight_gradient, (x, grad, visible, 7, 7)),
    )
    for ours, theirs, arguments in pairs:
        found = ours(*arguments)
        exact = theirs(*(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments))
        assert (found.float() - exact).norm() <= (1e-5 if dtype == torch.float32 else 2**-8) * exact.norm()
        assert torch.equal(ours(*arguments), found)


@TRITON
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [40, 96, 512, 2816])
def test_kernels_of_many_rows_agree_with_torchs_layer_norm_and_give_the_same_bits_again(
    channels: int, dtype: torch.dtype
) -> None:
    from mmearth_train import layer_norm, layer_norm_gpu

    torch.manual_seed(0)
    x, grad = (torch.randn(5003, channels, device="cuda").to(dtype) for _ in range(2))
    weight, bias = (torch.randn(channels, device="cuda") for _ in range(2))
    x = 3 * x + 2
    assert layer_norm_gpu.takes(x)
    found = [
        (way.normalise(x, weight, bias, EPS, dtype), *way.gradients(grad, x, weight, bias, EPS))
        for way in (layer_norm_gpu, layer_norm, layer_norm_gpu)
    ]
    for ours, theirs, again in zip(*found, strict=True):
        tolerance = 1e-5 if ours.dtype == torch.float32 else 2**-8
        assert (ours.float() - theirs.float()).norm() <= tolerance * theirs.float().norm()
        assert torch.equal(ours, again)


@TRITON
def test_both_ways_to_normalise_work_and_one_is_taken_also_under_autocast(caplog: pytest.LogCaptureFixture) -> None:
    quickest._quickest.clear()
    norm, x = LayerNorm(40).cuda(), torch.randn(5003, 40, device="cuda", requires_grad=True)
    with autocast(x.device):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    y.backward(torch.randn_like(y))
    assert len(quickest._quickest) == 2
    assert not caplog.messages


@TRITON
def test_both_ways_to_convolve_work_and_one_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A way that fails would be left alone with a warning."""
    quickest._quickest.clear()
    convolved("cuda", 7, 8, 40, torch.bfloat16)
    assert len(quickest._quickest) == 2
    assert not caplog.messages


@WAYS
@SIZES
@pytest.mark.parametrize("preset", ["default", "reference"])
def test_float32_agrees_with_the_cpu(preset: str, size: str, side: int) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    expected, expected_gradients = loss_and_gradients("cpu", False, preset, size, side)
    loss, gradients = loss_and_gradients("cuda", False, preset, size, side)
    assert loss == pytest.approx(expected, rel=2e-6)
    for name, gradient in gradients.items():
        assert (gradient - expected_gradients[name]).abs().max() <= 1e-4 * expected_gradients[name].abs().max(), name


@WAYS
@SIZES
@pytest.mark.parametrize("preset", ["default", "reference"])
def test_bfloat16_stays_close_to_float32(preset: str, size: str, side: int) -> None:
    expected, expected_gradients = loss_and_gradients("cpu", False, preset, size, side)
    loss, gradients = loss_and_gradients("cuda", True, preset, size, side)
    assert loss == pytest.approx(expected, rel=1e-3)
    ours, theirs = (
        torch.cat([g[name].flatten() for name in gradients]).double() for g in (gradients, expected_gradients)
    )
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) >= 0.995
