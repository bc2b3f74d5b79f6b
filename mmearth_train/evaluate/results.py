"""What an evaluation found, as a file and as a table."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmearth_train.evaluate.targets import Kind

FILE_NAME = "evaluation.json"
MAIN_METRIC: dict[Kind, str] = {"classification": "macro_f1", "regression": "r2"}
"""The metric that the table shows. Macro-F1 rather than accuracy, as naming the commonest land cover everywhere
is already fairly accurate and tells nothing."""


class EvaluationError(Exception):
    """An evaluation that cannot be made or read; the message is one line with the remedy."""


@dataclass(frozen=True)
class Row:
    """One score: a metric of a protocol on the features of an encoder for a target.

    ``seeds`` holds the score per seed: one assignment of blocks to folds, with an initialisation or a pretraining run
    of its own where there is one. ``mean`` and ``std`` describe these scores: over seeds, not over the folds of one,
    and ``std`` is that of a population (n). ``low`` to ``high`` is the 95 % bootstrap interval over blocks of the
    mean over seeds. ``seen`` says that a pretext task of the encoder held the answer.
    """

    target: str
    encoder: str
    protocol: str
    metric: str
    mean: float
    std: float
    low: float
    high: float
    seen: bool
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class EncoderSummary:
    """An encoder that was compared: ``kind`` is pretrained, random or band_means; ``source`` a path or empty.

    ``effective_rank`` is that of its ``features`` over all tiles, for each of the encoders that it stands for.
    """

    name: str
    kind: str
    source: str
    pretext: tuple[str, ...]
    features: int
    effective_rank: tuple[float, ...] = ()


@dataclass(frozen=True)
class TargetSummary:
    """A target as it was scored: tiles with data, names of the classes or outputs scored and their mean or share."""

    name: str
    kind: Kind
    modality: str
    units: str
    tiles: int
    outputs: tuple[str, ...]
    means: tuple[float, ...]


@dataclass(frozen=True)
class Skipped:
    """A target that these tiles cannot score, and why."""

    target: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation found; ``tiles`` and ``blocks`` count what took part, ``crop`` is in pixels.

    ``code`` is a digest of the sources it was made by; empty in files that older versions wrote.
    """

    store: str
    tiles: int
    blocks: int
    folds: int
    crop: int
    encoders: tuple[EncoderSummary, ...]
    targets: tuple[TargetSummary, ...]
    skipped: tuple[Skipped, ...]
    rows: tuple[Row, ...]
    code: str = ""


def save(evaluation: Evaluation, path: Path) -> None:
    """Write ``evaluation`` as JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(asdict(evaluation), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def load_evaluation(path: str | Path) -> Evaluation:
    """The evaluation in a file, or in the folder that holds evaluation.json; raises EvaluationError otherwise."""
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    if not file.is_file():
        raise EvaluationError(f"{file} does not exist; make it with: mmearth evaluate --checkpoint FILE --store DIR")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Evaluation(
            **{
                **found,
                "encoders": tuple(_rebuild(EncoderSummary, entry) for entry in found["encoders"]),
                "targets": tuple(_rebuild(TargetSummary, entry) for entry in found["targets"]),
                "skipped": tuple(_rebuild(Skipped, entry) for entry in found["skipped"]),
                "rows": tuple(_rebuild(Row, entry) for entry in found["rows"]),
            }
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{file} is not an evaluation ({error}); make it again with mmearth evaluate") from error


def _rebuild(kind: type[Any], entry: dict[str, Any]) -> Any:
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def table(evaluation: Evaluation) -> list[list[str]]:
    """A header and one line per target, protocol and encoder with the main metric, best first within a protocol.

    The column ``std`` is each row's: over seeds, of a population.
    """
    header = ["target", "protocol", "encoder", "metric", "score", "std", "95 % interval", "seen"]
    order = {target.name: index for index, target in enumerate(evaluation.targets)}
    main_metric = {target.name: MAIN_METRIC[target.kind] for target in evaluation.targets}
    main = [row for row in evaluation.rows if row.metric == main_metric[row.target]]
    main.sort(key=lambda row: (order[row.target], row.protocol != "linear", -row.mean))
    return [header] + [
        [
            row.target,
            row.protocol,
            row.encoder,
            row.metric,
            f"{row.mean:.3f}",
            f"{row.std:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            "seen" if row.seen else "",
        ]
        for row in main
    ]
