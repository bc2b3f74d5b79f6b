"""Losses of a run: one chart for each pretext task against its best constant predictor, and the table of the last."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmearth_data.modalities import PRETEXT
from mmearth_train.report.section import Fact, Section

FILE_NAME = "metrics.jsonl"
TRAINING, VALIDATION, CONSTANT = "#9db8cf", "#2f81c4", "#e0782f"
BEATS, FAILS = "#2e9d72", "#d4553c"
_SMOOTHED_POINTS = 200
"""Training losses are averaged over equal stretches of steps to about this many points a curve."""


class MetricsError(ValueError):
    """A run's metrics cannot be read; the message names the line."""


@dataclass(frozen=True)
class Metrics:
    """What a run wrote down, in order of steps: training and validation lines as the trainer wrote them."""

    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the pretext tasks in registry order."""
        seen = {name for line in (*self.training, *self.validation) for name in line["tasks"]}
        return tuple(modality.name for modality in PRETEXT if modality.name in seen)


def read_metrics(run: Path) -> Metrics | None:
    """The metrics of the run in a folder, None where there are none yet.

    A resumed run writes the steps since its last checkpoint again: the later line of a step counts. A last line
    without an end is what a killed run was writing, and is left out. Raises MetricsError for any other broken line.
    """
    file = run / FILE_NAME
    if not file.is_file():
        return None
    found: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "val": {}}
    for number, text in enumerate(file.read_text("utf-8", "replace").splitlines(keepends=True), start=1):
        if not text.endswith("\n"):
            break
        try:
            line = json.loads(text)
            found[line["split"]][int(line["step"])] = line
        except (ValueError, KeyError, TypeError) as error:
            raise MetricsError(
                f"{file} line {number} is not a metrics line ({error}); resuming the run leaves it out"
            ) from error
    return Metrics(*([lines[step] for step in sorted(lines)] for lines in (found["train"], found["val"])))


def standings(metrics: Metrics) -> pd.DataFrame:
    """Each task's last validation loss beside its best constant's; ``better`` is the fraction below it."""
    if not metrics.validation:
        return pd.DataFrame(columns=["task", "validation", "constant", "better", "beats"])
    last = metrics.validation[-1]
    lines = []
    for task in metrics.tasks:
        loss, constant = last["tasks"].get(task), last["constant"].get(task)
        if loss is None or constant is None:
            continue
        better = 1 - loss / constant if constant > 0 else float("nan")
        lines.append((task, float(loss), float(constant), better, loss < constant))
    return pd.DataFrame(lines, columns=["task", "validation", "constant", "better", "beats"])


def anchor(prefix: str, run: Path) -> str:
    """An anchor that is unique to a run of this name."""
    return f"{prefix}-{re.sub(r'[^a-z0-9]+', '-', run.name.lower()).strip('-')}"


def pretraining(run: Path, store: Path, extra: tuple[Any, ...] = ()) -> Section:
    """The run's losses, then ``extra`` blocks; the fact names the tasks that do not beat a constant."""
    title, name = f"Pretraining: {run.name}", anchor("pretraining", run)
    metrics = read_metrics(run)
    again = f"mmearth pretrain --store {store} --out {run} --resume"
    if metrics is None or not metrics.training:
        missing = Fact(f"Pretext tasks ({run.name})", "not yet", "missing", "no step was logged")
        return Section(title, name, (f"{run} has no metrics yet; train with: {again}", *extra), (missing,))
    table = standings(metrics)
    blocks: list[Any] = [_summary(metrics)]
    fact = Fact(f"Pretext tasks ({run.name})", "not validated", "missing", f"validate by finishing an epoch: {again}")
    if len(table):
        failing = list(table.loc[~table["beats"], "task"])
        fact = Fact(
            f"Pretext tasks ({run.name})",
            f"{int(table['beats'].sum())} of {len(table)}",
            "bad" if failing else "good",
            f"no better than a constant: {', '.join(failing)}" if failing else "beat the best constant in validation",
        )
        blocks += [{"training": TRAINING, "validation": VALIDATION, "best constant": CONSTANT}]
    blocks += [[_chart(metrics, task, table) for task in metrics.tasks], _shown(table, run)] if len(table) else []
    return Section(title, name, (*blocks, *extra), (fact,))


def _summary(metrics: Metrics) -> str:
    first, last = metrics.training[0], metrics.training[-1]
    rates = [line["images_per_second"] for line in metrics.training if line.get("images_per_second")]
    speed = f", {np.median(rates):,.0f} images a second" if rates else ""
    return (
        f"{int(last['step']):,} steps, {float(last['epoch']):.1f} epochs{speed}. Weighted training loss "
        f"{first['loss']:.3g} at the first logged step, {last['loss']:.3g} at the last. A task has learned something "
        f"when its validation loss is below that of the best constant prediction; beside its name is by how much."
    )


def _curve(metrics: Metrics, task: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Epochs and training losses of a task, averaged over stretches of steps."""
    pairs = np.array([(line["epoch"], line["tasks"][task]) for line in metrics.training if task in line["tasks"]])
    if not len(pairs):
        return np.empty(0), np.empty(0)
    stretches = np.array_split(pairs, min(len(pairs), _SMOOTHED_POINTS))
    averaged = np.array([stretch.mean(axis=0) for stretch in stretches])
    return averaged[:, 0], averaged[:, 1]


def _chart(metrics: Metrics, task: str, table: pd.DataFrame) -> Figure:
    """One task's curves; the heading says by how much it beats the constant, or that it does not."""
    figure = Figure(figsize=(3.0, 2.1), layout="constrained")
    figure.set_label(f"Losses of {task}")
    axes = figure.add_subplot()
    epochs, losses = _curve(metrics, task)
    axes.plot(epochs, losses, color=TRAINING, linewidth=1.2)
    points = [(line["epoch"], line["tasks"][task]) for line in metrics.validation if task in line["tasks"]]
    axes.plot(*zip(*points, strict=True), color=VALIDATION, marker="o", markersize=3)
    row = table[table["task"] == task]
    tops = [value for _, value in points]
    if len(row):
        constant = float(row["constant"].iloc[0])
        axes.axhline(constant, color=CONSTANT, linestyle=(0, (4, 3)), linewidth=1.4)
        tops.append(constant)
        verdict = BEATS if row["beats"].iloc[0] else FAILS
        axes.set_title(_against(float(row["better"].iloc[0])), loc="right", color=verdict)
    # The first steps start far above everything that matters later.
    settled = losses[len(losses) // 20 :] if len(losses) else losses
    low, high = min([*tops, *losses]), max([*tops, *np.percentile(settled, [95])] if len(settled) else tops)
    margin = 0.08 * max(high - low, 1e-6)
    axes.set_ylim(low - margin, high + margin)
    axes.set_title(task)
    axes.set_xlabel("epoch")
    axes.locator_params(nbins=5)
    return figure


def _against(better: float) -> str:
    """How far a loss is below (−) or above (+) the constant's, in percent of that."""
    return f"{0.0 - 100 * better:+.1f} %".replace("-", "−")


def _shown(table: pd.DataFrame, run: Path) -> pd.DataFrame:
    shown = pd.DataFrame(
        {
            "task": table["task"],
            "validation loss": table["validation"],
            "best constant": table["constant"],
            "against constant": [_against(better) for better in table["better"]],
            "verdict": np.where(table["beats"], "beats", "fails"),
        }
    )
    shown.attrs.update(
        id=anchor("tasks", run),
        caption="Last validation: squared error in standardised units, or cross-entropy in nats.",
    )
    return shown
