"""Where training runs, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda"]


class DeviceError(ValueError):
    """The device asked for is not there; the message says what to choose."""


def choose_device(asked: Device) -> torch.device:
    """The device asked for; ``auto`` is the GPU where there is one."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise DeviceError("no CUDA device was found; use --device cpu or install a CUDA build of torch")
    return torch.device("cuda" if available and asked != "cpu" else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; on a CPU, where it would be slower, nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
