"""Locations that a person decided to go past, because no answer for them can be used.

    DIR/_plan/given-up.json    their ids in ascending order

The decision is part of the plan: a shard that is committed after it leaves their rows vacant with the reason
``given_up``, and the next round takes the next locations of their strata. It is taken under the lock of each shard
that it concerns, and shards read it under theirs, so the result follows from the decisions alone, whoever works when.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from mmearth_data.store import shards
from mmearth_data.store.files import write_atomic
from mmearth_data.store.locking import exclusive
from mmearth_data.store.objects import Place, at


class GiveUpError(ValueError):
    """A location cannot be given up; the message says why and what to do."""


def _file(store: Place) -> Place:
    return store / "_plan" / "given-up.json"


def given_up(store: str | Place) -> frozenset[int]:
    """The locations given up so far; raises GiveUpError where the record is damaged."""
    file = _file(at(store))
    try:
        return frozenset(int(location_id) for location_id in json.loads(file.read_bytes()))
    except FileNotFoundError:
        return frozenset()
    except (ValueError, TypeError) as error:
        raise GiveUpError(f"{file} is damaged; restore it from a copy, or write the list of ids anew") from error


def give_up(store: Place, location_ids: Iterable[int], shard_of: Mapping[int, int | None]) -> None:
    """Record that these locations are to be gone past.

    ``shard_of`` names the shard of every location with a row, and None for those without that could not be resolved.
    Those that are recorded already are left as they are. Raises GiveUpError for a location without a row or in a
    committed shard, and ShardLocked while somebody works on one of the shards; then none is recorded.
    """
    with exclusive(store / "_plan" / "given-up.lock") as renew, ExitStack() as locked:
        known = given_up(store)
        wanted = set(location_ids) - known
        for location_id in sorted(wanted - set(shard_of)):
            raise GiveUpError(
                f"location {location_id} has no row of {store}, so there is nothing to give up; "
                "give up those that a collection named"
            )
        concerned = {shard for location_id in wanted if (shard := shard_of[location_id]) is not None}
        for shard in sorted(concerned):
            locked.enter_context(shards.lock(store, shard))
        committed = shards.committed(store)
        for location_id in sorted(wanted):
            if shard_of[location_id] in committed:
                raise GiveUpError(
                    f"location {location_id} is in shard {shard_of[location_id]}, which is committed and never "
                    "rewritten; leave it out of --give-up"
                )
        if wanted:
            renew()
            write_atomic(_file(store), (json.dumps(sorted(known | wanted)) + "\n").encode())
