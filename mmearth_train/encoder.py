"""Masked ConvNeXt V2 that computes visible patches only; with every patch visible it is the dense network.

Each sample keeps exactly K patches, so at stage i the visible sites are one dense tensor (N, K, s, s, C) with
s = 8, 4, 2, 1. Only the 3×3 stem convolution and the 7×7 depthwise ones look beyond a patch: sites are scattered to a
zero-filled grid, convolved, and gathered again; everything else stays inside its patch. A masked site is therefore
zero at every layer (submanifold semantics) without ever being computed.

Architecture: ConvNeXt V2 (Woo et al. 2023) with the stem of MMEarth (Nedungadi et al. 2024): 3×3 convolution, layer
norm, GELU, then a depthwise convolution of size and stride patch/8. Padding is "same" everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from mmearth_train.depthwise import depthwise
from mmearth_train.layer_norm import LayerNorm
from mmearth_train.sites import EPS, ResponseNorm, Sites, gather, scatter
from mmearth_train.variant import MENDED, Response, Variant

STAGES = 4
Stem = Literal["same", "published"]

SIZES: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "huge": ((3, 3, 27, 3), 352),
}
"""Blocks per stage and channels of the first stage (they double from stage to stage), Woo et al. 2023, table 9."""


class UnknownModelError(ValueError):
    """The size is not one of ``SIZES``; the message lists them."""


class DepthwiseConv(nn.Module):
    """7×7 depthwise convolution over visible sites; absent neighbours count as zero."""

    def __init__(self, channels: int, kernel: int = 7) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "N K s s C"], sites: Sites) -> Float[Tensor, "N K s s C"]:
        """Convolve; autocast is resolved here because a custom operation does not see it."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        y: Tensor = depthwise(x.to(dtype), self.weight.to(dtype), sites.visible, sites.side)
        return y + self.bias.to(y.dtype)


class GRN(nn.Module):
    """Global response normalisation over visible sites (Woo et al. 2023, section 3.2).

    ``response`` says whose, each sample's own or those of the batch together, and ε.
    """

    def __init__(self, channels: int, response: Response = MENDED.visible_response) -> None:
        super().__init__()
        self.response = response
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N K s s C"]) -> Float[Tensor, "N K s s C"]:
        """Returns x · (1 + γ · ‖x‖ / (mean‖x‖ + ε)) + β, the norm taken per channel."""
        sites = x.flatten(1, 3) if self.response.scope == "sample" else x.flatten(0, 3)[None]
        y: Tensor = ResponseNorm.apply(sites, self.gamma, self.beta, self.response.eps)  # type: ignore[no-untyped-call]
        return y.view(x.shape)


class Block(nn.Module):
    """ConvNeXt V2 block on visible sites: depthwise 7×7, norm, expand ×4, GELU, GRN, contract, residual."""

    def __init__(self, channels: int, response: Response = MENDED.visible_response) -> None:
        super().__init__()
        self.dwconv = DepthwiseConv(channels)
        self.norm = LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = GRN(4 * channels, response)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Float[Tensor, "N K s s C"], sites: Sites) -> Float[Tensor, "N K s s C"]:
        """Sites in, sites out, same shape."""
        y = self.norm(self.dwconv(x, sites))
        y = self.grn(functional.gelu(self.pwconv1(y)))
        result: Tensor = x + self.pwconv2(y)
        return result


class Downsample(nn.Module):
    """Layer norm, then a 2×2 convolution of stride 2, which never leaves a patch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels, eps=EPS)
        self.reduce = nn.Linear(4 * channels, 2 * channels)

    def forward(self, x: Float[Tensor, "N K s s C"]) -> Float[Tensor, "N K t t D"]:
        """Sites of side s in, of side t = s/2 with D = 2·C channels out; inputs are ordered (row, column, channel)."""
        quads = cells(self.norm(x), 2).transpose(3, 4)
        result: Tensor = self.reduce(quads.flatten(4))
        return result


class Encoder(nn.Module):
    """From images and the indices of their visible patches to one vector per visible patch.

    ``dense`` is for whole images, where the published variant normalises responses otherwise than in pretraining.
    """

    def __init__(self, size: str, bands: int, patch: int, variant: Variant = MENDED, dense: bool = False) -> None:
        super().__init__()
        if size not in SIZES:
            raise UnknownModelError(f"unknown model {size!r}; choose from: {', '.join(SIZES)}")
        depths, width = SIZES[size]
        response = variant.dense_response if dense else variant.visible_response
        self.patch = patch
        self.stride = patch // 2 ** (STAGES - 1)
        self.channels = width * 2 ** (STAGES - 1)
        self.initial_conv = nn.Conv2d(bands, width, 3, padding=1)
        self.initial_norm = LayerNorm(width, eps=EPS)
        self.stem = nn.Conv2d(width, width, self.stride, self.stride, groups=width)
        self.stem_norm = LayerNorm(width, eps=EPS)
        self.downsamples = nn.ModuleList(Downsample(width * 2**i) for i in range(STAGES - 1))
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(width * 2**i, response) for _ in range(depth)) for i, depth in enumerate(depths)
        )
        initialise(self)
        if variant.init == "published":
            initialise_as_published(self)
            return
        # A depthwise kernel of one pixel is a plain scale per channel: start near the mean of what it covers.
        nn.init.normal_(self.stem.weight, mean=1 / self.stride**2, std=0.02)

    def forward(self, images: Float[Tensor, "N B H H"], visible: Integer[Tensor, "N K"]) -> Float[Tensor, "N K C"]:
        """Features of the visible patches; ``images`` hold normalised bands, whatever masked patches contain."""
        sites = Sites(visible, images.shape[-1] // self.patch)
        *_, last = self._stages(self._stem(images, sites, "same"), sites)
        return last[:, :, 0, 0]

    def maps(self, images: Float[Tensor, "N B H W"], stem: Stem = "same") -> tuple[Float[Tensor, "N C h w"], ...]:
        """Feature maps of whole images after each of the four stages: the dense network of the same weights.

        With patches of p pixels h = 8H/p, 4H/p, 2H/p, H/p and C doubles. H and W are multiples of p, unless ``stem`` is
        that of MMEarth's published classifier, which does not pad the 3×3 convolution: maps then shrink and shift.
        """
        sites = Sites.whole(images)
        stages = self._stages(self._stem(images, sites, stem), sites)
        return tuple(x[:, 0].permute(0, 3, 1, 2) for x in stages)

    def _stages(self, x: Float[Tensor, "N K s s C"], sites: Sites) -> Iterator[Float[Tensor, "N K t t D"]]:
        """What comes out of each stage."""
        for i, blocks in enumerate(self.stages):
            if i:
                x = self.downsamples[i - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, sites)
            yield x

    def _stem(self, images: Float[Tensor, "N B H W"], sites: Sites, stem: Stem) -> Float[Tensor, "N K s s C"]:
        """Masked pixels are blanked before the 3×3 convolution can see them; s = 8."""
        pixels = scatter(gather(images.permute(0, 2, 3, 1), sites, self.patch), sites).permute(0, 3, 1, 2)
        weight, bias = self.initial_conv.parameters()
        grid = functional.conv2d(pixels, weight, bias, padding=1 if stem == "same" else 0)
        x = gather(grid.permute(0, 2, 3, 1), sites, self.patch)
        x = functional.gelu(self.initial_norm(x))
        if stem == "published":
            x = functional.pad(x, (0, 0, *(self.stride // 2,) * 4))
        weight, bias = self.stem.parameters()
        kernel = weight[:, 0].permute(1, 2, 0)
        pooled: Tensor = self.stem_norm((cells(x, self.stride) * kernel[:, None]).sum((3, 5)) + bias)
        return pooled


def cells(x: Float[Tensor, "N K h w C"], side: int) -> Float[Tensor, "N K i side j side C"]:
    """Sites in cells of ``side`` × ``side``, what does not fill one left out."""
    n, k, h, w, c = x.shape
    i, j = h // side, w // side
    return x[:, :, : i * side, : j * side].reshape(n, k, i, side, j, side, c)


def initialise(module: nn.Module) -> None:
    """Truncated normal weights (std 0.02) and zero biases for every linear and convolutional layer inside."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_as_published(encoder: Encoder) -> None:
    """The wide start of MMEarth's published code: std 0.88 (unit normal cut at ±2) for depthwise and linear layers."""
    nn.init.trunc_normal_(encoder.stem.weight)
    for layer in encoder.stages.modules():
        if isinstance(layer, nn.Linear | DepthwiseConv):
            nn.init.trunc_normal_(layer.weight)
