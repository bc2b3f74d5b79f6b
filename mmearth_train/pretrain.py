"""Pretraining: one run, from a store to an exported encoder, readable from top to bottom.

A step is a pure function of the weights, the optimiser's moments and the step's number. Killed at any moment and
resumed, on the same machine's CPU with as many threads, a run ends with the same weights bit by bit; on a GPU, or with
another number of processes or samples at once, with the same but for rounding.
"""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mmearth_data.store import Store, open_store
from mmearth_data.store.objects import on_disk
from mmearth_train import checkpoint, distributed, launch, losses, metrics, resume, run_lock, schedule, sharing
from mmearth_train.boards import boards_of
from mmearth_train.checkpoint import Best
from mmearth_train.config import PretrainConfig, RunError, recipe_of
from mmearth_train.distributed import ALONE, Processes
from mmearth_train.failures import diverged, explained
from mmearth_train.feed import Feed
from mmearth_train.interruption import Stop, ended_by
from mmearth_train.loader import Loader
from mmearth_train.model import INPUT, MPMAE
from mmearth_train.precision import choose_device
from mmearth_train.pretrained import FILE_NAME as ENCODER_FILE
from mmearth_train.pretrained import export_encoder
from mmearth_train.schedule import Recipe
from mmearth_train.specification import specify
from mmearth_train.step import Found, Step
from mmearth_train.tasks import pretext_names
from mmearth_train.validation import Validator
from mmearth_train.variant import VARIANTS
from mmearth_train.watching import Watch

MICRO_BATCH = {"cpu": 32, "cuda": 1024}
"""Samples that go through the model at once, at most: larger CPU tensors are given back to the system every time."""


def pretrain(config: PretrainConfig) -> Path:
    """Train until the recipe's last epoch and export the encoder; returns the path of the last checkpoint.

    In this process, or in several that it starts; where it was itself started as one of several (by torchrun), it is
    that one. On SIGTERM, whenever it comes, what was trained is saved and the process exits with code 0; on SIGINT it
    is saved and KeyboardInterrupt raised. Raises RunError, CheckpointError, PretextError, UnknownModelError,
    DeviceError or StoreError, each one line, for anything that keeps the run from starting, and DivergedError,
    GpuMemoryError or ProcessError for what ends it.
    """
    stop = Stop()
    with stop.listening():
        recipe_of(config)
        pretext_names(config.pretext)
        on_disk(config.out)
        started = distributed.started()
        count = launch.count(config)
        if started is None and count > 1:
            Material.of(config, count)  # else each of them imports torch before it says what is wrong
            return launch.launch(pretrain, config, count, stop)
        if started is not None:
            stop.follow_parent()  # nobody would collect what it does, and it would hold the run's folder
        together = started or ALONE
        with distributed.joined(together, choose_device(config.device, together.local)):
            run = Run(config, together)
            with run_lock.hold(config.out) if together.first else nullcontext():
                return run.train(stop)


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run is trained on, and how: the store, its training tiles, the recipe on so many."""

    store: Store
    train: NDArray[np.int64]
    recipe: Recipe

    @classmethod
    def of(cls, config: PretrainConfig, world: int) -> Material:
        """What ``config`` names; RunError or StoreError where ``world`` processes cannot be trained on it."""
        store = open_store(config.store)
        train = store.select("train")
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
        recipe = recipe_of(config).on(len(train))
        batches = -(-len(train) // recipe.batch_size)
        if len(train) // batches < world:
            raise RunError(
                f"{recipe.batch_size} tiles in a step are too few for {world} processes; "
                "use fewer --processes or a larger --batch-size"
            )
        if batches * recipe.epochs == 1:
            raise RunError(
                f"one step with all {len(train)} training tiles would train nothing, for the learning rate rises "
                "from 0; use more --epochs or a smaller --batch-size"
            )
        return cls(store, train, recipe)


class Run:
    """One run: what does not change from step to step, and the loop."""

    def __init__(self, config: PretrainConfig, together: Processes = ALONE) -> None:
        self.config, self.together = config, together
        self.console = Console(stderr=True, quiet=not together.first)
        self.device = choose_device(config.device, together.local)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        names = pretext_names(config.pretext)
        material = Material.of(config, together.world)
        self.store, train, self.recipe = material.store, material.train, material.recipe
        store, val = self.store, self.store.select("val")
        variant = dataclasses.replace(VARIANTS[config.preset], weighting=config.weighting)
        self.spec = specify(store, train, config.model, config.input_size, names, config.seed, variant)
        at_once = config.micro_batch or MICRO_BATCH[self.device.type]
        loader = Loader(
            store,
            train,
            (INPUT, *names),
            batch_size=self.recipe.batch_size,
            crop=config.input_size,
            seed=config.seed,
            rank=together.rank,
            world=together.world,
            pinned=self.device.type == "cuda",
        )
        share = -(-len(train) // (loader.batches * together.world))
        self.whole, self.at_once = share <= at_once, min(share, at_once)
        self.feed = Feed(loader, config.seed, at_once, self.device, together)
        self.val = val
        central = Loader(
            store,
            val,
            (INPUT, *names),
            batch_size=self.at_once * together.world,
            crop=config.input_size,
            seed=config.seed,
            augment=False,
            rank=together.rank,
            world=together.world,
            pinned=self.device.type == "cuda",
        )
        self.validate = Validator(central, self.device, together)
        self.steps = self.feed.steps_per_epoch * self.recipe.epochs
        self.settings = resume.settings_of(
            config, self.recipe, variant, store, train, self.feed.steps_per_epoch, together.world, self.at_once
        )
        self.origin = resume.origin_of(config, together, at_once)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = MPMAE(self.spec)
        self.shared = sharing.shared_out(config.weights, config.model, together)
        if self.shared:  # which places it block by block
            sharing.share(self.model, together, self.device)
        else:
            self.model.to(self.device)
        self.optimizer = schedule.optimizer(self.model, self.model.decays, self.recipe)
        self.best: Best | None = None

    def train(self, stop: Stop | None = None) -> Path:
        """From the last checkpoint or the first step to the end, or until ``stop``; the caller holds the folder."""
        config, step = self.config, 0
        last = resume.begin(config, self.together, self.settings, self.spec, self.console)
        if last is not None:
            checkpoint.restore(last, self.model, self.optimizer)
            self.console.print(f"resuming after step {last.step} of {self.steps}")
            step, self.best = last.step, last.best
        boards = boards_of(config, self.origin, step) if self.together.first else []
        with Watch(config.out, boards) as watch:
            try:
                step, asked = self._loop(step, stop or Stop(), watch)
            except RuntimeError as error:
                why = explained(error, config, self.spec.variant, self.at_once)
                if why is None:
                    raise
                raise why from error
        if asked:
            done = f"after step {step} of {self.steps}, saved" if step else "before the first step"
            self.console.print(f"stopped {done}; continue with --resume")
            raise ended_by(asked)
        if self.together.first or self.shared:
            encoder, first = self.model.encoder, self.together.first
            export_encoder(config.out / ENCODER_FILE, self.spec, encoder, config.preset, writes=first)
        self.together.largest(0)  # nobody looks for the last checkpoint before it is there
        return checkpoint.found(config.out)[-1]

    def _loop(self, step: int, stop: Stop, watch: Watch) -> tuple[int, int]:
        """The loop over steps; returns how many were taken, and the signal that ended it early or 0."""
        config, feed = self.config, self.feed
        model, optimizer = self.model, self.optimizer
        learn = Step(model, optimizer, self.together, self.device, whole=self.whole, compiled=config.compile)
        columns = TextColumn("pretraining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, TextColumn("{task.fields[loss]}"), console=self.console) as progress:
            bar = progress.add_task("steps", total=self.steps, completed=step, loss="")
            if self._unvalidated(step) and self._validate(step, watch, stop) and step:
                self._save(step)
            asked = self._asked(stop)
            if asked:
                return step, asked
            since, seen = time.perf_counter(), 0
            for batches in feed.steps(step, self.recipe.epochs):
                rate = self.recipe.rate(step / feed.steps_per_epoch)
                log_vars = sharing.whole(self.model.log_vars.detach()).clone()
                logs = (step + 1) % config.log_every == 0 or step + 1 == self.steps
                found = learn(batches, rate, norm=logs)
                step, seen = step + 1, seen + sum(len(batch["level"]) for batch in batches)
                if logs:
                    line = self._training_line(step, found, log_vars, rate)
                    images = int(self.together.total(torch.tensor(seen)))
                    now = time.perf_counter()
                    line["images_per_second"], since, seen = images / (now - since), now, 0
                    if self.together.first:
                        watch.line(line)
                    progress.update(bar, loss=f"loss {line['loss']:.3f}")
                asked, last = self._asked(stop), step == self.steps
                validates = self._validates(step)
                saves = step % config.save_every == 0 or last or asked > 0
                if validates or saves:
                    self._check_finite(step)
                paused = time.perf_counter()
                if validates:
                    best = self._validate(step, watch, stop)
                    if best is None:
                        asked, last = self._asked(stop), False
                    saves |= best is not False
                if saves:
                    self._save(step)
                since += time.perf_counter() - paused
                progress.update(bar, completed=step)
                if asked and not last:
                    return step, asked
        return step, 0

    def _asked(self, stop: Stop) -> int:
        """The signal that asked any of the processes to stop, or 0; all must ask."""
        return self.together.largest(stop.signal or 0)

    def _validates(self, step: int) -> bool:
        """Whether the run validates after so many steps."""
        return step % (self.feed.steps_per_epoch * self.config.validate_every) == 0 or step == self.steps

    def _unvalidated(self, step: int) -> bool:
        """Whether a validation is due before the next step: at the start, or where one was stopped."""
        line = metrics.last(self.config.out, "val") if self.together.first else None
        done = self.together.largest(int(line is not None and line["step"] == step))
        return self._validates(step) and not done

    def _training_line(self, step: int, found: Found, log_vars: Tensor, rate: float) -> dict[str, Any]:
        """The figures of a step; here a GPU is waited for."""
        names = [task.name for task in self.spec.tasks]
        means = losses.means(self.together.total(found.sums), found.counts)
        objective = losses.weigh(means, found.counts, log_vars)
        if not torch.isfinite(objective):
            raise diverged("the training loss", step)
        if found.gradient_norm is not None and not torch.isfinite(found.gradient_norm):
            raise diverged("the gradient", step)
        return {
            "split": "train",
            "step": step,
            "steps": self.steps,
            "epoch": step / self.feed.steps_per_epoch,
            "loss": objective.item(),
            "tasks": {n: m for n, m, c in zip(names, means.tolist(), found.counts.tolist(), strict=True) if c},
            "log_vars": dict(zip(names, log_vars.tolist(), strict=True)),
            "lr": rate,
            "gradient_norm": found.gradient_norm.item() if found.gradient_norm is not None else None,
        }

    def _check_finite(self, step: int) -> None:
        """DivergedError if a weight is not finite, as after a step whose loss was not; waits for a GPU."""
        finite = torch.stack([sharing.own(p.detach()).isfinite().all() for p in self.model.parameters()]).all()
        if self.together.largest(int(not finite)):
            raise diverged("a weight", step)

    def _validate(self, step: int, watch: Watch, stop: Stop) -> bool | None:
        """Validate on every process's share, until ``stop``, which leaves no trace of it and returns None.

        Returns whether the result is the best of a trained model so far.
        """
        found = self.validate(self.model, lambda: self._asked(stop) > 0)
        if found is None or not found.tasks:
            return None if found is None else False
        if not np.isfinite(list(found.tasks.values())).all():
            raise diverged("the validation loss", step)
        line = {"epoch": step / self.feed.steps_per_epoch, "step": step, **dataclasses.asdict(found)}
        comparable = math.isfinite(found.score)  # not where the best constant is never wrong
        if self.together.first:
            watch.line({"split": "val", **line, "score": found.score if comparable else None})
        if self.config.tensorboard or self.config.wandb:
            shown = self._whole_model() if self.shared else self.model
            if shown is not None:
                watch.pictures(step, shown, self.store, self.val)
        if step == 0 or not comparable or (self.best is not None and found.score >= self.best.score):
            return False
        self.best = Best(step, found.score)
        return True

    def _whole_model(self) -> MPMAE | None:
        """The first process's copy in the host's memory, which nobody has a share of and no GPU need hold whole."""
        weights = sharing.collected(self.model.state_dict(), keeps=self.together.first)
        if not weights:
            return None
        with torch.random.fork_rng(devices=[]):
            copy = MPMAE(self.spec)
        copy.load_state_dict(weights)
        return copy

    def _save(self, step: int) -> None:
        if not (self.together.first or self.shared):
            return
        out, keep = self.config.out, self.config.keep
        state = self.model, self.optimizer, self.spec, step, self.settings
        checkpoint.save_run(out, *state, keep, origin=self.origin, best=self.best, writes=self.together.first)
