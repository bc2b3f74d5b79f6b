"""Resolving a plan: every batch that is not saved yet, in parallel, each saved as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable

from mmearth_data.collection.requests import Requests, Retry, quarantine, run_all
from mmearth_data.plan import Plan
from mmearth_data.source import Corrupt, Source

RESOLVE_WORKERS = 8
"""Batches resolved at once at most: aggregations run on the standard endpoint and are heavy."""


def resolve_plan(
    plan: Plan,
    source: Source,
    *,
    workers: int = RESOLVE_WORKERS,
    on_batch: Callable[[], None] = lambda: None,
    retry: Retry | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Resolve and save every batch that is not saved yet; returns how many were resolved.

    ``on_batch`` is called after each, those that another process saved meanwhile included. Any error ends it; the
    batches saved until then stay. Once ``stopping()`` is true no request is repeated.
    """
    requests = Requests(retry or Retry(), stopping)
    resolved_here: list[int] = []

    def resolve(number: int) -> None:
        if plan.is_resolved(number):
            on_batch()
            return
        try:
            resolved = requests.call(lambda: source.resolve(plan.batch(number)))
        except Corrupt as error:
            kept = quarantine(error, plan.store, f"batch-{number:05d}")
            said = f"batch {number}: {error}; its bytes are kept in {kept}, run again to retry"
            raise Corrupt(said, error.payload) from error
        plan.save_resolved(number, resolved)
        resolved_here.append(number)
        on_batch()

    run_all(resolve, plan.unresolved(), min(workers, RESOLVE_WORKERS), requests.stopping)
    return len(resolved_here)
