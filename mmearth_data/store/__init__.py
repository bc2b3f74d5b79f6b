"""One Zarr v3 group for every modality, committed shard by shard.

Writing: ``layout`` makes and grows a store, ``shards`` commits, ``consolidation`` gathers. Reading: ``open_store``.
"""

from mmearth_data.store.consolidation import consolidate
from mmearth_data.store.files import StoreError
from mmearth_data.store.reader import Store, open_store

__all__ = ["Store", "StoreError", "consolidate", "open_store"]
