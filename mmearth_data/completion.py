"""Whether a collected store still has to be finalised."""

from __future__ import annotations

from mmearth_data.store.commits import committed, record_file
from mmearth_data.store.files import each
from mmearth_data.store.layout import STATISTICS
from mmearth_data.store.objects import Place, at


def is_finalized(store: str | Place) -> bool:
    """Whether the statistics were made after the last shard was committed, going by the files' times."""
    place, shards = at(store), committed(store)
    try:
        made = (place / STATISTICS).stat().st_mtime
    except FileNotFoundError:
        return False
    times = each(place, lambda shard: record_file(place, shard).stat().st_mtime, shards)
    return all(time <= made for time in times)
