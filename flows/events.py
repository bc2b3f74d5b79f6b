"""What a run tells other deployments, which start when they hear it (``prefect.yaml``)."""

from __future__ import annotations

from prefect.events import emit_event

from mmearth_data.store.objects import Place, at

COMPLETE = "mmearth.store.complete"
"""Every stratum of the store has its quota or has run dry, and its statistics are still to be made."""
FINALIZED = "mmearth.store.finalized"
"""The store's statistics are made: it can be trained on."""


def announce(event: str, store: Place, **facts: int) -> None:
    """Emit ``event`` about a store; its path and ``facts`` are the event's payload."""
    path = str(at(store).absolute())
    resource = {"prefect.resource.id": f"mmearth.store.{path}", "prefect.resource.name": path}
    emit_event(event, resource=resource, payload={"store": path, **facts})
