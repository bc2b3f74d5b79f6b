"""Evaluation as a flow: probes of frozen encoders, and their table."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import publish_table
from mmearth_train.evaluate import EvaluateConfig, Evaluation, table
from mmearth_train.evaluate import evaluate as probe


@flow(name="evaluate")
def evaluate(config: EvaluateConfig) -> Evaluation:
    """Probe the encoders of ``config`` and publish the table of results."""
    evaluation = probe(config)
    header, *rows = table(evaluation)
    publish_table("evaluation", "Frozen encoders", [dict(zip(header, row, strict=True)) for row in rows])
    return evaluation


def run(config: EvaluateConfig) -> None:
    """``mmearth evaluate``."""
    evaluate(config)
