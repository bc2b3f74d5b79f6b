"""The kernels for a GPU, without one: Triton interprets them on a CPU, and compiles them for what is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmearth_train import layer_norm
from mmearth_train.sites import EPS
from tests.ahead_of_time import ARCHITECTURES, Launch, compiled, loads, memory_of_threads, noted
from tests.interpreted import ROWS, SHAPES, Rows, Shape, inputs, loss_and_gradients, of_rows

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not made for this system")

ROOT = Path(__file__).parents[2]
ROUNDING = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}
STAGES = ((8, 40, 19), (4, 80, 19), (2, 160, 19), (1, 320, 19), (8, 352, 19), (1, 512, 49))
"""Side of a patch, channels and patches: of atto, of huge's first stage, and of the decoder."""

NORMS = (40, 512, 2816)
"""Channels of rows: atto's first stage's, the decoder's, and those of huge's last."""


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("interpreted") / "found.pt"
    command = [sys.executable, "-m", "tests.interpreted", str(out)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = torch.load(out)
    return found


def of_the_grid(shape: Shape) -> tuple[Tensor, Tensor]:
    """The convolution and the weight's gradient in float64, by torch's of a grid that is filled patch by patch."""
    x, weight, grad, visible = inputs(shape)
    weight, s = weight.double().requires_grad_(), shape.s
    grid = torch.zeros(2, shape.channels, shape.side * s, shape.side * s, dtype=torch.float64)
    corners = [[divmod(int(place), shape.side) for place in places] for places in visible]
    for n, k in product(range(2), range(shape.patches)):
        i, j = corners[n][k]
        grid[n, :, i * s : i * s + s, j * s : j * s + s] = x[n, k].permute(2, 0, 1)
    y = functional.conv2d(grid, weight, padding=shape.kernel // 2, groups=shape.channels)
    found = torch.empty(x.shape, dtype=torch.float64)
    for n, k in product(range(2), range(shape.patches)):
        i, j = corners[n][k]
        found[n, k] = y[n, :, i * s : i * s + s, j * s : j * s + s].permute(1, 2, 0)
    return found.detach(), torch.autograd.grad(found, weight, grad.double())[0]


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_interpreted_they_compute_the_convolution_of_the_whole_grid(number: int, interpreted: dict[str, Any]) -> None:
    shape = SHAPES[number]
    (y, gradient), (expected, expected_gradient) = interpreted[str(number)], of_the_grid(shape)
    assert (y.dtype, gradient.dtype) == (shape.dtype, torch.float32)
    assert (y.double() - expected).norm() <= ROUNDING[shape.dtype] * expected.norm()
    assert (gradient - expected_gradient).norm() <= ROUNDING[torch.float32] * expected_gradient.norm()


@pytest.mark.parametrize("rows", ROWS)
def test_interpreted_rows_are_normalised_with_torchs_gradients(rows: Rows, interpreted: dict[str, Any]) -> None:
    x, weight, bias, grad = of_rows(rows)
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    y = functional.layer_norm(exact[0], (rows.channels,), *exact[1:], EPS)
    expected = y.detach(), *torch.autograd.grad(y, exact, grad.double())
    ours = interpreted[str(rows)]
    theirs = (
        layer_norm.normalise(x, weight, bias, EPS, rows.found),
        *layer_norm.gradients(grad, x, weight, bias, EPS),
    )
    for found in (ours, theirs):
        assert [t.dtype for t in found] == [rows.found, rows.given, torch.float32, torch.float32]
        for one, other in zip(found, expected, strict=True):
            assert (one.double() - other).norm() <= ROUNDING[one.dtype] * other.norm()


def test_interpreted_a_model_has_the_loss_and_gradients_that_it_has_on_a_cpu(interpreted: dict[str, Any]) -> None:
    expected = loss_and_gradients()
    assert interpreted["model"].keys() == expected.keys()
    for name, value in expected.items():
        assert (interpreted["model"][name] - value).abs().max() <= 1e-5 * value.abs().max(), name


@pytest.mark.parametrize(
    ("taken", "size", "dtype", "side"),
    [
        (True, (1024, 19, 8, 8, 40), torch.bfloat16, 7),
        (True, (2, 19, 1, 1, 320), torch.float32, 7),
        (False, (2, 19, 1, 1, 320), torch.float64, 7),
        (False, (2, 19, 8, 8, 44), torch.bfloat16, 7),
        (False, (2, 1, 28, 28, 96), torch.bfloat16, 1),
        (True, (5016, 19, 8, 8, 352), torch.bfloat16, 7),
        (False, (5018, 19, 8, 8, 352), torch.bfloat16, 7),
        (False, (560_000, 1, 8, 8, 8), torch.bfloat16, 7),
    ],
)
def test_they_take_what_they_are_made_for_and_what_32_bits_can_number(
    taken: bool, size: tuple[int, ...], dtype: torch.dtype, side: int
) -> None:
    from mmearth_train import depthwise_gpu

    assert depthwise_gpu.takes(torch.empty(size, dtype=dtype, device="meta"), side, 7) is taken


@pytest.mark.parametrize(
    ("taken", "size", "dtype"),
    [
        (True, (1024, 19, 8, 8, 40), torch.bfloat16),
        (True, (2, 2816), torch.float32),
        (False, (2, 320), torch.float64),
        (False, (2, 44), torch.bfloat16),
        (False, (2, 4104), torch.float32),
        (False, (0, 40), torch.float32),
        (False, (2**26, 32), torch.bfloat16),
    ],
)
def test_norms_take_rows_that_they_are_made_for(taken: bool, size: tuple[int, ...], dtype: torch.dtype) -> None:
    from mmearth_train import layer_norm_gpu

    assert layer_norm_gpu.takes(torch.empty(size, dtype=dtype, device="meta")) is taken


def test_another_number_of_sites_and_a_view_of_odd_rows_are_no_reason_to_compile_again() -> None:
    from mmearth_train import depthwise_gpu, layer_norm_gpu

    of_sites = depthwise_gpu._number, depthwise_gpu._convolve, depthwise_gpu._correlate
    for kernel in (*of_sites, layer_norm_gpu._normalise, layer_norm_gpu._differentiate):
        parameters = {parameter.name: parameter for parameter in kernel.params}
        assert parameters["rows"].do_not_specialize
        assert kernel not in of_sites or parameters["visible"].do_not_specialize_on_alignment


def launches(s: int, channels: int, patches: int, monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Every kernel once, as the trainer launches it in bfloat16."""
    from mmearth_train import depthwise_gpu

    seen = noted(depthwise_gpu, ("_number", "_convolve", "_correlate"), monkeypatch)
    x, weight = torch.empty(2, patches, s, s, channels).bfloat16(), torch.empty(channels, 1, 7, 7).bfloat16()
    visible = torch.arange(patches).expand(2, -1)
    depthwise_gpu.convolve(x, weight, visible, 7)
    depthwise_gpu.weight_gradient(x, x, visible, 7, 7)
    return [seen[number] for number in (0, 1, 3)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", NORMS)
def test_compiled_for_a_gpu_norms_read_16_bytes_at_once_and_spill_nothing(
    channels: int, architecture: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mmearth_train import layer_norm_gpu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    seen = noted(layer_norm_gpu, ("_normalise", "_differentiate"), monkeypatch)
    x, weight = torch.empty(64, channels).bfloat16(), torch.empty(channels)
    layer_norm_gpu.normalise(x, weight, weight, EPS, torch.bfloat16)
    layer_norm_gpu.gradients(x, x, weight, weight, EPS)
    for launch in seen:
        made = compiled(launch, architecture)
        assert memory_of_threads(made, tmp_path) == {"STACK": 0, "LOCAL": 0}
        of_rows = launch.given["ROWS"] * launch.given["WIDTH"] // (32 * launch.given["num_warps"])
        tensors = ("x", "grad") if "grad" in launch.given else ("x",)
        assert sum(load.endswith(".v4.b32") for load in loads(made)) >= len(tensors) * of_rows // 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("s", "channels", "patches"), STAGES)
def test_compiled_for_a_gpu_they_read_16_bytes_at_once_and_spill_nothing(
    s: int, channels: int, patches: int, architecture: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for launch in launches(s, channels, patches, monkeypatch):
        made = compiled(launch, architecture)
        assert memory_of_threads(made, tmp_path) == {"STACK": 0, "LOCAL": 0}
        if launch.kernel.__name__ == "_number":
            continue
        neighbours = launch.given["RUN"] + 2 * launch.given["PAD"]
        assert sum(load.endswith(".v4.b32") for load in loads(made)) > neighbours
        assert all(load.endswith((".v4.b32", ".b32", ".b64")) for load in loads(made))
