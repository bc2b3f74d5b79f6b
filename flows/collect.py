"""Collection as a flow: adopt the table, resolve it all, then round by round one task per shard."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import keep_picture, keep_table, publish_table, run_progress
from flows.events import COMPLETE, announce
from flows.interruption import interruptible
from flows.ledger import Ledger
from flows.quota import SlotsLostError, ensure_limit, limit_name, occupied
from flows.settings import CollectSettings
from flows.shards import Run, collect_round, connected, shard_runner
from mmearth_data.absences import BiomeAbsences, absences_by_biome
from mmearth_data.collection import ShardReport, resolve_plan
from mmearth_data.completion import is_finalized
from mmearth_data.earthengine.session import EarthEngineSource
from mmearth_data.plan import Plan, StratumSummary, Summary
from mmearth_data.report.mosaic import mosaic
from mmearth_data.store import StoreError, consolidate

logger = logging.getLogger(__name__)
MOSAIC_SECONDS = 300.0
"""How often, at most, a picture of fresh tiles is published."""
SHARDS_PICTURED = 8
"""How many shards back its tiles may come from, where the newest have few."""


class IncompleteError(RuntimeError):
    """Shards stayed uncommitted or locations unresolved; nothing is lost, and the next run tries them again."""


@task(name="resolve", persist_result=False, cache_policy=NO_CACHE)
def resolve(run: Run) -> int:
    """Resolve every batch of the plan that is not saved yet or lacks answers; returns how many there were."""
    return resolve_plan(
        run.plan, run.source, workers=run.settings.workers, on_batch=run.count, stopping=run.stop.is_set
    )


@flow(name="collect", flow_run_name="{settings.store}")
def collect(settings: CollectSettings) -> Path:
    """Collect every location of a table into a store, carrying on where an earlier run stopped; returns the store.

    Raises IncompleteError where shards stayed uncommitted or locations unresolved, Rejected where the service refuses,
    QuotaError where more requests are wanted at once than the project's limit has slots, and what ``Plan.prepare``
    raises for bad input.
    """
    plan = Plan.prepare(settings.store, settings.locations, downstream=settings.downstream)
    plan.give_up(settings.give_up)
    ensure_limit(limit_name(settings.project), settings.workers)
    source = connected(settings, plan)
    ledger = Ledger(settings, plan, source)
    ledger.show_estimate()
    while True:
        try:
            _collect_with_slots(settings, plan, source, ledger)
        except SlotsLostError as error:
            logger.warning("%s; taking slots again", error)
            continue
        except IncompleteError:
            try:
                _publish(settings, plan.summary(), ledger)
            except StoreError as error:
                logger.warning("not all is shown of how far the run is: %s", error)
            raise
        break
    consolidate(settings.store)
    summary = plan.summary()
    _publish(settings, summary, ledger)
    # With a table that was extended meanwhile nothing is announced: the store is complete when the longest one is.
    if plan.is_whole() and not is_finalized(settings.store):
        announce(COMPLETE, settings.store, stored=summary.stored, owed=summary.quota)
    return settings.store


def _collect_with_slots(settings: CollectSettings, plan: Plan, source: EarthEngineSource, ledger: Ledger) -> None:
    """Wait for the slots of the project's limit, then resolve and collect.

    Raises SlotsLostError where they could not be kept: what was under way is to be begun again.
    """
    stop = Event()
    with interruptible(stop), ExitStack() as quota:
        quota.enter_context(occupied(limit_name(settings.project), settings.workers))
        ledger.session.begin()
        batches = len(plan.unresolved())
        with run_progress(
            "resolve", batches, "resolve-progress", "batches", lambda: ledger.words(source.requests)
        ) as progress:
            resolve(Run(settings, plan, source, ledger.session, progress, stop))
            ledger.session.keep(now=True)
        if settings.dask:
            quota.close()  # each machine of the cluster takes its own slots
        _collect_rounds(settings, plan, source, ledger, stop)


def _collect_rounds(
    settings: CollectSettings, plan: Plan, source: EarthEngineSource, ledger: Ledger, stop: Event
) -> None:
    """Collect round after round until nothing is left to collect.

    Raises IncompleteError after a round that left shards uncommitted, and at the end where locations are unresolved.
    """
    sent_by_shards = 0
    drawn = -MOSAIC_SECONDS
    fresh: deque[int] = deque(maxlen=SHARDS_PICTURED)
    pictured: int | None = None

    def cost() -> str:
        return ledger.words(sent_by_shards if settings.dask else source.requests)

    with (
        run_progress("collect", 0, "collect-progress", "tiles tried", cost) as progress,
        shard_runner(settings) as runner,
    ):
        run = Run(settings, plan, source, ledger.session, progress, stop)

        def committed(report: ShardReport) -> None:
            nonlocal sent_by_shards, drawn, pictured
            sent_by_shards += report.requests
            if settings.dask or not report.committed_here:
                progress.advance(plan.tiles([report.shard]))
            fresh.appendleft(report.shard)
            ledger.ask_now_and_then()
            if time.monotonic() - drawn > MOSAIC_SECONDS:
                _show(settings, fresh)
                drawn, pictured = time.monotonic(), report.shard

        while True:
            shards = plan.pending() or plan.next_round()
            if shards is None:
                break
            progress.grow(plan.tiles(shards))
            if failures := collect_round(run, shards, runner, committed):
                raise IncompleteError(
                    f"{len(failures)} of {len(shards)} shards are not committed ({'; '.join(failures)}); "
                    "run the same command again to try them"
                )
    if fresh and fresh[0] != pictured:
        _show(settings, fresh)
    if unresolved := [str(place.location_id) for number in plan.unresolved() for place in plan.unanswered(number)]:
        raise IncompleteError(
            f"{len(unresolved)} locations are not resolved, for no answer could be used (their bytes are in "
            f"{plan.store / '_quarantine'}); run the same command again to try them, or go past them with --give-up "
            f"{' '.join(unresolved)}"
        )


def _show(settings: CollectSettings, fresh: Sequence[int]) -> None:
    """Publish a picture of the first tiles of the shards committed last, the newest first."""
    picture = mosaic(settings.store, fresh)
    if picture is not None:
        keep_picture("fresh-tiles", f"Fresh tiles in natural colours, those of shard {fresh[0]} first", picture)


def _publish(settings: CollectSettings, summary: Summary, ledger: Ledger) -> None:
    """What a person looks for when a run ends, whether it is complete or left something to try again."""
    title = f"{summary.stored} of {summary.quota} tiles stored"
    publish_table("collect", title, _balance(summary))
    keep_table(
        "absences", "Tiles, locations that gave way, then modalities absent from tiles, by reason", _absences(settings)
    )
    ledger.show_account(summary.stored)


def _balance(summary: Summary) -> list[dict[str, object]]:
    """One row per biome, and one for all: tiles stored of those owed by year, locations that gave way, dry strata."""
    years = sorted({stratum.year for stratum in summary.strata})
    rows = {
        stratum.biome: [other for other in summary.strata if other.biome == stratum.biome] for stratum in summary.strata
    }
    return [
        {"biome": biome}
        | {str(year): _stored_of_owed([stratum for stratum in strata if stratum.year == year]) for year in years}
        | {"gave way": sum(stratum.gave_way for stratum in strata), "run dry": sum(stratum.dry for stratum in strata)}
        for biome, strata in [*rows.items(), ("all", summary.strata)]
    ]


def _stored_of_owed(strata: Sequence[StratumSummary]) -> str:
    return f"{sum(stratum.stored for stratum in strata)}/{sum(stratum.quota for stratum in strata)}"


def _absences(settings: CollectSettings) -> list[dict[str, object]]:
    """One row per biome, and one for all: tiles; by reason, locations that gave way and modalities that are absent."""
    by_biome = absences_by_biome(settings.store)
    everywhere = BiomeAbsences()
    for counts in by_biome.values():
        everywhere += counts
    return [
        {"biome": biome, "tiles": counts.stored}
        | {f"gave way: {reason}": counts.gave_way[reason] for reason in sorted(everywhere.gave_way)}
        | {reason: counts.absent[reason] for reason in sorted(everywhere.absent)}
        for biome, counts in [*by_biome.items(), ("all", everywhere)]
    ]


def run(settings: CollectSettings) -> None:
    """``mmearth collect``."""
    collect(settings)
