"""Collecting: resolve the plan's batches, then fetch, check and write one shard at a time.

A location gives way only to what the archive or the pixels say; a request that keeps failing fails its shard, which
stays uncommitted and is collected again on the next run.
"""

from mmearth_data.collection.requests import Retry
from mmearth_data.collection.resolving import resolve_plan
from mmearth_data.collection.shard import ShardReport, collect_shard

__all__ = ["Retry", "ShardReport", "collect_shard", "resolve_plan"]
