"""Triton's kernels compiled for a GPU that need not be there, just as the trainer launches them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

ARCHITECTURES = (80, 90)
"""Ampere and Hopper."""
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}


class Launch(NamedTuple):
    """A kernel, and by name everything it is launched with."""

    kernel: Any
    given: dict[str, Any]


class Noted:
    """In the place of a kernel: notes what it would be launched with."""

    def __init__(self, kernel: Any, seen: list[Launch]) -> None:
        self._kernel, self._seen = kernel, seen

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            given = dict(zip(self._kernel.arg_names, arguments, strict=False)) | options
            self._seen.append(Launch(self._kernel, given))

        return launch


def noted(module: ModuleType, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches of the named kernels from here on, which are no longer made."""
    seen: list[Launch] = []
    for name in names:
        monkeypatch.setattr(module, name, Noted(getattr(module, name), seen))
    return seen


def compiled(launch: Launch, architecture: int) -> Any:
    """A kernel as Triton compiles it for such a launch; its tensors begin at multiples of 16 bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, options = launch
    given = {name: options[name] for name in kernel.arg_names}
    constants = {name: value for name, value in given.items() if not isinstance(value, Tensor) and name != "rows"}
    signature = {
        name: "constexpr" if name in constants else "i32" if name == "rows" else TYPES[value.dtype]
        for name, value in given.items()
    }
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind[0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    how = {name: value for name, value in options.items() if name not in given}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=how)


def loads(made: Any) -> list[str]:
    """The instructions that read a GPU's memory."""
    return re.findall(r"ld\.global\S*", made.asm["ptx"])


def memory_of_threads(made: Any, folder: Path) -> dict[str, int]:
    """Bytes that each thread of a compiled kernel needs beside its registers."""
    import triton

    path = folder / "program.cubin"
    path.write_bytes(made.asm["cubin"])
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([reader, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    return {name: int(size) for name, size in re.findall(r"(STACK|LOCAL):(\d+)", said)}
