"""Nearest neighbours in feature space: what the features tell without any training."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 20
_CHUNK = 2048
"""Query rows compared at a time, which bounds memory at chunk × training rows."""
_CLOSEST = 1e-12
"""Cosine distances are taken as at least this, so that an exact copy weighs much but finitely."""


def neighbour_average(train: Tensor, values: Tensor, query: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Mean of ``values`` (n, outputs) over the k training rows nearest to each query row, (m, features) → (m, outputs).

    Nearness is cosine distance; a neighbour weighs 1 ÷ distance. With fewer than k training rows all are neighbours.
    With one-hot values the result is each class's share of the weight.
    """
    reference = torch.nn.functional.normalize(train, dim=1)
    found = []
    for chunk in torch.split(query, _CHUNK):
        distance = 1.0 - torch.nn.functional.normalize(chunk, dim=1) @ reference.T
        nearest = distance.topk(min(k, len(train)), dim=1, largest=False)
        weight = 1.0 / nearest.values.clamp_min(_CLOSEST)
        weight = weight / weight.sum(dim=1, keepdim=True)
        found.append(torch.einsum("mk,mko->mo", weight, values[nearest.indices]))
    return torch.cat(found)
