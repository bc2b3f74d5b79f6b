"""The pretraining objective from its definition, site by site in float64, for tests to hold the trainer to.

It takes plain values, weights by name among them, and looks classes, scopes and no-data up in the registry of
modalities; it shares no code with what it judges.

It keeps a table of occupied coordinates, as sparse convolution libraries do: a site is a coordinate, a convolution
looks its neighbours up one by one, and what is not in the table does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES, Modality

Weights = dict[str, Tensor]
Coordinates = list[tuple[int, int, int]]
"""Sample, row, column of each site."""
Rows = tuple[tuple[float, ...], ...]
"""Numbers of each band: a row for each level, or a single one."""


class Statistics(NamedTuple):
    """What stored values are standardised by, as float32 holds it."""

    mean: Rows
    std: Rows

    def standardise(self, stored: Tensor, level: int) -> Tensor:
        """Of values (…, bands) of an image of this level."""
        mean, std = (torch.tensor(rows, dtype=torch.float32).double() for rows in self)
        row = level if len(mean) > 1 else 0
        return (stored - mean[row]) / std[row]


@dataclass(frozen=True)
class Objective:
    """What is computed of which weights: ``patch`` is pixels on a patch's side, ``bands`` and ``statistics`` the input.

    ``tasks`` are the modalities that are predicted, each with its statistics (of classes they are not looked at).
    ``scope`` says over whose sites the encoder normalises responses, with ``eps``; the decoder's are per sample, with
    ``decoder_eps``. With ``fill`` pixels without data are targets of 0.
    """

    patch: int
    bands: tuple[str, ...]
    statistics: Statistics
    tasks: dict[str, Statistics]
    scope: Literal["sample", "batch"]
    eps: float
    decoder_eps: float
    fill: bool

    def images(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """The standardised input, (bands, H, W) each; NaN where there is no data."""
        rows = [MODALITIES["sentinel2"].bands.index(band) for band in self.bands]
        found = []
        for stored, level in zip(batch["sentinel2"], batch["level"].tolist(), strict=True):
            values = stored.double()[rows].movedim(0, -1)
            values = torch.where(values == 0, torch.nan, self.statistics.standardise(values, level))
            found.append(values.movedim(-1, 0))
        return found

    def features(self, batch: dict[str, Tensor], visible: np.ndarray, weights: Weights) -> Tensor:
        """Vectors (N, K, C) of the patches (N, K) that are visible, in that order."""
        images = torch.stack(self.images(batch)).nan_to_num(0.0)
        x, sites = stem(images, visible, self.patch, weights)
        for stage in range(4):
            if stage:
                name = f"encoder.downsamples.{stage - 1}"
                x = layer_norm(x, weights, f"{name}.norm")
                x, sites = join(x, sites, weights[f"{name}.reduce.weight"], weights[f"{name}.reduce.bias"])
            around = neighbours(sites, 7)
            groups = by_sample(sites) if self.scope == "sample" else [list(range(len(sites)))]
            depth = len({key.split(".")[3] for key in weights if key.startswith(f"encoder.stages.{stage}.")})
            for index in range(depth):
                x = block(x, around, groups, self.eps, weights, f"encoder.stages.{stage}.{index}")
        return x.view(*visible.shape, -1)

    def loss(self, batch: dict[str, Tensor], visible: np.ndarray, weights: Weights) -> Tensor:
        """What is minimised: of each task the mean over its targets, weighted by its log-variance."""
        features = self.features(batch, visible, weights)
        side = batch["sentinel2"].shape[-1] // self.patch
        shown = [[int(v) for v in row] for row in visible]
        decoded = [decode(f, row, side, weights, self.decoder_eps) for f, row in zip(features, shown, strict=True)]
        stored = {name: list(batch[name].double()) for name in self.tasks} | {"sentinel2": self.images(batch)}
        if self.fill:
            stored["sentinel2"] = [image.nan_to_num(0.0) for image in stored["sentinel2"]]
        first = {"pixel": 0, "image": 0}
        total = torch.zeros((), dtype=torch.float64)
        for index, name in enumerate(self.tasks):
            modality, outputs = MODALITIES[name], self.outputs(name)
            pixel = modality.scope == "pixel"
            width = outputs * self.patch**2 if pixel else outputs
            part = slice(first[modality.scope], first[modality.scope] + width)
            first[modality.scope] += width
            weight = weights[f"decoder.{modality.scope}_heads.weight"][part]
            bias = weights[f"decoder.{modality.scope}_heads.bias"][part]
            terms: list[Tensor] = []
            for i, row in enumerate(shown):
                if not pixel:
                    tokens = layer_norm(decoded[i], weights, "decoder.image_norm").mean(0)
                    terms += self.compare(name, stored[name][i], weight @ tokens + bias)
                    continue
                for patch in sorted(set(range(side**2)) - set(row)):
                    y, x = patch // side * self.patch, patch % side * self.patch
                    cut = stored[name][i][:, y : y + self.patch, x : x + self.patch].permute(1, 2, 0)
                    prediction = (weight @ decoded[i][patch] + bias).view(self.patch, self.patch, outputs)
                    terms += self.compare(name, cut, prediction)
            values = torch.cat([t.flatten() for t in terms])
            if len(values):
                s = weights["log_vars"][index]
                total = total + torch.exp(-s) * values.mean() + s
        return total

    def outputs(self, name: str) -> int:
        """Numbers that are predicted for a pixel, or for an image."""
        modality = MODALITIES[name]
        bands = self.bands if name == "sentinel2" else modality.bands
        return len(modality.class_values) if modality.kind == "categorical" else len(bands)

    def compare(self, name: str, stored: Tensor, prediction: Tensor) -> list[Tensor]:
        """Losses of the values that are data, or of all pixels with 0 in place of what is not."""
        modality = MODALITIES[name]
        if modality.kind == "categorical":
            return [cross_entropy(stored, prediction, [int(v) for v in modality.class_values])]
        if name == "sentinel2":
            known = ~stored.isnan()
            target = (stored - stored[known].mean()) / (stored[known].var(unbiased=True) + 1e-6) ** 0.5
        else:
            known, target = is_data(stored, modality), self.tasks[name].standardise(stored, 0)
        if self.fill and modality.scope == "pixel":
            return [(prediction - torch.where(known, target, 0.0)) ** 2]
        return [(prediction[known] - target[known]) ** 2]


def is_data(stored: Tensor, modality: Modality) -> Tensor:
    return ~stored.isnan() if np.isnan(modality.nodata) else stored != modality.nodata


def cross_entropy(stored: Tensor, prediction: Tensor, classes: list[int]) -> Tensor:
    log_p = (prediction - torch.logsumexp(prediction, -1, keepdim=True)).reshape(-1, len(classes))
    number = {value: index for index, value in enumerate(classes)}
    found = [(row, number[int(v)]) for row, v in enumerate(stored.flatten().tolist()) if v in number]
    return -log_p[[row for row, _ in found], [index for _, index in found]]


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + 1e-6) ** 0.5 * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def neighbours(sites: Coordinates, kernel: int) -> Tensor:
    """For each site and kernel cell the neighbour's row, or the row after the last where there is none."""
    table = {site: row for row, site in enumerate(sites)}
    reach = range(-(kernel // 2), kernel // 2 + 1)
    return torch.tensor(
        [[table.get((n, y + dy, x + dx), len(sites)) for dy in reach for dx in reach] for n, y, x in sites]
    )


def respond(y: Tensor, groups: list[list[int]], eps: float) -> Tensor:
    """‖y‖ of each channel over a group of rows, relative to the mean of all channels, for each row.

    A channel of zeros stays one under small changes of the others: its norm is 0 with a gradient of 0.
    """
    relative = torch.zeros_like(y)
    for rows in groups:
        square = (y[rows] ** 2).sum(0)
        norm = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
        relative[rows] = norm / (norm.mean() + eps)
    return relative


def block(x: Tensor, around: Tensor, groups: list[list[int]], eps: float, weights: Weights, name: str) -> Tensor:
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    kernel = weights[f"{name}.dwconv.weight"].flatten(1).T
    y = (padded[around] * kernel).sum(1) + weights[f"{name}.dwconv.bias"]
    y = layer_norm(y, weights, f"{name}.norm")
    y = gelu(y @ weights[f"{name}.pwconv1.weight"].T + weights[f"{name}.pwconv1.bias"])
    y = y * respond(y, groups, eps) * weights[f"{name}.grn.gamma"] + weights[f"{name}.grn.beta"] + y
    return x + y @ weights[f"{name}.pwconv2.weight"].T + weights[f"{name}.pwconv2.bias"]


def by_sample(sites: Coordinates) -> list[list[int]]:
    return [[row for row, site in enumerate(sites) if site[0] == n] for n in sorted({site[0] for site in sites})]


def stem(images: Tensor, visible: np.ndarray, patch: int, weights: Weights) -> tuple[Tensor, Coordinates]:
    """Images (N, bands, H, W) to 8 × 8 sites of each visible patch, patch by patch."""
    side = images.shape[-1] // patch
    corners = [(n, int(v) // side * patch, int(v) % side * patch) for n, row in enumerate(visible) for v in row]
    sites = [(n, y + i, x + j) for n, y, x in corners for i in range(patch) for j in range(patch)]
    pixels = torch.stack([images[n, :, y, x] for n, y, x in sites])
    padded = torch.cat([pixels, pixels.new_zeros(1, pixels.shape[1])])
    kernel = weights["encoder.initial_conv.weight"].permute(2, 3, 1, 0).flatten(0, 1)
    x = torch.einsum("skb,kbc->sc", padded[neighbours(sites, 3)], kernel) + weights["encoder.initial_conv.bias"]
    x = gelu(layer_norm(x, weights, "encoder.initial_norm"))
    x, sites = pool(x, sites, patch // 8, weights["encoder.stem.weight"][:, 0], weights["encoder.stem.bias"])
    return layer_norm(x, weights, "encoder.stem_norm"), sites


def children(sites: Coordinates, factor: int) -> dict[tuple[int, int, int], dict[tuple[int, int], int]]:
    """Rows of the sites below each coarser site, by their place in it."""
    found: dict[tuple[int, int, int], dict[tuple[int, int], int]] = {}
    for row, (n, y, x) in enumerate(sites):
        found.setdefault((n, y // factor, x // factor), {})[y % factor, x % factor] = row
    return found


def pool(x: Tensor, sites: Coordinates, factor: int, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Coordinates]:
    below = children(sites, factor)
    places = {(i, j) for cell in below.values() for i, j in cell}
    parts = [x[[cell[i, j] for cell in below.values()]] * kernel[:, i, j] for i, j in places]
    return torch.stack(parts).sum(0) + bias, list(below)


def join(x: Tensor, sites: Coordinates, weight: Tensor, bias: Tensor) -> tuple[Tensor, Coordinates]:
    below = children(sites, 2)
    kernel = weight.view(len(weight), 2, 2, -1)
    places = {(i, j) for cell in below.values() for i, j in cell}
    parts = [x[[cell[i, j] for cell in below.values()]] @ kernel[:, i, j].T for i, j in places]
    return torch.stack(parts).sum(0) + bias, list(below)


def decode(features: Tensor, visible: list[int], side: int, weights: Weights, eps: float) -> Tensor:
    """The decoder's output (side², width) of one image."""
    projected = features @ weights["decoder.project.weight"].T + weights["decoder.project.bias"]
    token = weights["decoder.mask_token"]
    rows = [projected[visible.index(p)] if p in visible else token for p in range(side**2)]
    grid = [(0, p // side, p % side) for p in range(side**2)]
    return block(torch.stack(rows), neighbours(grid, 7), [list(range(side**2))], eps, weights, "decoder.block")


class AdamW:
    """By its definition (Loshchilov & Hutter 2019, algorithm 2), with β of 0.9 and 0.95 and ε of 1e-8."""

    def __init__(self, weights: Weights, decay: dict[str, float]) -> None:
        self.weights, self.decay, self.steps = weights, decay, 0
        self.moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the weights against their gradients, which are forgotten."""
        self.steps += 1
        for name, w in self.weights.items():
            first, second = self.moments[name]
            first.mul_(0.9).add_(w.grad, alpha=0.1)
            second.mul_(0.95).addcmul_(w.grad, w.grad, value=0.05)
            w *= 1 - rate * self.decay[name]
            spread = (second / (1 - 0.95**self.steps)).sqrt_().add_(1e-8)
            w.addcdiv_(first, spread, value=-rate / (1 - 0.9**self.steps))
            w.grad = None
