"""Finalisation as a flow: consolidate the tables, compute the statistics, say that the store can be trained on."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.artifacts import run_progress
from flows.events import FINALIZED, announce
from flows.settings import FinalizeSettings
from mmearth_data.statistics import finalize as finalize_store


@flow(name="finalize", flow_run_name="{store}")
def finalize(store: Path) -> None:
    """Consolidate what is committed in ``store`` and compute its training statistics."""
    with run_progress("statistics", 1, "statistics-progress") as progress:
        finalize_store(store, progress.show)
    announce(FINALIZED, store)


def run(settings: FinalizeSettings) -> None:
    """``mmearth finalize``."""
    finalize(settings.store)
