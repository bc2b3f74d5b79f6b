"""One ConvNeXt V2 block over the grid of patches, run once for all tasks, and one fused matrix product per scope."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from mmearth_train.encoder import Block, initialise
from mmearth_train.layer_norm import LayerNorm
from mmearth_train.sites import EPS, Sites
from mmearth_train.variant import MENDED, Variant

WIDTH = 512


class Decoder(nn.Module):
    """From the vectors of visible patches to predictions for every task (MMEarth, section 4; He et al. 2022).

    ``pixel_widths`` and ``image_widths`` are the heads' numbers of rows, by task name; the rows of all heads of a
    scope lie in one matrix in that order. Pixel heads see masked patches alone, image heads the mean over all patches.
    """

    def __init__(
        self, channels: int, pixel_widths: dict[str, int], image_widths: dict[str, int], variant: Variant = MENDED
    ) -> None:
        super().__init__()
        self.pixel_widths, self.image_widths = pixel_widths, image_widths
        self.project = nn.Linear(channels, WIDTH)
        self.mask_token = nn.Parameter(torch.empty(WIDTH))
        self.block = Block(WIDTH, variant.dense_response)
        self.pixel_heads = nn.Linear(WIDTH, sum(pixel_widths.values())) if pixel_widths else None
        self.image_norm = LayerNorm(WIDTH, eps=EPS) if image_widths else None
        self.image_heads = nn.Linear(WIDTH, sum(image_widths.values())) if image_widths else None
        initialise(self)
        if variant.init == "published":
            initialise_as_published(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        features: Float[Tensor, "N K C"],
        visible: Integer[Tensor, "N K"],
        masked: Integer[Tensor, "N M"],
    ) -> dict[str, Tensor]:
        """Predictions by task name: (N, M, width) for pixel tasks, (N, width) for image tasks."""
        n, patches = len(visible), visible.shape[1] + masked.shape[1]
        first = torch.arange(n, device=visible.device)[:, None] * patches
        x = self.project(features)
        tokens = self.mask_token.to(x.dtype).expand(n * patches, -1)
        tokens = tokens.index_copy(0, (first + visible).flatten(), x.flatten(0, 1))
        everywhere = Sites(torch.arange(patches, device=visible.device).expand(n, -1), round(patches**0.5))
        decoded = self.block(tokens.view(n, patches, 1, 1, WIDTH), everywhere).view(n * patches, WIDTH)
        result: dict[str, Tensor] = {}
        if self.pixel_heads is not None:
            rows = decoded.index_select(0, (first + masked).flatten()).view(*masked.shape, WIDTH)
            widths = list(self.pixel_widths.values())
            result |= zip(self.pixel_widths, self.pixel_heads(rows).split(widths, -1), strict=True)
        if self.image_heads is not None and self.image_norm is not None:
            pooled = self.image_norm(decoded).view(n, patches, WIDTH).mean(1)
            widths = list(self.image_widths.values())
            result |= zip(self.image_widths, self.image_heads(pooled).split(widths, -1), strict=True)
        return result


def initialise_as_published(decoder: Decoder) -> None:
    """The wide start of MMEarth's published code (std 0.88) for the layers that are convolutions there."""
    wide = [decoder.project, decoder.block.dwconv, decoder.pixel_heads]
    for layer in wide:
        if layer is not None:
            nn.init.trunc_normal_(layer.weight)
