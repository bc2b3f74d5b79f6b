"""MP-MAE: read the store, mask, encode, predict every modality, and measure what the encoder learned.

encoder = mmearth_train.load_encoder("runs/all/encoder.safetensors")
features = encoder.features(images, level)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmearth_train.pretrained import PretrainedEncoder, load_encoder, random_encoder

# OpenMP reads this when torch is loaded. Threads that spin at every barrier cost a trainer with busy neighbours
# (an emulator, a server, a desktop) most of its speed: 8 times on two cores that others use as well.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["PretrainedEncoder", "load_encoder", "random_encoder"]


def __getattr__(name: str) -> object:
    """Import torch when an encoder is asked for, not when a report's section is."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmearth_train import pretrained

    return getattr(pretrained, name)
