"""What is left to do of a location table, in a store that may not exist yet, and what that store has cost so far."""

from __future__ import annotations

from collections.abc import Sequence

from mmearth_data import grid
from mmearth_data.cost.account import Account, Measured, committed_bytes, measured
from mmearth_data.cost.estimate import Work
from mmearth_data.location import read_locations
from mmearth_data.modalities import Modality, stored_with
from mmearth_data.plan import Plan, Summary
from mmearth_data.plan.resolution import BATCH_LOCATIONS
from mmearth_data.store.objects import Place


def work_of(locations: str | Place, plan: Plan | None = None, downstream: Sequence[str] = ()) -> Work:
    """What is left of the location table, of which ``plan`` may have done a part; raises LocationTableError.

    Without a plan the store is to hold the modalities ``downstream`` too; raises UnknownModalityError.
    """
    table = read_locations(locations)
    owed = int((~table["reserve"]).sum())
    pixels = int(grid.decode(table["location_id"].to_numpy()[:1]).pixels[0])
    if plan is None:
        return Work(owed, len(table), _batches(len(table)), pixels, _fetched(stored_with(downstream)))
    summary = plan.summary()
    unresolved = max(len(table) - summary.resolved, 0)
    left = max(owed - summary.stored, 0)
    return Work(left, unresolved, _batches(unresolved), pixels, _fetched(plan.modalities))


def work_left(plan: Plan, summary: Summary) -> Work:
    """What is left of a plan that is as far as ``summary`` says."""
    pixels = int(grid.decode(plan.table["location_id"].to_numpy()[:1]).pixels[0])
    tiles = sum(max(stratum.quota - stratum.stored, 0) for stratum in summary.strata if not stratum.dry)
    unresolved = summary.locations - summary.resolved
    return Work(tiles, unresolved, _batches(unresolved), pixels, _fetched(plan.modalities))


def _batches(locations: int) -> int:
    return -(-locations // BATCH_LOCATIONS)


def _fetched(modalities: Sequence[Modality]) -> tuple[str, ...]:
    return tuple(modality.name for modality in modalities if modality.scope == "pixel")


def measured_in(store: str | Place, account: Account | None, stored: int) -> Measured:
    """What the store's ``stored`` tiles have cost so far."""
    return measured(account, stored, committed_bytes(store) if stored else 0)
