"""Where training runs, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda"]


class DeviceError(ValueError):
    """The device asked for is not there; the message says what to choose."""


def choose_device(asked: Device, number: int = 0) -> torch.device:
    """The device asked for; ``auto`` is the GPU where there is one, and then the one of this ``number``."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise DeviceError("no CUDA device was found; use --device cpu or install a CUDA build of torch")
    if not available or asked == "cpu":
        return torch.device("cpu")
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"process {number + 1} of a machine with {torch.cuda.device_count()} GPUs; start one for each at most"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; on a CPU, where it would be slower, nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
