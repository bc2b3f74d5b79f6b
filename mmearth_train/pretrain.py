"""Pretraining: one run, from a store to an exported encoder, readable from top to bottom.

A step is a pure function of the weights, the optimiser's moments and the step's number. Killed at any moment and
resumed, on the same machine with as many threads, a run ends with the same weights bit by bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mmearth_data.store import Store, open_store
from mmearth_train import checkpoint, losses, metrics, run_lock, schedule
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.config import PretrainConfig, RunError, recipe_of
from mmearth_train.interruption import Stop
from mmearth_train.loader import Loader
from mmearth_train.model import INPUT, MPMAE, Losses
from mmearth_train.precision import autocast, choose_device
from mmearth_train.pretrained import FILE_NAME as ENCODER_FILE
from mmearth_train.pretrained import export_encoder
from mmearth_train.schedule import Recipe
from mmearth_train.specification import specify
from mmearth_train.tasks import pretext_names
from mmearth_train.validation import patches_of, validate

MICRO_BATCH = {"cpu": 32, "cuda": 1024}
"""Samples that go through the model at once, at most: larger CPU tensors are given back to the system every time."""


class DivergedError(RuntimeError):
    """The loss or the weights are no longer finite; the message names the step. Resuming comes to the same."""


def pretrain(config: PretrainConfig) -> Path:
    """Train until the recipe's last epoch and export the encoder; returns the path of the last checkpoint.

    On SIGTERM the state is saved and the process exits with code 0; on SIGINT it is saved and KeyboardInterrupt
    raised. Raises RunError, CheckpointError, PretextError, UnknownModalityError, UnknownModelError, DeviceError or
    StoreError, each one line, for anything that keeps the run from starting, and DivergedError.
    """
    run = Run(config)
    with run_lock.hold(config.out):
        return run.train()


class Run:
    """One run: what does not change from step to step, and the loop."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.console = Console(stderr=True)
        self.device = choose_device(config.device)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        names = pretext_names(config.pretext)
        store = open_store(config.store)
        train, val = store.select("train"), store.select("val")
        if not len(train):
            raise RunError(f"{config.store} has no complete training tile; collect more with mmearth collect")
        if store.statistics.rows != len(train):
            raise RunError(
                f"the statistics of {config.store} are of {store.statistics.rows} training tiles, it has {len(train)}; "
                f"run mmearth finalize --store {config.store}"
            )
        if store.tile_pixels < config.input_size:
            raise RunError(
                f"tiles of {store.tile_pixels} pixels are smaller than --input-size {config.input_size}; choose 56"
            )
        self.recipe = recipe_of(config)
        self.spec = specify(store, train, config.model, config.input_size, names, config.seed)
        self.settings = _settings(config, self.recipe, store, train)
        modalities = (INPUT, *names)
        self.accumulate = -(-self.recipe.batch_size // MICRO_BATCH[self.device.type])
        self.loader = Loader(
            store,
            train,
            modalities,
            batch_size=-(-self.recipe.batch_size // self.accumulate),
            crop=config.input_size,
            seed=config.seed,
            multiple=self.accumulate,
        )
        self.validation = Loader(
            store,
            val,
            modalities,
            batch_size=MICRO_BATCH[self.device.type],
            crop=config.input_size,
            seed=config.seed,
            augment=False,
        )
        self.steps_per_epoch = self.loader.batches // self.accumulate
        self.steps = self.steps_per_epoch * self.recipe.epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = MPMAE(self.spec)
        self.model.to(self.device)
        self.optimizer = schedule.optimizer(self.model, self.recipe)

    def train(self) -> Path:
        """The loop over steps, in a folder that the caller holds."""
        config, step = self.config, self._start()
        stop = Stop()
        columns = TextColumn("pretraining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with stop.listening(), Progress(*columns, TextColumn("{task.fields[loss]}"), console=self.console) as progress:
            bar = progress.add_task("steps", total=self.steps, completed=step, loss="")
            if step == 0:
                self._validate(step)
            since, seen = time.perf_counter(), 0
            for batches in self._batches(step):
                rate = self.recipe.rate(step / self.steps_per_epoch)
                log_vars = self.model.log_vars.detach().clone()
                found = self._step(batches, rate)
                step, seen = step + 1, seen + sum(len(batch["level"]) for batch in batches)
                if step % config.log_every == 0 or step == self.steps:
                    line = self._training_line(step, found, log_vars, rate, seen / (time.perf_counter() - since))
                    metrics.append(config.out, line)
                    progress.update(bar, loss=f"loss {line['loss']:.3f}")
                    since, seen = time.perf_counter(), 0
                validates = step % (self.steps_per_epoch * config.validate_every) == 0 or step == self.steps
                saves = step % config.save_every == 0 or step == self.steps or stop.signal is not None
                if validates or saves:
                    self._check_finite(step)
                if validates:
                    self._validate(step)
                if saves:
                    self._save(step)
                progress.update(bar, completed=step)
                if stop.signal is not None and step < self.steps:
                    break
        if step < self.steps:
            self.console.print(f"stopped after step {step} of {self.steps}, saved; continue with --resume")
            if stop.signal == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(0)
        export_encoder(config.out / ENCODER_FILE, self.spec, self.model.encoder)
        return checkpoint.found(config.out)[-1]

    def _start(self) -> int:
        """Look into the folder and restore the last checkpoint, if that is asked for; returns the steps taken."""
        out = self.config.out
        if not self.config.resume:
            if run_lock.used(out):
                raise RunError(f"{out} is not empty; continue its run with --resume or choose another --out")
            return 0
        checkpoint.clear_unfinished(out)
        last = checkpoint.latest(out)
        if last is None:
            if checkpoint.found(out):
                raise CheckpointError(f"every checkpoint in {out} is damaged; start again with another --out")
            self.console.print(f"no checkpoint in {out} yet: starting anew")
            metrics.rewind(out, -1)
            return 0
        for name, value in self.settings.items():
            if last.settings.get(name) != value:
                raise CheckpointError(
                    f"{out} was started with {name} {last.settings.get(name)}, not {value}; "
                    "resume with the same settings or choose another --out"
                )
        if last.spec != self.spec:
            raise CheckpointError(
                f"the statistics of {self.config.store} have changed since {out} was started; "
                "resume with the store as it was or choose another --out"
            )
        checkpoint.restore(last, self.model, self.optimizer)
        metrics.rewind(out, last.step)
        self.console.print(f"resuming after step {last.step} of {self.steps}")
        return last.step

    def _batches(self, step: int) -> Iterator[list[dict[str, Tensor]]]:
        """The micro-batches of each step from ``step`` on, to the end of the last epoch."""
        first = step % self.steps_per_epoch * self.accumulate
        for epoch in range(step // self.steps_per_epoch, self.recipe.epochs):
            micro: list[dict[str, Tensor]] = []
            for batch in self.loader.epoch(epoch, first):
                visible, masked = patches_of(batch, self.config.seed, epoch, self.device)
                micro.append({name: t.to(self.device) for name, t in batch.items()})
                micro[-1] |= {"visible": visible, "masked": masked}
                if len(micro) == self.accumulate:
                    yield micro
                    micro = []
            first = 0

    def _step(self, batches: list[dict[str, Tensor]], rate: float) -> Losses:
        """One optimisation step: the mean of the micro-batches' objectives, weighted by their samples."""
        samples = sum(len(batch["level"]) for batch in batches)
        total = torch.zeros(2, len(self.spec.tasks), device=self.device)
        for batch in batches:
            with autocast(self.device):
                found = self.model(batch, batch["visible"], batch["masked"])
            objective = self.model.objective(found) * (len(batch["level"]) / samples)
            objective.backward()  # type: ignore[no-untyped-call]
            total += torch.stack(tuple(found)).detach()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return Losses(total[0], total[1])

    def _training_line(self, step: int, found: Losses, log_vars: Tensor, rate: float, speed: float) -> dict[str, Any]:
        names = [task.name for task in self.spec.tasks]
        means = losses.means(found.sums, found.counts)
        objective = losses.weigh(means, found.counts, log_vars)
        if not torch.isfinite(objective):
            raise _diverged("the training loss", step)
        return {
            "split": "train",
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "loss": objective.item(),
            "tasks": {n: m for n, m, c in zip(names, means.tolist(), found.counts.tolist(), strict=True) if c},
            "log_vars": dict(zip(names, log_vars.tolist(), strict=True)),
            "lr": rate,
            "images_per_second": speed,
        }

    def _check_finite(self, step: int) -> None:
        """DivergedError if a weight is not finite, as after a step whose loss was not; waits for a GPU."""
        if not torch.stack([p.detach().isfinite().all() for p in self.model.parameters()]).all():
            raise _diverged("a weight", step)

    def _validate(self, step: int) -> None:
        if self.validation.batches:
            found = validate(self.model, self.validation, self.device)
            if not np.isfinite(list(found.tasks.values())).all():
                raise _diverged("the validation loss", step)
            line = {"split": "val", "epoch": step / self.steps_per_epoch, "step": step, **dataclasses.asdict(found)}
            metrics.append(self.config.out, line)

    def _save(self, step: int) -> None:
        checkpoint.save_run(
            self.config.out, self.model, self.optimizer, self.spec, step, self.settings, self.config.keep
        )


def _diverged(what: str, step: int) -> DivergedError:
    return DivergedError(
        f"{what} is not finite after step {step}; start again with another --out and a smaller --batch-size, "
        "which lowers the learning rate"
    )


def _settings(
    config: PretrainConfig, recipe: Recipe, store: Store, train: NDArray[np.int64]
) -> dict[str, str | int | float]:
    """What must be the same for a run to be continued: everything that its weights depend on."""
    return {
        "model": config.model,
        "input_size": config.input_size,
        "pretext": ",".join(pretext_names(config.pretext)),
        "preset": config.preset,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "peak_rate": recipe.peak_rate,
        "seed": config.seed,
        "training tiles": hashlib.sha256(store.location_id[train].tobytes()).hexdigest()[:16],
    }
