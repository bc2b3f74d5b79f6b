"""What an ablation found, in numbers and in words: scores by arm, and evidence for why they came out so."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmearth_data.store import open_store
from mmearth_train import metrics
from mmearth_train.evaluate import Evaluation
from mmearth_train.evaluate.blocks import block_ids
from mmearth_train.evaluate.gather import gather
from mmearth_train.evaluate.results import MAIN_METRIC
from mmearth_train.evaluate.targets import OCCURS, choose
from mmearth_train.report.curves import read_metrics

UNTRAINED = "random"
"""What evaluations call the untrained encoder; seed s of it is what seed s of every arm began as."""
PROTOCOLS = ("linear", "knn")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation of one value per seed.

    The deviation is that of a sample (n − 1): it estimates how far another seed would lie from these. An evaluation's
    own ``std`` describes the seeds it has (n) and is smaller, for three by a factor of √⅔.
    """
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": deviation, "seeds": list(values)}


def scores(evaluation: Evaluation) -> dict[str, dict[str, dict[str, Any]]]:
    """Protocol → target → encoder → the main metric by seed, its gain over the untrained encoder, and ``seen``.

    Seed s of every encoder was judged on the same folds, so gains are differences seed by seed.
    """
    metric = {target.name: MAIN_METRIC[target.kind] for target in evaluation.targets}
    found: dict[str, dict[str, dict[str, Any]]] = {protocol: {} for protocol in PROTOCOLS}
    for row in evaluation.rows:
        if row.metric == metric[row.target]:
            entry = {"metric": row.metric, **spread(row.seeds), "low": row.low, "high": row.high, "seen": row.seen}
            found[row.protocol].setdefault(row.target, {})[row.encoder] = entry
    for by_encoder in (entry for by_target in found.values() for entry in by_target.values()):
        start = by_encoder[UNTRAINED]["seeds"]
        for entry in by_encoder.values():
            entry["gain"] = spread([own - other for own, other in zip(entry["seeds"], start, strict=True)])
    return found


def positives(store_path: Path, names: Sequence[str], crop: int) -> dict[str, dict[str, Any]]:
    """How many tiles and blocks a target has anything of, by split."""
    store = open_store(store_path)
    targets = choose(tuple(names), store.modalities)
    gathered = gather(store, (), targets, crop, lambda _: None)
    block = block_ids(store.lon[gathered.rows], store.lat[gathered.rows])
    splits = store.split[gathered.rows]
    found = {}
    for target, (values, valid) in zip(targets, gathered.values, strict=True):
        share = np.asarray(values, dtype=np.float64).reshape(len(values), -1)[:, 0]
        there = valid & (share >= (OCCURS if target.kind == "regression" else 1))
        found[target.name] = {
            "tiles": int(valid.sum()),
            "present": int(there.sum()),
            "blocks": len(np.unique(block[there])),
            "present_in_train": int((there & (splits == 0)).sum()),
        }
    return found


def pretext_losses(runs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Each task's last validation loss as a share of its best constant's, over an arm's runs: 1 is nothing learned."""
    shares: dict[str, list[float]] = {}
    for run in runs:
        line = metrics.last(run, "val")
        for name, loss in line["tasks"].items() if line else ():
            shares.setdefault(name, []).append(loss / line["constant"][name])
    return {name: spread(values) for name, values in shares.items()}


def curves(runs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """An arm's validation score by epoch: losses ÷ their best constants', averaged over its tasks.

    ``training`` is the same of the last epoch's training batches: below the last score by what does not generalise.
    """
    found: dict[str, list[float]] = {}
    for run in runs:
        seen = read_metrics(run)
        if seen is None or not seen.validation or not seen.training:
            continue
        for line in seen.validation:
            found.setdefault(f"{line['epoch']:g}", []).append(line["score"])
        constant = seen.validation[-1]["constant"]
        late = [line["tasks"] for line in seen.training if line["epoch"] > seen.training[-1]["epoch"] - 1]
        means = {name: statistics.fmean(tasks[name] for tasks in late if name in tasks) for name in late[-1]}
        shares = [loss / constant[name] for name, loss in means.items() if constant.get(name, 0) > 0]
        found.setdefault("training", []).append(statistics.fmean(shares))
    return {name: spread(values) for name, values in found.items()}


def summarise(evaluation: Evaluation, store: Path, runs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Everything worth keeping, for JSON; ``runs`` are the folders of each arm, seed by seed."""
    last = [metrics.last(run, "train") for own in runs.values() for run in own]
    names = [target.name for target in evaluation.targets]
    return {
        "tiles": evaluation.tiles,
        "blocks": evaluation.blocks,
        "steps": sorted({line["steps"] for line in last if line}),
        "scores": scores(evaluation),
        "skipped": {skipped.target: skipped.reason for skipped in evaluation.skipped},
        "targets": positives(store, names, evaluation.crop),
        "validation_loss_of_best_constant": {arm: pretext_losses(own) for arm, own in runs.items()},
        "score_by_epoch": {arm: curves(own) for arm, own in runs.items()},
        "effective_rank": {
            encoder.name: {"of": encoder.features, **spread(encoder.effective_rank)} for encoder in evaluation.encoders
        },
    }


def _cell(entry: Mapping[str, Any], signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{entry['mean']:{sign}.3f} ± {entry['std']:.3f}{'*' if entry.get('seen') else ''}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _scores_of(found: Mapping[str, Any], protocol: str) -> list[str]:
    by_target = found["scores"][protocol]
    encoders = list(found["effective_rank"])
    metric = {"macro_f1": "macro-F1", "r2": "R²"}
    names = {target: f"{target} ({metric[next(iter(own.values()))['metric']]})" for target, own in by_target.items()}
    arms = [name for name in encoders if name not in (UNTRAINED, "band means")]
    return [
        _table(
            ["target", *("untrained" if name == UNTRAINED else name for name in encoders)],
            [[names[t], *(_cell(own[e]) for e in encoders)] for t, own in by_target.items()],
        ),
        "Gain over the untrained encoder that each run began as, seed by seed on the same folds:",
        _table(
            ["target", *arms],
            [[names[t], *(_cell(own[e]["gain"], signed=True) for e in arms)] for t, own in by_target.items()],
        ),
    ]


def _made_by(found: Mapping[str, Any]) -> str:
    """Which versions of the trainer the figures are of, and which Earth; a reader can then tell two pages apart."""
    versions = [versions for own in found["code"]["trained_by"].values() for versions in own]
    runs = Counter(" then ".join(one) for one in versions)
    trained = ", ".join(f"{version} ({count} run{'s'[: count != 1]})" for version, count in runs.items())
    said = (
        f"Trained by mmearth_train {trained}, probed by {found['code']['probed_by']}, on the emulated Earth "
        f"{found['earth']} (digests of their sources)."
    )
    if len({version for one in versions for version in one}) == 1:
        return said
    return f"{said} **Not by one version**: if what it trains has changed, arms and seeds differ by that too."


def markdown(found: Mapping[str, Any]) -> str:
    """The result as a page."""
    asked = found["settings"]
    tasks = dict.fromkeys(t for own in found["validation_loss_of_best_constant"].values() for t in own)
    losses, by_epoch = found["validation_loss_of_best_constant"], found["score_by_epoch"]
    epochs = dict.fromkeys(epoch for own in by_epoch.values() for epoch in own)
    parts = [
        "# Ablation of pretext tasks",
        f"World {asked['world']}, {found['tiles']} tiles of {asked['tile_size']} px in {found['blocks']} blocks of "
        f"100 km; atto, {' or '.join(map(str, found['steps']))} steps ({asked['epochs']} epochs of the train split), "
        f"seeds 0 to {asked['seeds'] - 1}. Mean ± standard deviation over seeds, of a sample (n − 1); a seed is a "
        "pretraining run and an assignment of blocks to five folds, the same ones for every encoder.",
        _made_by(found),
        "## Linear probe",
        *_scores_of(found, "linear"),
        "\\* The arm learned from land cover maps, which have a class of that name; the target itself is no pretext "
        "task of any arm.",
        *(f"{target} is not scored: {reason}." for target, reason in found["skipped"].items()),
        "## Nearest neighbours",
        *_scores_of(found, "knn"),
        "## Why",
        "What there is to find: tiles where a share is at least 1 %, or that count as present, of those with data.",
        _table(
            ["target", "tiles", "present", "blocks", "present in the train split"],
            [[name, *(str(value) for value in own.values())] for name, own in found["targets"].items()],
        ),
        "Pretext tasks: last validation loss ÷ that of the best constant (1: nothing learned).",
        _table(
            ["task", *losses],
            [[task, *(_cell(own[task]) if task in own else "" for own in losses.values())] for task in tasks],
        ),
        "As it fell: the same averaged over an arm's tasks, by epoch; then the last epoch's training batches.",
        _table(
            ["epoch", *by_epoch],
            [[epoch, *(_cell(own[epoch]) if epoch in own else "" for own in by_epoch.values())] for epoch in epochs],
        ),
        "Effective rank of the pooled features over all tiles.",
        _table(
            ["encoder", "features", "effective rank"],
            [
                ["untrained" if name == UNTRAINED else name, str(own["of"]), f"{own['mean']:.2f} ± {own['std']:.2f}"]
                for name, own in found["effective_rank"].items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"
