"""Where the mended model and the one that MMEarth published differ: a choice for each difference, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Scope = Literal["sample", "batch"]


class Response(NamedTuple):
    """How responses are normalised: over the sites of each sample or of the batch, with ε added to the mean norm."""

    scope: Scope = "sample"
    eps: float = 1e-6


@dataclass(frozen=True)
class Variant:
    """What MMEarth's published code does otherwise than this model does by default; part of every file of weights.

    The defaults are the mended choices. The published ones are those of the code beside Nedungadi et al. 2024.
    """

    grn: Scope = "sample"
    """The encoder normalises responses over each sample's visible sites, or in pretraining over those of the whole
    batch that a process computes at once, so that what a sample becomes depends on its neighbours (published). The
    published decoder and fine-tuned encoder do so per sample, with an ε of 1e-4 instead of 1e-6."""
    nodata: Literal["excluded", "zero"] = "excluded"
    """A continuous pixel without data is no target, or its target is 0, the mean of its band (published)."""
    init: Literal["small", "published"] = "small"
    """Weights start with a standard deviation of 0.02, or with 0.88 in the encoder's depthwise and pointwise layers,
    the projection, the decoder's depthwise layer and the pixel heads: pixel losses then start near 22, not 1."""
    decay: Literal["matrices", "published"] = "matrices"
    """Weight decay spares every vector, or it takes those of GRN and the mask token in (published)."""
    weighting: Literal["uncertainty", "equal"] = "uncertainty"
    """Tasks are weighted by learnt log-variances (published), or their mean losses are added."""

    @property
    def visible_response(self) -> Response:
        """Of the encoder in pretraining."""
        return Response(self.grn)

    @property
    def dense_response(self) -> Response:
        """Of the decoder, and of the encoder on whole images."""
        return Response(eps=1e-4) if self.grn == "batch" else Response()


MENDED = Variant()
VARIANTS: dict[str, Variant] = {
    "default": MENDED,
    "demo": MENDED,
    "reference": Variant(grn="batch", nodata="zero", init="published", decay="published"),
}
"""The model of each preset."""
