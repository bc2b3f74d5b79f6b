"""The training sections of the report, from runs and the store that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmearth_train.report.curves import pretraining
from mmearth_train.report.probes import probes
from mmearth_train.report.reconstructions import Draw, reconstructions
from mmearth_train.report.section import Section


def sections(store: Path, runs: Sequence[Path], draw: Draw) -> list[Section]:
    """One section for each run and one for each evaluation; a sentence in place of what was not made yet.

    Raises MetricsError or EvaluationError where a file of a run cannot be read.
    """
    return [*(pretraining(run, store, reconstructions(store, run, draw)) for run in runs), *probes(runs)]
