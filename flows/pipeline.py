"""The whole chain as one flow: sample, collect, finalize, pretrain, evaluate, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.collect import collect
from flows.evaluate import evaluate
from flows.finalize import finalize
from flows.pretrain import pretrain
from flows.report import ReportConfig, write_report
from flows.sample import sample
from flows.settings import CollectSettings, SampleSettings
from mmearth_train.evaluate import EvaluateConfig


@dataclass(frozen=True)
class PipelineSettings:
    """What the chain makes and where: settings of its steps that the steps cannot know of each other."""

    sample: SampleSettings
    store: Path
    runs: dict[str, tuple[str, ...]]
    """One pretraining per entry: its folder's name beside the store, and its options of ``mmearth pretrain``."""
    workers: int = 16


@flow(name="pipeline", validate_parameters=False)
def pipeline(settings: PipelineSettings) -> Path:
    """Run every step, each carrying on where an earlier run stopped; returns the path of the report."""
    here, asked = settings.store.parent, settings.sample
    locations = sample(asked)
    collect(CollectSettings(locations, settings.store, asked.project, asked.emulator, settings.workers))
    finalize(settings.store)
    runs = tuple(pretrain(settings.store, here / "runs" / name, options) for name, options in settings.runs.items())
    evaluate(EvaluateConfig(store=settings.store, checkpoint=runs))
    return write_report(ReportConfig(store=settings.store, run=runs, out=here / "report.html"))
