"""What a pretraining run is told: its configuration, which is also its command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mmearth_train.precision import Device
from mmearth_train.schedule import RECIPES, Preset, Recipe
from mmearth_train.sharing import Weights

WARMUP_SHARE = 0.2
"""The warm-up takes no more than this share of a run, as in the paper's 40 of 200 epochs."""


SEEDS = range(-(2**63), 2**63)
"""Random draws are hashes of signed 64-bit numbers; torch's generator takes those, too."""


class RunError(ValueError):
    """The run cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class PretrainConfig:
    """How to pretrain. What is left out comes from the preset."""

    store: Path
    """A finalised store."""
    out: Path
    """The run's folder: metrics, checkpoints, and at the end the encoder."""
    model: str = "atto"
    """Size of the encoder: atto, femto, pico, nano, tiny, base, large or huge."""
    input_size: Literal[56, 112] = 56
    """Pixels on the side of a crop; patches have 8 or 16."""
    pretext: str = "all"
    """What to predict: all, pixel, image, or names of modalities with commas between."""
    preset: Preset = "default"
    """default: the paper's recipe; reference: the same with the original's faults kept, to compare with it; demo: a
    short recipe that shows falling losses within minutes."""
    weighting: Literal["uncertainty", "equal"] = "uncertainty"
    """Tasks are weighted by learnt log-variances, or their mean losses are added."""
    epochs: int | None = None
    """How often each training tile is seen."""
    batch_size: int | None = None
    """Samples per optimisation step; the learning rate grows with it."""
    base_rate: float | None = None
    """Learning rate at the end of the warm-up for a batch of 256; for others in proportion."""
    seed: int = 0
    """Seed of weights, order, crops and masks: any signed 64-bit number."""
    resume: bool = False
    """Continue the run in the folder from its last checkpoint."""
    save_every: int = 50
    """Steps between checkpoints: the most that a killed run does again if its last one is intact."""
    keep: int = 2
    """Checkpoints kept, besides the best one; if the last is damaged the one before it is used, so keep 2 or more."""
    log_every: int = 10
    """Steps between lines of metrics."""
    validate_every: int = 1
    """Epochs between validations."""
    device: Device = "auto"
    """Where to train."""
    processes: int | None = None
    """Processes on this machine; by default one for each GPU, or one."""
    weights: Weights = "auto"
    """Each of several processes holds all weights and moments, or a share of them (FSDP2); auto shares huge's."""
    micro_batch: int | None = None
    """Samples that a process computes on at once, at most; by default 32 on a CPU and 1024 on a GPU."""
    threads: int | None = None
    """CPU threads of each process; by default one for each core, shared among the processes."""
    compile: bool = False
    """Compile the model (torch.compile), which takes a minute or more before the first step; not measured on GPUs."""
    tensorboard: bool = False
    """Also write the figures, and reconstructions as pictures, to RUN/tensorboard."""
    wandb: bool = False
    """Also send them to Weights & Biases; WANDB_MODE=offline keeps them in RUN/wandb."""


def recipe_of(config: PretrainConfig) -> Recipe:
    """The preset's recipe with what the configuration says otherwise; RunError for a number that cannot be."""
    recipe = RECIPES[config.preset]
    epochs = recipe.epochs if config.epochs is None else config.epochs
    batch_size = recipe.batch_size if config.batch_size is None else config.batch_size
    for name, value in (
        ("epochs", epochs),
        ("batch-size", batch_size),
        ("save-every", config.save_every),
        ("keep", config.keep),
        ("log-every", config.log_every),
        ("validate-every", config.validate_every),
        ("processes", config.processes),
        ("micro-batch", config.micro_batch),
        ("threads", config.threads),
    ):
        if value is not None and value < 1:
            raise RunError(f"--{name} is {value}; it must be at least 1")
    if config.seed not in SEEDS:
        raise RunError(f"--seed is {config.seed}; it must be at least {SEEDS.start} and less than {SEEDS.stop}")
    base_rate = recipe.base_rate if config.base_rate is None else config.base_rate
    if not 0 < base_rate < math.inf:
        raise RunError(f"--base-rate is {base_rate}; it must be positive, such as the preset's {recipe.base_rate}")
    warmup = min(recipe.warmup_epochs, WARMUP_SHARE * epochs)
    return replace(recipe, epochs=epochs, batch_size=batch_size, warmup_epochs=warmup, base_rate=base_rate)
