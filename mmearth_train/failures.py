"""What ends a run before its time, and what can be done about it."""

from __future__ import annotations

import torch

from mmearth_train.config import PretrainConfig, RunError
from mmearth_train.variant import Variant

COMPILER = "torch._dynamo", "torch._inductor"
"""Modules of the errors that say why a model cannot be compiled."""


class DivergedError(RuntimeError):
    """The loss, its gradient or a weight is no longer finite; the message says after which step.

    Resuming comes to the same.
    """


class GpuMemoryError(RuntimeError):
    """The GPU's memory does not hold what is computed at once; the message says what needs less."""


def diverged(what: str, step: int) -> DivergedError:
    """``what`` is not finite after so many steps."""
    return DivergedError(
        f"{what} is not finite after step {step}; start again with another --out and a smaller --base-rate"
    )


def explained(error: RuntimeError, config: PretrainConfig, variant: Variant, at_once: int) -> Exception | None:
    """An error of torch about which something can be done, with what that is; None for any other.

    ``at_once`` is how many samples of a step go through the model at once.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return GpuMemoryError(
            f"the GPU's memory does not hold {at_once} samples of model {config.model} at once; "
            f"{_with_less_memory(variant, at_once)}"
        )
    if type(error).__module__.startswith(COMPILER):
        said = str(error).strip().partition("\n")[0]
        return RunError(f"the model cannot be compiled here ({said}); mend that, or leave out --compile")
    return None


def _with_less_memory(variant: Variant, at_once: int) -> str:
    if at_once == 1:
        return "start again with another --out and a smaller --model"
    fewer = f"--micro-batch {at_once // 2}"
    if variant.grn == "batch":
        return f"start again with another --out and {fewer}"
    return f"continue with --resume {fewer}, which trains the same batches in smaller parts"
