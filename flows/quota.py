"""The project's quota: a Prefect global concurrency limit that whoever asks Earth Engine takes its slots from.

One slot stands for one request under way. The limit is created here and asked for strictly, since Prefect skips one
that does not exist without a word; its leases are the shortest that the server grants, so that a killed holder does
not keep the others waiting.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

REQUESTS_AT_ONCE = 40
"""Requests that Earth Engine answers at once for a project (its documented default): the size of a new limit."""
LEASE_SECONDS = 60.0
"""How long slots stay taken after their holder died: the shortest lease that Prefect's server grants."""
_ASK_SECONDS = 10.0
"""How long to wait for slots before looking whether the run is to end."""


class QuotaError(ValueError):
    """More slots are wanted at once than the project's limit has."""


def limit_name(project: str | None) -> str:
    """The name of a project's limit; emulators share one."""
    return f"earthengine-{project or 'emulator'}"


def ensure_limit(name: str, slots: int) -> int:
    """Create the limit ``name`` where it is missing; returns its size, which stays as somebody has set it.

    Raises QuotaError where ``slots``, wanted at once, could never be had.
    """
    with get_client(sync_client=True) as client:
        try:
            size = int(client.read_global_concurrency_limit_by_name(name).limit)
        except ObjectNotFound:
            size = REQUESTS_AT_ONCE
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=size))
            except ObjectAlreadyExists:  # another run was faster
                size = int(client.read_global_concurrency_limit_by_name(name).limit)
    if slots > size:
        raise QuotaError(
            f"{slots} requests at once need {slots} slots, but the limit {name!r} has {size}; lower --workers, "
            f"or raise the limit with: prefect gcl update {name} --limit {slots}"
        )
    return size


class SlotsLostError(RuntimeError):
    """The slots may be somebody else's by now: nothing more may be asked for without others."""


@contextmanager
def occupied(name: str, slots: int, check: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold that many slots of the limit for the block.

    Waits until they are free, calling ``check`` now and then, which raises to end the wait. Raises Prefect's
    ConcurrencySlotAcquisitionError where the limit does not exist, SlotsLostError in the midst of the block where they
    could not be kept.
    """
    try:
        with ExitStack() as held:
            while True:
                check()
                try:
                    held.enter_context(
                        concurrency(
                            name, occupy=slots, timeout_seconds=_ASK_SECONDS, lease_duration=LEASE_SECONDS, strict=True
                        )
                    )
                except TimeoutError:
                    continue
                break
            yield
    except CancelledError as error:  # how Prefect interrupts the block when it could not renew the lease
        raise SlotsLostError(
            f"the slots of {name!r} are lost: the Prefect server took them back, or did not answer for minutes"
        ) from error
