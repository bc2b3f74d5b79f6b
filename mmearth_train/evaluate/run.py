"""``mmearth evaluate``: what frozen encoders tell about the places of a store, beside encoders that learned nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmearth_data.store import Store, open_store
from mmearth_data.store.objects import on_disk
from mmearth_train.evaluate import targets
from mmearth_train.evaluate.blocks import BLOCK_KM, FOLDS, block_ids
from mmearth_train.evaluate.encoders import Entry, compared, encoder_file
from mmearth_train.evaluate.gather import Gathered, gather
from mmearth_train.evaluate.rank import effective_rank
from mmearth_train.evaluate.results import FILE_NAME, EncoderSummary, Evaluation, EvaluationError, Skipped, save
from mmearth_train.evaluate.scoring import Contestant, Protocol, Truth, UnscorableError, score, truth_of
from mmearth_train.resume import code_version

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate, on what, and how."""

    store: Path
    """The store, finalised."""
    checkpoint: tuple[Path, ...]
    """Exported encoders or folders of runs, at least one; a folder that holds one run for each seed is one encoder."""
    out: Path | None = None
    """Where the result goes; evaluation.json beside the first checkpoint unless given."""
    task: tuple[str, ...] = ()
    """Targets to evaluate; all of them unless given."""
    protocol: tuple[Protocol, ...] = ("linear", "knn")
    """How features are read out: a linear probe, nearest neighbours."""
    seeds: int = 3
    """How many assignments of blocks to folds, each with a random encoder of its own."""


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Evaluate the encoders of ``config``, write the result and return it.

    Every tile of the store with complete sentinel2 takes part, whatever its split. Raises EvaluationError,
    UnknownTargetError, MissingModalityError, CheckpointError or StoreError, each with one line that names the remedy.
    """
    protocols = tuple(dict.fromkeys(config.protocol))
    if not config.checkpoint or not protocols or config.seeds < 1:
        raise EvaluationError("there is nothing to evaluate; give at least one checkpoint, one protocol and one seed")
    if config.out:
        on_disk(config.out)
    paths = tuple({encoder_file(path): path for path in config.checkpoint}.values())
    store = open_store(config.store)
    chosen = targets.choose(config.task, store.modalities)
    entries, crop = compared(paths, store, config.seeds)
    block = _blocks(store)
    out = _result_file(config.out or encoder_file(paths[0]).parent)
    columns = TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        reading, probing = progress.add_task("features", total=len(block)), progress.add_task("probes", total=None)
        frozen = [encoder for entry in entries for encoder in entry.encoders]
        gathered = gather(store, frozen, chosen, crop, lambda tiles: progress.advance(reading, tiles))
        contestants = _contestants(entries, gathered, config.seeds)
        truths, skipped = _truths(chosen, gathered, block)
        progress.update(probing, total=len(contestants) * len(truths) * len(protocols) * config.seeds)
        rows = score(contestants, truths, block, protocols, config.seeds, lambda: progress.advance(probing))
    evaluation = Evaluation(
        store=str(config.store),
        tiles=len(block),
        blocks=len(np.unique(block)),
        folds=FOLDS,
        crop=crop,
        encoders=tuple(contestant.summary for contestant in contestants),
        targets=tuple(truth.summary for truth in truths),
        skipped=skipped,
        rows=rows,
        code=code_version(),
    )
    save(evaluation, out)
    return evaluation


def _result_file(out: Path) -> Path:
    """The file to write, in a folder that is there; EvaluationError, before anything is computed, if it cannot be."""
    file = out / FILE_NAME if out.is_dir() else out
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"{file.parent} cannot be made ({error.strerror}); choose another --out") from error
    if not os.access(file.parent, os.W_OK):
        raise EvaluationError(f"{file.parent} cannot be written to; choose another --out")
    return file


def _blocks(store: Store) -> NDArray[np.int64]:
    """The block of each complete tile; EvaluationError where there are too few to cross-validate."""
    rows = store.select()
    block = block_ids(store.lon[rows], store.lat[rows])
    found = len(np.unique(block))
    if found < FOLDS:
        raise EvaluationError(
            f"{store.path} has {len(rows)} complete tiles in {found} blocks of {BLOCK_KM:.0f} km; "
            f"cross-validation needs at least {FOLDS} blocks, so collect more locations"
        )
    return block


def _contestants(entries: Sequence[Entry], gathered: Gathered, seeds: int) -> list[Contestant]:
    remaining = iter(gathered.features)
    contestants = []
    for entry in entries:
        own = tuple(next(remaining) for _ in entry.encoders)
        rank = tuple(effective_rank(features) for features in own)
        summary = EncoderSummary(entry.name, entry.kind, entry.source, entry.pretext, own[0].shape[1], rank)
        contestants.append(Contestant(summary, own if len(own) == seeds else own * seeds))
    return contestants


def _truths(
    chosen: Sequence[targets.Target], gathered: Gathered, block: NDArray[np.int64]
) -> tuple[list[Truth], tuple[Skipped, ...]]:
    """What can be scored, and what cannot with the reason; EvaluationError where nothing can."""
    truths, skipped = [], []
    for target, (values, valid) in zip(chosen, gathered.values, strict=True):
        try:
            truths.append(truth_of(target, values, valid, block))
        except UnscorableError as error:
            logger.warning("%s is not scored: %s", target.name, error)
            skipped.append(Skipped(target.name, str(error)))
    if not truths:
        reasons = "; ".join(f"{one.target}: {one.reason}" for one in skipped)
        raise EvaluationError(f"no target can be scored ({reasons}); collect more locations")
    return truths, tuple(skipped)
