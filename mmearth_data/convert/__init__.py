"""A store from, and to, the layouts of others: MMEarth's published HDF5, WebDataset shards, smaller tiles.

Every conversion streams shard by shard, carries on where it was killed with the same bytes as a run that was not, and
reads back what it wrote before it says that it is done. ``h5py`` is imported by the HDF5 modules alone.
"""

from __future__ import annotations
