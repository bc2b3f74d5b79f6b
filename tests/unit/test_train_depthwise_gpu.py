"""The kernels for a GPU, without one: Triton interprets them on a CPU, and compiles them for what is not there."""

from __future__ import annotations

import os
import re
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

from tests.interpreted import SHAPES, Shape, inputs, loss_and_gradients

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not made for this system")

ROOT = Path(__file__).parents[2]
ROUNDING = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
STAGES = ((8, 40, 19), (4, 80, 19), (2, 160, 19), (1, 320, 19), (8, 352, 19), (1, 512, 49))
"""Side of a patch, channels and patches: of atto, of huge's first stage, and of the decoder."""


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


def test_another_number_of_sites_and_a_view_of_odd_rows_are_no_reason_to_compile_again() -> None:
    from mmearth_train import depthwise_gpu

    for kernel in (depthwise_gpu._number, depthwise_gpu._convolve, depthwise_gpu._correlate):
        parameters = {parameter.name: parameter for parameter in kernel.params}
        assert parameters["rows"].do_not_specialize
        assert parameters["visible"].do_not_specialize_on_alignment


class Launches:
    """In the place of a kernel: notes what it would be launched with."""

    def __init__(self, kernel: Any, seen: list[tuple[Any, dict[str, Any]]]) -> None:
        self._kernel, self._seen = kernel, seen

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            self._seen.append((self._kernel, dict(zip(self._kernel.arg_names, arguments, strict=False)) | options))

        return launch


def launches(s: int, channels: int, patches: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Every kernel once, as the trainer launches it in bfloat16."""
    from mmearth_train import depthwise_gpu

    seen: list[tuple[Any, dict[str, Any]]] = []
    for name in ("_number", "_convolve", "_correlate"):
        monkeypatch.setattr(depthwise_gpu, name, Launches(getattr(depthwise_gpu, name), seen))
    x, weight = torch.empty(2, patches, s, s, channels).bfloat16(), torch.empty(channels, 1, 7, 7).bfloat16()
    visible = torch.arange(patches).expand(2, -1)
    depthwise_gpu.convolve(x, weight, visible, 7)
    depthwise_gpu.weight_gradient(x, x, visible, 7, 7)
    return [seen[number] for number in (0, 1, 3)]


def compiled(kernel: Any, options: dict[str, Any], architecture: int) -> Any:
    """A kernel as Triton compiles it for a GPU that need not be there; its tensors begin at multiples of 16 bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = {name: options[name] for name in kernel.arg_names}
    constants = {name: value for name, value in given.items() if isinstance(value, int) and name != "rows"}
    signature = {
        name: "constexpr" if name in constants else "i32" if name == "rows" else TYPES[value.dtype]
        for name, value in given.items()
    }
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind[0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    how = {name: value for name, value in options.items() if name not in given}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=how)


def memory_of_threads(program: bytes, folder: Path) -> dict[str, int]:
    """Bytes that each thread of a compiled kernel needs beside its registers."""
    import triton

    path = folder / "program.cubin"
    path.write_bytes(program)
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([reader, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    return {name: int(size) for name, size in re.findall(r"(STACK|LOCAL):(\d+)", said)}


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(("s", "channels", "patches"), STAGES)
def test_compiled_for_a_gpu_they_read_16_bytes_at_once_and_spill_nothing(
    s: int, channels: int, patches: int, architecture: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ampere and Hopper."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for kernel, options in launches(s, channels, patches, monkeypatch):
        made = compiled(kernel, options, architecture)
        assert memory_of_threads(made.asm["cubin"], tmp_path) == {"STACK": 0, "LOCAL": 0}
        if kernel.__name__ == "_number":
            continue
        loads = re.findall(r"ld\.global\S*", made.asm["ptx"])
        neighbours = options["RUN"] + 2 * options["PAD"]
        assert sum(load.endswith(".v4.b32") for load in loads) > neighbours
        assert all(load.endswith((".v4.b32", ".b32", ".b64")) for load in loads)
