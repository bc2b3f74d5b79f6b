"""The processes that train one model together: who they are, and the little that they tell each other.

They are started by torchrun or by ``launch``; both say in the environment which process this is. Numbers that live on
a GPU are added up there (NCCL); what the processes agree on, such as when to stop, goes between the hosts (gloo), so
that no process waits for its GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process among all: ``rank`` of ``world``, and ``local``, its number on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes, on the device where they are."""
        if self.world == 1:
            return values
        result = values.detach().clone()
        distributed.all_reduce(result)
        return result

    def largest(self, value: int) -> int:
        """The largest ``value`` of any process; every process waits here until all have come."""
        if self.world == 1:
            return value
        found = torch.tensor(value)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return int(found)

    def told(self, word: str | None) -> str | None:
        """What the first process says, to all of them."""
        if self.world == 1:
            return word
        said: list[str | None] = [word]
        distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        return said[0]

    def replicate(self, model: nn.Module, device: torch.device) -> nn.Module:
        """``model`` with gradients averaged over all processes at the end of each backward pass.

        One whose weights are shared out does that by itself.
        """
        if self.world == 1 or isinstance(model, FSDPModule):
            return model
        devices = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():
            # Buffers are constants. The option's new name is not known to every torch that we run with.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*broadcast_buffers")
            return DistributedDataParallel(
                model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
            )


ALONE = Processes()


def started() -> Processes | None:
    """This process as the environment tells it, None where it was not started as one of several."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Processes(rank, world, int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Be connected to the other processes while the context lasts.

    After an error the connection is left to the end of this process, for the others may never answer again.
    """
    if processes.world == 1:
        yield
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()
