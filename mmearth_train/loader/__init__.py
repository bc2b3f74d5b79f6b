"""Batches from the store, in an order that is a pure function of the seed and the epoch.

``order`` says which rows come when, ``samples`` decodes groups of them and writes crops into the memory that ``ring``
keeps, ``pipeline`` runs that on threads ahead of the consumer. Every row comes once in an epoch, and any batch of any
epoch can be the first one delivered.
"""

from mmearth_train.loader.derived import cyclic, read
from mmearth_train.loader.loader import Loader, scalings

__all__ = ["Loader", "cyclic", "read", "scalings"]
