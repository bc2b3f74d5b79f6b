"""What frozen encoders tell: scores with intervals for each target, and the gain over what has learned nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mmearth_train.evaluate.results import FILE_NAME, MAIN_METRIC, Evaluation, Row, load_evaluation
from mmearth_train.report.section import Fact, Section

PROTOCOL = "linear"
"""The protocol by which gains are judged; the table shows all."""
COLOURS = {"random": "#a68a3a", "band_means": "#8a8f94"}
PRETRAINED_COLOURS = ("#2f81c4", "#b5569b", "#2e9d72", "#8b7bd8")


def probes(folders: Sequence[Path]) -> list[Section]:
    """One section for each evaluation in the folders, or one that says how to make one."""
    found = [load_evaluation(folder) for folder in folders if (folder / FILE_NAME).is_file()]
    distinct = [evaluation for at, evaluation in enumerate(found) if evaluation not in found[:at]]
    if not distinct:
        note = "make it with: mmearth evaluate --checkpoint RUN --store DIR"
        fact = Fact("Probe gains", "not yet", "missing", "no encoder was evaluated")
        return [Section("Probes", "probes", (f"No run given here has an evaluation; {note}",), (fact,))]
    return [_section(evaluation, at, len(distinct)) for at, evaluation in enumerate(distinct)]


def main_rows(evaluation: Evaluation, protocol: str) -> dict[tuple[str, str], Row]:
    """Rows of the main metric of each target by (target, encoder)."""
    metric = {target.name: MAIN_METRIC[target.kind] for target in evaluation.targets}
    return {
        (row.target, row.encoder): row
        for row in evaluation.rows
        if row.protocol == protocol and row.metric == metric[row.target]
    }


def gains(evaluation: Evaluation) -> pd.DataFrame:
    """Score differences by pretrained encoder, target and baseline: encoder, target, baseline, gain, verdict, seen.

    ``gains`` and ``loses`` where the two 95 % intervals do not overlap, ``unclear`` where they do.
    """
    rows = main_rows(evaluation, PROTOCOL)
    kinds = {encoder.name: encoder.kind for encoder in evaluation.encoders}
    lines = []
    for (target, encoder), row in rows.items():
        if kinds[encoder] != "pretrained":
            continue
        for baseline in (name for name, kind in kinds.items() if kind != "pretrained"):
            other = rows.get((target, baseline))
            if other is None:
                continue
            verdict = "gains" if row.low > other.high else "loses" if row.high < other.low else "unclear"
            lines.append((encoder, target, baseline, row.mean - other.mean, verdict, "seen" if row.seen else ""))
    return pd.DataFrame(lines, columns=["encoder", "target", "baseline", "gain", "verdict", "seen"])


def _section(evaluation: Evaluation, at: int, count: int) -> Section:
    title = "Probes" if count == 1 else f"Probes ({at + 1} of {count})"
    anchor = "probes" if at == 0 else f"probes-{at + 1}"
    lead = (
        f"Frozen encoders on {evaluation.tiles:,} tiles in {evaluation.blocks:,} blocks of about 100 km, "
        f"{evaluation.folds} folds that never split a block, {evaluation.crop} px crops; 95 % intervals by bootstrap "
        f"over blocks. Seen: a pretext task of the encoder held the answer, so only the others show what transfers."
    )
    gained = gains(evaluation)
    blocks: list[Any] = [lead, _charts(evaluation), _gain_table(gained, anchor), _score_table(evaluation, anchor)]
    blocks += [f"{skipped.target} is not scored: {skipped.reason}" for skipped in evaluation.skipped]
    return Section(title, anchor, tuple(blocks), tuple(_facts(evaluation, gained)))


def _facts(evaluation: Evaluation, gained: pd.DataFrame) -> list[Fact]:
    """For each encoder: on how many targets it is above each baseline, judged on the targets it did not see."""
    facts = []
    for encoder in (encoder.name for encoder in evaluation.encoders if encoder.kind == "pretrained"):
        for baseline, title in (("random", "random"), ("band_means", "band means")):
            mine = gained[(gained["encoder"] == encoder) & (gained["baseline"].map(_kinds(evaluation)) == baseline)]
            unseen = mine[mine["seen"] == ""]
            judged = unseen if len(unseen) else mine
            if not len(judged):
                continue
            better = judged["gain"] > 0
            clear = int((judged["verdict"] == "gains").sum())
            behind = ", ".join(judged.loc[~better, "target"])
            note = f"mean gain {judged['gain'].mean():+.2f}, clear on {clear}".replace("-", "−") + (
                f"; not on {behind}" if behind else ""
            )
            facts.append(
                Fact(
                    f"Probes: {encoder} over {title}",
                    f"{int(better.sum())} of {len(judged)}",
                    "good" if better.all() else "bad",
                    note + ("; unseen targets" if len(unseen) else "; all seen"),
                )
            )
    return facts


def _kinds(evaluation: Evaluation) -> dict[str, str]:
    return {encoder.name: encoder.kind for encoder in evaluation.encoders}


def _encoder_colours(evaluation: Evaluation) -> dict[str, str]:
    pretrained = [encoder.name for encoder in evaluation.encoders if encoder.kind == "pretrained"]
    cycle = {name: PRETRAINED_COLOURS[at % len(PRETRAINED_COLOURS)] for at, name in enumerate(pretrained)}
    return {e.name: cycle.get(e.name, COLOURS.get(e.kind, COLOURS["band_means"])) for e in evaluation.encoders}


def _charts(evaluation: Evaluation) -> list[Figure]:
    """One chart for each target: the main metric of every encoder with its interval, hollow where it was seen."""
    rows, colours = main_rows(evaluation, PROTOCOL), _encoder_colours(evaluation)
    figures = []
    for target in evaluation.targets:
        mine = [row for (name, _), row in rows.items() if name == target.name]
        if not mine:
            continue
        figure = Figure(figsize=(3.4, 0.75 + 0.27 * len(mine)), layout="constrained")
        figure.set_label(f"Scores of {target.name}")
        axes = figure.add_subplot()
        for at, row in enumerate(mine):
            colour = colours[row.encoder]
            axes.plot([row.low, row.high], [at, at], color=colour, linewidth=2, solid_capstyle="round")
            face = "none" if row.seen else colour
            axes.plot([row.mean], [at], marker="o", markersize=6, color=colour, markerfacecolor=face)
        axes.set_yticks(range(len(mine)), [row.encoder + (" (seen)" if row.seen else "") for row in mine])
        axes.set_ylim(len(mine) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_title(target.name)
        axes.set_title(MAIN_METRIC[target.kind], loc="right", fontsize=8, fontweight="normal")
        axes.locator_params(axis="x", nbins=5)
        figures.append(figure)
    return figures


def _gain_table(gained: pd.DataFrame, anchor: str) -> pd.DataFrame:
    """One line for each target, one column for each pretrained encoder and baseline."""
    lines: dict[str, dict[str, Any]] = {}
    for row in gained.itertuples(index=False):
        cell = [f"{row.gain:+.3f}".replace("-", "−"), row.verdict, *([row.seen] if row.seen else [])]
        lines.setdefault(str(row.target), {})[f"{row.encoder} against {row.baseline}"] = cell
    shown = pd.DataFrame([{"target": target, **cells} for target, cells in lines.items()]).fillna("")
    shown.attrs.update(
        id=f"{anchor}-gains",
        caption=f"Gain of pretrained encoders ({PROTOCOL} probe, main metric); unclear where the intervals overlap.",
    )
    return shown


def _score_table(evaluation: Evaluation, anchor: str) -> pd.DataFrame:
    """One line for each target, protocol and metric, one column for each encoder."""
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in evaluation.rows:
        cell = [f"{row.mean:.3f}", f"({row.low:.3f} to {row.high:.3f})", *(["seen"] if row.seen else [])]
        lines.setdefault((row.target, row.protocol, row.metric), {})[row.encoder] = cell
    keys = ("target", "protocol", "metric")
    shown = pd.DataFrame([{**dict(zip(keys, line, strict=True)), **cells} for line, cells in lines.items()]).fillna("")
    shown.attrs.update(id=f"{anchor}-scores", caption="Every score (95 % interval), the mean over seeds.")
    return shown
