"""Whether a collected store still has to be finalised."""

from __future__ import annotations

from pathlib import Path

from mmearth_data.store.commits import committed, record_file
from mmearth_data.store.layout import STATISTICS


def is_finalized(store: str | Path) -> bool:
    """Whether the statistics were made after the last shard was committed, going by the files' times."""
    shards = committed(store)
    try:
        made = (Path(store) / STATISTICS).stat().st_mtime
    except FileNotFoundError:
        return False
    return all(record_file(store, shard).stat().st_mtime <= made for shard in shards)
