"""The plain way to compute MP-MAE, as MMEarth's published code does: the baseline of the trainer's benchmarks.

Every site is computed and hidden ones are blanked after every layer; the decoder's block runs once for each modality;
all patches are predicted and the hidden ones judged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmearth_train.decoder import WIDTH, Decoder
from mmearth_train.encoder import SIZES, Block, Encoder
from mmearth_train.model import MPMAE
from mmearth_train.sites import EPS


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DenseBlock(nn.Module):
    """ConvNeXt V2 block on the whole grid; ``seen`` (N, 1, H, W) is 0 where sites are hidden."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1, self.pwconv2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma, self.beta = (nn.Parameter(torch.zeros(4 * channels)) for _ in range(2))

    def take(self, block: Block) -> None:
        """The weights of the same block of the compact model."""
        for layer, theirs in (
            (self.dwconv, block.dwconv),
            (self.norm, block.norm),
            (self.pwconv1, block.pwconv1),
            (self.pwconv2, block.pwconv2),
        ):
            layer.load_state_dict(theirs.state_dict())
        self.gamma.copy_(block.grn.gamma)
        self.beta.copy_(block.grn.beta)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Same shape, hidden sites zero."""
        mask = seen.permute(0, 2, 3, 1)
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1)) * mask
        y = functional.gelu(self.pwconv1(y)) * mask
        norm = y.norm(dim=(1, 2), keepdim=True)
        y = self.gamma * (y * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + self.beta + y
        return (x + self.pwconv2(y * mask).permute(0, 3, 1, 2)) * seen


class Dense(nn.Module):
    """The same architecture, tasks and weights as ``compact`` (of the preset ``default``), computed the plain way."""

    def __init__(self, compact: MPMAE) -> None:
        super().__init__()
        spec = compact.spec
        depths, width = SIZES[spec.model]
        self.compact, self.patch = [compact], spec.patch
        stride = spec.patch // 8
        self.initial = nn.Sequential(nn.Conv2d(12, width, 3, padding=1), ChannelNorm(width), nn.GELU())
        self.stem = nn.Sequential(nn.Conv2d(width, width, stride, stride, groups=width), ChannelNorm(width))
        widths = [width * 2**i for i in range(4)]
        self.downsamples = nn.ModuleList(nn.Sequential(ChannelNorm(w), nn.Conv2d(w, 2 * w, 2, 2)) for w in widths[:-1])
        self.stages = nn.ModuleList(
            nn.ModuleList(DenseBlock(w) for _ in range(d)) for w, d in zip(widths, depths, strict=True)
        )
        self.project, self.token = nn.Conv2d(widths[-1], WIDTH, 1), nn.Parameter(torch.zeros(WIDTH))
        self.block, self.norm = DenseBlock(WIDTH), nn.LayerNorm(WIDTH, eps=EPS)
        self.heads = nn.ModuleDict({t.task.name: nn.Linear(WIDTH, t.width) for t in compact.task_targets})
        self.log_vars = nn.Parameter(torch.zeros(len(self.heads)))
        with torch.no_grad():
            self._take_encoder(compact.encoder)
            self._take_decoder(compact.decoder)
            self.log_vars.copy_(compact.log_vars)

    def _take_encoder(self, encoder: Encoder) -> None:
        for layer, theirs in zip(
            (*self.initial[:2], *self.stem),
            (encoder.initial_conv, encoder.initial_norm, encoder.stem, encoder.stem_norm),
            strict=True,
        ):
            layer.load_state_dict(theirs.state_dict())
        for (norm, reduce), theirs in zip(self.downsamples, encoder.downsamples, strict=True):
            norm.load_state_dict(theirs.norm.state_dict())
            reduce.weight.copy_(theirs.reduce.weight.view(len(reduce.weight), 2, 2, -1).permute(0, 3, 1, 2))
            reduce.bias.copy_(theirs.reduce.bias)
        for blocks, theirs in zip(self.stages, encoder.stages, strict=True):
            for block, other in zip(blocks, theirs, strict=True):
                block.take(other)

    def _take_decoder(self, decoder: Decoder) -> None:
        self.project.weight.copy_(decoder.project.weight[..., None, None])
        self.project.bias.copy_(decoder.project.bias)
        self.token.copy_(decoder.mask_token)
        self.block.take(decoder.block)
        if decoder.image_norm is not None:
            self.norm.load_state_dict(decoder.image_norm.state_dict())
        for fused, widths in (
            (decoder.pixel_heads, decoder.pixel_widths),
            (decoder.image_heads, decoder.image_widths),
        ):
            first = 0
            for name, width in widths.items():
                part = slice(first, first + width)
                head = self.heads[name]
                head.weight.copy_(fused.weight[part])
                head.bias.copy_(fused.bias[part])
                first += width

    def forward(self, batch: dict[str, Tensor], visible: Tensor) -> Tensor:
        """The objective of a batch."""
        compact, n = self.compact[0], len(visible)
        seen = torch.zeros(n, 49, device=visible.device).scatter_(1, visible, 1.0).view(n, 1, 7, 7)
        x = compact.images(batch).contiguous() * functional.interpolate(seen, scale_factor=self.patch)
        x = self.initial(x) * functional.interpolate(seen, scale_factor=self.patch)
        x = self.stem(x) * functional.interpolate(seen, scale_factor=8)
        for i, blocks in enumerate(self.stages):
            here = functional.interpolate(seen, scale_factor=8 // 2**i)
            x = self.downsamples[i - 1](x) * here if i else x
            for block in blocks:
                x = block(x, here)
        x = self.project(x) * seen + self.token[:, None, None] * (1 - seen)
        hidden, everywhere = 1 - seen.flatten(1), torch.arange(49, device=visible.device).expand(n, -1)
        losses = []
        for target in compact.task_targets:
            decoded = self.block(x, torch.ones_like(seen)).permute(0, 2, 3, 1).flatten(1, 2)
            values, valid = target(batch, everywhere)
            if target.task.modality.scope == "image":
                prediction = self.heads[target.task.name](self.norm(decoded).mean(1))
                total, count = target.compare(prediction, values, valid)
            else:
                judged = hidden.bool().view(n, 49, 1, 1)
                if valid is None:
                    values = torch.where(judged, values, -1)
                else:
                    valid = valid & judged[..., None]
                total, count = target.compare(self.heads[target.task.name](decoded), values, valid)
            losses.append(total / count.clamp(min=1))
        weighted = torch.exp(-self.log_vars) * torch.stack(losses) + self.log_vars
        return weighted.sum()
