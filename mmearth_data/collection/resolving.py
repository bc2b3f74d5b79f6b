"""Resolving a plan: every batch that is not saved yet, in parallel, each saved as soon as it is known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mmearth_data.collection.requests import Requests, Retry, quarantine, run_all
from mmearth_data.plan import Plan, PlanError
from mmearth_data.source import Corrupt, Location, Resolved, Source

logger = logging.getLogger(__name__)
RESOLVE_WORKERS = 8
"""Batches resolved at once at most: aggregations run on the standard endpoint and are heavy."""
MOST_UNRESOLVED = 32
"""Locations whose answers cannot be used after which a run is left: then it is the service that is broken."""


def resolve_plan(
    plan: Plan,
    source: Source,
    *,
    workers: int = RESOLVE_WORKERS,
    on_batch: Callable[[], None] = lambda: None,
    retry: Retry | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Resolve and save every batch that is not saved yet or lacks answers; returns how many were asked for.

    A batch whose answer stays Corrupt is halved down to the locations that make it so: their bytes are kept in the
    store's ``_quarantine``, they are named in warnings and saved as without an answer (``Plan.unanswered``); after
    MOST_UNRESOLVED of them Corrupt is raised, and what their batches have is saved. ``on_batch`` is called after each
    batch, those that another process saved meanwhile included. Any other error ends it; the batches saved until then
    stay. Once ``stopping()`` is true no request is repeated.
    """
    requests = Requests(retry or Retry(), stopping)
    resolved_here: list[int] = []
    unusable: list[int] = []

    def ask(places: Sequence[Location], found: list[Resolved]) -> None:
        """Add what was resolved for those of the places that have an answer, in order."""
        try:
            resolved = requests.call(lambda: source.resolve(places))
        except Corrupt as error:
            if len(places) > 1:
                half = len(places) // 2
                ask(places[:half], found)
                ask(places[half:], found)
            else:
                _keep(places[0].location_id, error)
            return
        if [entry.location_id for entry in resolved] != [place.location_id for place in places]:
            raise PlanError("what was resolved is not what was asked for: a source must answer in the order given")
        found += resolved

    def _keep(location_id: int, error: Corrupt) -> None:
        kept = quarantine(error, plan.store, unresolved_name(location_id))
        said = f"location {location_id} cannot be resolved: {error}; its bytes are kept in {kept}"
        logger.warning("%s", said)
        unusable.append(location_id)
        if len(unusable) >= MOST_UNRESOLVED:
            raise Corrupt(f"{said}, as are those of {len(unusable) - 1} more: run again to retry", error.payload)

    def resolve(number: int) -> None:
        found: list[Resolved] = []
        if places := plan.unanswered(number):
            try:
                ask(places, found)
            except Corrupt:
                plan.save_resolved(number, found)  # so that those that were named can be given up
                raise
            plan.save_resolved(number, found)
            resolved_here.append(number)
        on_batch()

    run_all(resolve, plan.unresolved(), min(workers, RESOLVE_WORKERS), requests.stopping)
    return len(resolved_here)


def unresolved_name(location_id: int) -> str:
    """What the bytes are kept as that a location could not be resolved from."""
    return f"{location_id}-resolving"
