"""Collecting a round: one task per shard, a few at a time, on threads of this process or on a Dask cluster."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectWrappedFuture
from prefect.logging import get_run_logger
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task

from flows.artifacts import RunProgress
from flows.quota import SlotsLostError, limit_name, occupied
from flows.settings import CollectSettings
from mmearth_data.adopted import AdoptedTables, read_adopted
from mmearth_data.collection import ShardReport, collect_shard
from mmearth_data.cost.account import Session
from mmearth_data.earthengine.session import WORKLOAD_TAG, EarthEngineSource, connect
from mmearth_data.plan import Plan
from mmearth_data.source import Quota, Rejected, Spent, Transient
from mmearth_data.store import StoreError
from mmearth_data.store.buckets import Unreachable
from mmearth_data.store.leases import LeaseLost
from mmearth_data.store.objects import at
from mmearth_data.store.shards import ShardLocked, is_committed

if TYPE_CHECKING:
    ShardFuture = PrefectWrappedFuture[ShardReport, Any]

SHARDS_AT_ONCE = 2
"""Shards under way in one process: while one is compressed, the other keeps the requests going."""
SPARE_THREADS = 0.5
"""Threads of a shard beside those whose requests are under way, as a share of them: while some check what has arrived,
others have their requests ready, so that no slot waits for a thread. The source lets no more requests go than slots."""
PENDING_SHARDS = 100
"""Shards that a cluster is given in advance at most, so that neither its scheduler nor Prefect's page is flooded."""
LOCKED_SECONDS = 10.0
"""When to look again at a shard that another process is writing: either it commits it, or it dies and we do."""
_POLL_SECONDS = 0.5


class Stopped(RuntimeError):  # noqa: N818 - it is no error: somebody asked to stop
    """The run was asked to stop between two tiles."""


class DaskError(ValueError):
    """A Dask cluster was asked for, but this machine cannot speak to one."""


@dataclass(frozen=True)
class Run:
    """What the tasks of one run share in the process that they run in.

    Where it arrives pickled, on a machine of a cluster, it is opened anew from its settings: nothing is counted there
    (the shard's report says what was done), and each shard takes its own slots of the project's quota.
    """

    settings: CollectSettings
    plan: Plan
    source: EarthEngineSource
    account: Session
    progress: RunProgress | None
    stop: Event

    def __reduce__(self) -> tuple[Callable[[CollectSettings], Run], tuple[CollectSettings]]:
        """Travel as settings."""
        return _elsewhere, (self.settings,)

    def count(self, tiles: int = 1) -> None:
        """Count tiles as tried; raises Stopped if the run is to end."""
        if self.progress is not None:
            self.progress.advance(tiles)
        self.account.keep()
        self.check()

    def check(self) -> None:
        """Raise Stopped if the run is to end."""
        if self.stop.is_set():
            raise Stopped("stopped between two tiles")

    def slots(self) -> AbstractContextManager[None]:
        """The slots that a shard needs beyond those which its flow holds for this process."""
        if self.progress is not None:
            return nullcontext()
        return occupied(limit_name(self.settings.project), self.settings.workers, self.check)


def connected(settings: CollectSettings, plan: Plan) -> EarthEngineSource:
    """The source that the settings name, whose monitoring knows the plan by a tag of its own.

    Deployments leave out what is not set by an empty word.
    """
    tag = f"{WORKLOAD_TAG}-{plan.seed:08x}"
    return connect(
        settings.project or None,
        settings.emulator or None,
        slots=settings.workers,
        tag=tag,
        modalities=plan.modalities,
    )


_opened: dict[tuple[CollectSettings, AdoptedTables], Run] = {}
_opening = threading.Lock()


def _elsewhere(settings: CollectSettings) -> Run:
    """The run of these settings in a process that did not start it; opened once, for the client connects but once.

    It is opened anew once the plan was extended: a cluster's machines outlive runs.
    """
    with _opening:
        opened = settings, read_adopted(at(settings.store) / "_plan")
        if opened not in _opened:
            plan = Plan.open(settings.store)
            source = connected(settings, plan)
            _opened.clear()
            _opened[opened] = Run(settings, plan, source, Session(plan.store, source.read_traffic), None, Event())
        return _opened[opened]


def _worth_repeating(shard: Task[..., object], attempt: TaskRun, state: State[object]) -> bool:
    """Whether a shard failed for reasons of infrastructure, which pass."""
    return isinstance(state.result(raise_on_failure=False), Transient | Quota | Unreachable | SlotsLostError)


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
def collect_one(run: Run, shard: int) -> ShardReport:
    """Fetch, check and commit one shard; what it has sent is in the account before it is committed."""
    if is_committed(run.plan.store, shard):
        return ShardReport(shard)  # another process was faster: what it was resolved to is not read
    tried, tiles = 0, run.plan.tiles([shard])

    def on_tile() -> None:
        nonlocal tried
        tried += 1
        run.count()
        if tried == tiles:
            run.account.keep(now=True)

    with run.slots():
        run.check()
        try:
            report = collect_shard(
                run.plan.store,
                run.plan.spec(shard),
                run.source,
                run.settings.workers + math.ceil(SPARE_THREADS * run.settings.workers),
                on_tile,
                stopping=run.stop.is_set,
            )
        except BaseException:
            if run.progress is not None:
                run.progress.advance(-tried)  # they are tried again, by this task or by the next run
            raise
        finally:
            run.account.keep(now=True)
    get_run_logger().info("%d stored, %d gave way, %d requests", report.stored, report.gave_way, report.requests)
    return report


@contextmanager
def shard_runner(settings: CollectSettings) -> Iterator[TaskRunner[Any]]:
    """Where shards are collected: threads here, or the Dask cluster whose scheduler the settings name."""
    runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=SHARDS_AT_ONCE)
    if settings.dask:
        try:
            from prefect_dask.task_runners import DaskTaskRunner
        except ModuleNotFoundError as error:
            raise DaskError(f"--dask needs the package {error.name}; pip install 'mmearth[dask]'") from error
        runner = DaskTaskRunner(address=settings.dask)
    with runner:
        yield runner


def collect_round(
    run: Run, shards: tuple[int, ...], runner: TaskRunner[Any], on_commit: Callable[[ShardReport], None]
) -> list[str]:
    """Collect these shards, a few at a time; returns what went wrong with those left uncommitted.

    ``on_commit`` is called with the report of each shard as it is committed.
    Raises Rejected, Quota or Spent as soon as the service says that asking again is pointless for now, StoreError as
    soon as the store refuses to be written, and KeyboardInterrupt once ``run.stop`` is set.
    """
    most = PENDING_SHARDS if run.settings.dask else SHARDS_AT_ONCE
    waiting = [(0.0, shard) for shard in shards]
    under_way: dict[ShardFuture, int] = {}
    finished: SimpleQueue[ShardFuture] = SimpleQueue()
    failures: list[str] = []
    try:
        while waiting or under_way:
            if run.stop.is_set():
                raise KeyboardInterrupt  # somebody swallowed it
            while waiting and waiting[0][0] <= time.monotonic() and len(under_way) < most:
                _, shard = waiting.pop(0)
                future = runner.submit(collect_one, {"run": run, "shard": shard})
                under_way[future] = shard
                future.add_done_callback(finished.put)
            try:
                future = finished.get(timeout=_POLL_SECONDS)
            except Empty:
                pass
            else:
                shard = under_way.pop(future)
                outcome: object = future.result(raise_on_failure=False)
                if isinstance(outcome, ShardLocked | LeaseLost):
                    waiting.append((time.monotonic() + LOCKED_SECONDS, shard))
                elif isinstance(outcome, Rejected | Quota | Spent | StoreError):
                    raise outcome  # the next shard would meet the same
                elif isinstance(outcome, ShardReport):
                    on_commit(outcome)
                else:
                    failures.append(f"shard {shard}: {outcome}")
    except BaseException:
        run.stop.set()
        raise
    return failures
