"""Collection as a flow: adopt the table, resolve it all, then round by round one task per shard."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from flows.artifacts import RunProgress, publish_table, run_progress
from flows.settings import CollectSettings
from mmearth_data.collection import ShardReport, collect_shard, resolve_plan
from mmearth_data.earthengine.session import EarthEngineSource, connect
from mmearth_data.plan import Plan, Summary
from mmearth_data.source import Quota, Rejected, Transient
from mmearth_data.store import consolidate
from mmearth_data.store.shards import ShardLocked

SHARDS_AT_ONCE = 2
"""Shards under way in one process: while one is compressed, the other keeps the requests going."""
LOCKED_SECONDS = 10.0
"""When to look again at a shard that another process is writing: either it commits it, or it dies and we do."""
_POLL_SECONDS = 0.5


class Stopped(RuntimeError):  # noqa: N818 - it is no error: somebody asked to stop
    """The run was asked to stop between two tiles."""


class IncompleteError(RuntimeError):
    """Shards stayed uncommitted; nothing of them is lost, and the next run tries them again."""


@dataclass(frozen=True)
class _Run:
    """What the tasks of one run share."""

    plan: Plan
    source: EarthEngineSource
    workers: int
    progress: RunProgress
    stop: Event

    def count(self, tiles: int = 1) -> None:
        """Count tiles as tried; raises Stopped if the run is to end."""
        self.progress.advance(tiles)
        if self.stop.is_set():
            raise Stopped("stopped between two tiles")


@task(name="resolve", persist_result=False, cache_policy=NO_CACHE)
def resolve(run: _Run) -> int:
    """Resolve every batch of the plan that is not saved yet; returns how many there were."""
    return resolve_plan(run.plan, run.source, workers=run.workers, on_batch=run.count, stopping=run.stop.is_set)


def _worth_repeating(shard: Task[..., object], attempt: TaskRun, state: State[object]) -> bool:
    """Whether a shard failed for reasons of infrastructure, which pass."""
    return isinstance(state.result(raise_on_failure=False), Transient | Quota)


@task(
    name="collect shard",
    task_run_name="shard {shard:05d}",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_repeating,
    persist_result=False,
    cache_policy=NO_CACHE,
)
def collect_one(run: _Run, shard: int) -> ShardReport:
    """Fetch, check and commit one shard."""
    run.count(0)
    spec = run.plan.spec(shard)
    workers = max(1, run.workers // SHARDS_AT_ONCE)
    return collect_shard(run.plan.store, spec, run.source, workers, run.count, stopping=run.stop.is_set)


def _collect_round(run: _Run) -> list[str]:
    """Collect every pending shard, a few at a time; returns what went wrong with those left uncommitted.

    Raises Rejected as soon as the service says that asking again is pointless.
    """
    waiting = [(0.0, shard) for shard in run.plan.pending()]
    under_way: dict[PrefectFuture[ShardReport], int] = {}
    failures: list[str] = []
    try:
        while waiting or under_way:
            while waiting and waiting[0][0] <= time.monotonic() and len(under_way) < SHARDS_AT_ONCE:
                _, shard = waiting.pop(0)
                under_way[collect_one.submit(run, shard)] = shard
            if not under_way:
                time.sleep(_POLL_SECONDS)
            done, _ = wait(list(under_way), timeout=_POLL_SECONDS)
            for future in done:
                shard = under_way.pop(future)
                outcome = future.result(raise_on_failure=False)
                if isinstance(outcome, Rejected):
                    raise outcome
                if isinstance(outcome, ShardLocked):
                    waiting.append((time.monotonic() + LOCKED_SECONDS, shard))
                elif isinstance(outcome, Exception):
                    failures.append(f"shard {shard}: {outcome}")
            run.progress.publish()
    except BaseException:
        run.stop.set()
        raise
    return failures


@flow(name="collect", validate_parameters=False, task_runner=ThreadPoolTaskRunner(max_workers=SHARDS_AT_ONCE + 1))  # type: ignore[arg-type]
def collect(settings: CollectSettings) -> Path:
    """Collect every location of a table into a store, carrying on where an earlier run stopped; returns the store.

    Raises IncompleteError where shards stayed uncommitted, Rejected where the service refuses, and what
    ``Plan.prepare`` raises for bad input.
    """
    plan = Plan.prepare(settings.store, settings.locations)
    source = connect(settings.project, settings.emulator)
    stop = Event()
    with run_progress("resolve", len(plan.unresolved()), "resolve-progress") as progress:
        resolve(_Run(plan, source, settings.workers, progress, stop))
    with run_progress("collect", 0, "collect-progress") as progress:
        run = _Run(plan, source, settings.workers, progress, stop)
        while True:
            shards = plan.pending() or plan.next_round()
            if shards is None:
                break
            progress.grow(plan.tiles(shards))
            if failures := _collect_round(run):
                raise IncompleteError(
                    f"{len(failures)} of {len(shards)} shards are not committed ({'; '.join(failures)}); "
                    "run the same command again to try them"
                )
    consolidate(settings.store)
    _publish(plan.summary(), source.requests)
    return settings.store


def _publish(summary: Summary, requests: int) -> None:
    """One row per biome: tiles stored of those owed in each year, locations that gave way, strata that ran dry."""
    years = sorted({stratum.year for stratum in summary.strata})
    rows: dict[str, dict[str, object]] = {}
    for stratum in summary.strata:
        row = rows.setdefault(stratum.biome, {"biome": stratum.biome, **{str(year): "" for year in years}})
        row[str(stratum.year)] = f"{stratum.stored}/{stratum.quota}"
    for biome, row in rows.items():
        row["gave way"] = sum(stratum.gave_way for stratum in summary.strata if stratum.biome == biome)
        row["run dry"] = sum(stratum.dry for stratum in summary.strata if stratum.biome == biome)
    publish_table("collect", f"{summary.stored} tiles stored; {requests} requests in this run", list(rows.values()))


def run(settings: CollectSettings) -> None:
    """``mmearth collect``."""
    collect(settings)
