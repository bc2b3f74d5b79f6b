"""Small pretraining runs: their configuration, and their command line."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.tensor import DTensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from flows.cli import main
from mmearth_train import decoder, distributed, run_lock, sharing
from mmearth_train.config import PretrainConfig
from mmearth_train.distributed import ALONE, Processes
from mmearth_train.encoder import SIZES, Block
from mmearth_train.model import MPMAE
from mmearth_train.precision import choose_device
from mmearth_train.pretrain import Run, pretrain
from mmearth_train.sites import Sites

ROOT = Path(__file__).parents[1]
STEPS = 8
ONLY_AT_THE_END = 100
"""Saving is most of the time of such small steps."""

SIZES["mini"] = (1, 1, 1, 1), 8
"""A model for many steps."""


def configure(tiles: Path, out: Path, **changes: object) -> PretrainConfig:
    """A run of eight steps in two epochs of 21 tiles that saves each of them."""
    config = PretrainConfig(
        tiles, out, preset="demo", epochs=2, batch_size=6, save_every=1, keep=STEPS, log_every=1, threads=1
    )
    return dataclasses.replace(config, **changes)


def command(config: PretrainConfig) -> list[str]:
    """The command line that asks for this configuration, of a ``mmearth`` that knows the size mini."""
    asked: list[str] = []
    for name, value in dataclasses.asdict(config).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            asked += [option] if value else []
        elif value is not None:
            asked.append(f"{option}={value}")
    return [sys.executable, "-m", "tests.pretraining", "pretrain", *asked]


def pretrain_in_double(config: PretrainConfig) -> Path:
    """What ``pretrain`` does in each of several processes, in float64; with a narrow decoder, for that is slow."""
    together = distributed.started() or ALONE
    with distributed.joined(together, choose_device("cpu")), mock.patch.object(decoder, "WIDTH", 32):
        run = Run(config, together)
        run.model.double()
        if not together.first:
            return run.train()
        with run_lock.hold(config.out):
            return run.train()


HELD = "held"


def pretrain_counting(config: PretrainConfig) -> Path:
    """The same; each process's most blocks held whole at once in a forward pass go to RUN/held-RANK, 0 for none."""
    most, forward = 0, Block.forward

    def watched(block: Block, x: Tensor, sites: Sites) -> Tensor:
        nonlocal most
        blocks = [weight for name, weight in found[0].named_parameters() if name.endswith("dwconv.weight")]
        most = max(most, sum(not isinstance(weight, DTensor) for weight in blocks))
        return forward(block, x, sites)

    found: list[MPMAE] = []
    share = sharing.share

    def remembered(model: MPMAE, together: Processes, device: torch.device) -> None:
        found.append(model)
        share(model, together, device)

    with mock.patch.object(Block, "forward", watched), mock.patch.object(sharing, "share", remembered):
        last = pretrain_in_double(config)
    (config.out / f"{HELD}-{(distributed.started() or ALONE).rank}").write_text(str(most))
    return last


EXCHANGED = "exchanged"


def pretrain_exchanging(config: PretrainConfig) -> Path:
    """What ``pretrain`` does; how often a process exchanged gradients goes to RUN/exchanged-RANK, and its parts."""
    counts = {"exchanges": 0, "parts": 0}
    replicate = Processes.replicate

    @functools.wraps(allreduce_hook)  # whose annotations torch looks at: those here are strings
    def exchanged(_: None, bucket: GradBucket) -> Future[Tensor]:
        counts["exchanges"] += bucket.is_last()
        return allreduce_hook(None, bucket)

    def part(*_: object) -> None:
        counts["parts"] += torch.is_grad_enabled()

    def watched(together: Processes, model: MPMAE, device: torch.device) -> nn.Module:
        replica = replicate(together, model, device)
        assert isinstance(replica, DistributedDataParallel)
        replica.register_comm_hook(None, exchanged)
        replica.register_forward_pre_hook(part)
        return replica

    with mock.patch.object(Processes, "replicate", watched):
        last = pretrain(config)
    (config.out / f"{EXCHANGED}-{(distributed.started() or ALONE).rank}").write_text(json.dumps(counts))
    return last


if __name__ == "__main__":
    main()
