"""Where a run begins: in an empty folder, or after its last intact checkpoint if that is of this very run."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from mmearth_data.store import Store
from mmearth_train import checkpoint, metrics, run_lock
from mmearth_train.checkpoint import Checkpoint, CheckpointError
from mmearth_train.config import PretrainConfig, RunError
from mmearth_train.distributed import Processes
from mmearth_train.model import ModelSpec
from mmearth_train.pretrained import FILE_NAME as ENCODER_FILE
from mmearth_train.schedule import Recipe
from mmearth_train.tasks import pretext_names
from mmearth_train.variant import Variant

Settings = dict[str, str | int | float]


def settings_of(
    config: PretrainConfig,
    recipe: Recipe,
    variant: Variant,
    store: Store,
    train: NDArray[np.int64],
    steps_per_epoch: int,
    processes: int,
    at_once: int,
) -> Settings:
    """What must be the same for a run to be continued: everything that its weights depend on, but for rounding.

    ``at_once`` is how many samples of a step a process ever computes on at once. That, and with how many
    ``processes``, matters to weights only where responses are normalised over those samples.
    """
    together: Settings = {"processes": processes, "micro_batch": at_once} if variant.grn == "batch" else {}
    return {
        "model": config.model,
        "input_size": config.input_size,
        "pretext": ",".join(pretext_names(config.pretext)),
        "preset": config.preset,
        "weighting": config.weighting,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "peak_rate": recipe.peak_rate,
        "seed": config.seed,
        "training tiles": hashlib.sha256(store.location_id[train].tobytes()).hexdigest()[:16],
        "steps per epoch": steps_per_epoch,
        **together,
    }


def origin_of(config: PretrainConfig, together: Processes, at_once: int) -> dict[str, Any]:
    """How a run is made, for whoever finds its checkpoints: configuration, code, and what rounding depends on."""
    asked = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(config).items()}
    return {
        "config": asked,
        "code": code_version(),
        "torch": torch.__version__,
        "processes": together.world,
        "at_once": at_once,
    }


def code_version() -> str:
    """A digest of this package's source files: it tells two checkouts apart, installed or not, with git or without."""
    folder, total = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def begin(
    config: PretrainConfig, together: Processes, settings: Settings, spec: ModelSpec, console: Console
) -> Checkpoint | None:
    """The checkpoint to go on from, the same in every process; None for a new run.

    The first process looks into the folder and tidies it. RunError or CheckpointError where it cannot be used so.
    """
    if not together.first:
        path = together.told(None)
        return checkpoint.load(Path(path)) if path is not None else None
    last = _last(config, settings, spec, console)
    together.told(str(last.path) if last is not None else None)
    return last


def _last(config: PretrainConfig, settings: Settings, spec: ModelSpec, console: Console) -> Checkpoint | None:
    out = config.out
    if not config.resume:
        if run_lock.used(out):
            raise RunError(f"{out} is not empty; continue its run with --resume or choose another --out")
        return None
    checkpoint.clear_unfinished(out)
    last = checkpoint.latest(out)
    if last is None:
        if checkpoint.found(out):
            raise CheckpointError(f"every checkpoint in {out} is damaged; start again with another --out")
        if (out / ENCODER_FILE).exists():
            raise RunError(f"{out} holds the encoder of a run whose checkpoints are gone; choose another --out")
        console.print(f"no checkpoint in {out} yet: starting anew")
        metrics.rewind(out, -1)
        checkpoint.link_best(out, None)
        return None
    for name, value in settings.items():
        # One of an older version may not say everything.
        if last.settings.get(name, value) != value:
            raise CheckpointError(
                f"{out} was started with {name} {last.settings[name]}, not {value}; "
                "resume with the same settings or choose another --out"
            )
    if last.spec != spec:
        raise CheckpointError(
            f"the statistics of {config.store} have changed since {out} was started; "
            "resume with the store as it was or choose another --out"
        )
    if last.origin.get("code") != code_version() or last.origin.get("torch") != torch.__version__:
        console.print(f"{out} was last trained by other code or another torch: what follows may differ in its digits")
    metrics.rewind(out, last.step)
    checkpoint.link_best(out, last.best)
    checkpoint.set_aside(out, last.step)
    return last
