"""The compact model against a per-site definition in float64.

They share weights, the specification (bands, patch, statistics, the tasks' widths) and the registry's classes and
no-data; the features are also of the same normalised images.

The definition keeps a table of occupied coordinates, as sparse convolution libraries do: a site is a coordinate, a
convolution looks its neighbours up one by one, and what is not in the table does not exist.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE, ModelSpec
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.variant import VARIANTS
from tests.train_batches import random_batch, random_spec

Weights = dict[str, Tensor]
Coordinates = list[tuple[int, int, int]]
"""Sample, row, column of each site."""


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


def encode(images: Tensor, visible: np.ndarray, spec: ModelSpec, weights: Weights) -> Tensor:
    """Features (N, K, C) of images (N, bands, H, W), patch by patch in the order of ``visible``."""
    patch, side = spec.patch, images.shape[-1] // spec.patch
    corners = [(n, int(v) // side * patch, int(v) % side * patch) for n, row in enumerate(visible) for v in row]
    sites = [(n, y + i, x + j) for n, y, x in corners for i in range(patch) for j in range(patch)]
    pixels = torch.stack([images[n, :, y, x] for n, y, x in sites])
    padded = torch.cat([pixels, pixels.new_zeros(1, pixels.shape[1])])
    kernel = weights["encoder.initial_conv.weight"].permute(2, 3, 1, 0).flatten(0, 1)
    x = torch.einsum("skb,kbc->sc", padded[neighbours(sites, 3)], kernel) + weights["encoder.initial_conv.bias"]
    x = gelu(layer_norm(x, weights, "encoder.initial_norm"))
    x, sites = pool(x, sites, patch // 8, weights["encoder.stem.weight"][:, 0], weights["encoder.stem.bias"])
    x = layer_norm(x, weights, "encoder.stem_norm")
    for stage in range(4):
        if stage:
            name = f"encoder.downsamples.{stage - 1}"
            x = layer_norm(x, weights, f"{name}.norm")
            x, sites = join(x, sites, weights[f"{name}.reduce.weight"], weights[f"{name}.reduce.bias"])
        around = neighbours(sites, 7)
        groups = by_sample(sites) if spec.variant.grn == "sample" else [list(range(len(sites)))]
        depth = len({key.split(".")[3] for key in weights if key.startswith(f"encoder.stages.{stage}.")})
        for index in range(depth):
            x = block(x, around, groups, 1e-6, weights, f"encoder.stages.{stage}.{index}")
    return x.view(*visible.shape, -1)


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
    """The decoder's output (side², 512) of one image."""
    projected = features @ weights["decoder.project.weight"].T + weights["decoder.project.bias"]
    token = weights["decoder.mask_token"]
    rows = [projected[visible.index(p)] if p in visible else token for p in range(side**2)]
    grid = [(0, p // side, p % side) for p in range(side**2)]
    return block(torch.stack(rows), neighbours(grid, 7), [list(range(side**2))], eps, weights, "decoder.block")


def total_loss(model: MPMAE, weights: Weights, batch: dict[str, Tensor], visible: np.ndarray) -> Tensor:
    """The objective from its definition, value by value."""
    spec, n = model.spec, len(visible)
    side = batch["sentinel2"].shape[-1] // spec.patch
    mean = torch.tensor(spec.scaling.mean, dtype=torch.float32).double()
    std = torch.tensor(spec.scaling.std, dtype=torch.float32).double()
    rows = [MODALITIES["sentinel2"].bands.index(band) for band in spec.bands]
    images = []
    for i in range(n):
        level = int(batch["level"][i])
        stored = batch["sentinel2"][i].double()[rows]
        images.append(
            torch.where(stored != 0, (stored - mean[level, :, None, None]) / std[level, :, None, None], torch.nan)
        )
    features = encode(torch.stack(images).nan_to_num(0.0), visible, spec, weights)
    eps = 1e-4 if spec.variant.grn == "batch" else 1e-6
    decoded = [decode(features[i], [int(v) for v in visible[i]], side, weights, eps) for i in range(n)]
    if spec.variant.nodata == "zero":
        images = [image.nan_to_num(0.0) for image in images]
    first = {"pixel": 0, "image": 0}
    total = torch.zeros((), dtype=torch.float64)
    for index, task in enumerate(spec.tasks):
        modality, outputs = task.modality, task.outputs
        pixel = modality.scope == "pixel"
        width = outputs * spec.patch**2 if pixel else outputs
        part = slice(first[modality.scope], first[modality.scope] + width)
        first[modality.scope] += width
        weight = weights[f"decoder.{modality.scope}_heads.weight"][part]
        bias = weights[f"decoder.{modality.scope}_heads.bias"][part]
        terms: list[Tensor] = []
        for i in range(n):
            stored = images[i] if task.name == "sentinel2" else batch[task.name][i].double()
            if not pixel:
                tokens = layer_norm(decoded[i], weights, "decoder.image_norm").mean(0)
                terms += compare(task, stored, weight @ tokens + bias, fill=False)
                continue
            for patch in sorted(set(range(side**2)) - {int(v) for v in visible[i]}):
                y, x = patch // side * spec.patch, patch % side * spec.patch
                cut = stored[:, y : y + spec.patch, x : x + spec.patch].permute(1, 2, 0)
                if task.name == "sentinel2":
                    known = cut[~cut.isnan()]
                    cut = (cut - known.mean()) / (known.var(unbiased=True) + 1e-6) ** 0.5
                prediction = (weight @ decoded[i][patch] + bias).view(spec.patch, spec.patch, outputs)
                terms += compare(task, cut, prediction, fill=spec.variant.nodata == "zero")
        values = torch.cat([t.flatten() for t in terms])
        if len(values):
            s = weights["log_vars"][index]
            total = total + torch.exp(-s) * values.mean() + s
    return total


def compare(task, stored: Tensor, prediction: Tensor, fill: bool) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Losses of the values that are data, or of all values with 0 in place of what is not."""
    if task.modality.kind == "categorical":
        log_p = prediction - torch.logsumexp(prediction, -1, keepdim=True)
        classes = [int(v) for v in task.modality.class_values]
        flat, logs = stored.reshape(-1), log_p.reshape(-1, len(classes))
        rows = [k for k, v in enumerate(flat.tolist()) if v in classes]
        return [-logs[rows, [classes.index(int(flat[k])) for k in rows]]]
    if task.name == "sentinel2":
        target, known = stored, ~stored.isnan()
    else:
        known = ~stored.isnan() if np.isnan(task.modality.nodata) else stored != task.modality.nodata
        mean = torch.tensor(task.scaling.mean[0], dtype=torch.float32).double()
        target = (stored - mean) / torch.tensor(task.scaling.std[0], dtype=torch.float32).double()
    if fill:
        return [(prediction - torch.where(known, target, 0.0)) ** 2]
    return [(prediction[known] - target[known]) ** 2]


def scrambled(model: MPMAE) -> MPMAE:
    """Weights away from their start, so that GRN, norms and biases all matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


NAMES = ("sentinel2", "sentinel1", "dynamic_world", "era5", "biome", "lat")


def model_of(size: str, input_size: int, preset: str) -> MPMAE:
    torch.manual_seed(0)
    spec = replace(random_spec(input_size, NAMES, model=size), variant=VARIANTS[preset])
    return scrambled(MPMAE(spec)).double()


def batch_of(size: int) -> dict[str, Tensor]:
    batch = random_batch(2, size, seed=1)
    batch["sentinel1"][0] = MODALITIES["sentinel1"].nodata
    return batch


def patches_of(side: int, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Any ``keep`` patches of each of two samples, and the others."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(side**2), (2, 1)), axis=1)
    return np.sort(order[:, :keep]), np.sort(order[:, keep:])


@pytest.mark.parametrize(
    ("size", "input_size", "preset", "side", "keep"),
    [
        ("atto", 56, "default", 7, 19),
        ("atto", 56, "reference", 7, 19),
        ("atto", 112, "default", 7, 8),
        ("atto", 112, "reference", 7, 8),
        ("tiny", 56, "default", 2, 2),
        ("tiny", 56, "reference", 4, 6),
        ("tiny", 112, "default", 4, 6),
        ("tiny", 112, "reference", 2, 2),
    ],
)
def test_encoder_loss_and_gradients_equal_the_per_site_definition(
    size: str, input_size: int, preset: str, side: int, keep: int
) -> None:
    model, batch = model_of(size, input_size, preset), batch_of(side * input_size // 7)
    visible, masked = patches_of(side, keep)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    images = model.images(batch)
    with torch.no_grad():
        features = model.encoder(images, torch.from_numpy(visible))
        expected = encode(images, visible, model.spec, weights)
    for i in range(2):
        assert (features[i] - expected[i]).norm() <= 1e-12 * expected[i].norm()

    loss = model.objective(model(batch, torch.from_numpy(visible), torch.from_numpy(masked)))
    expected_loss = total_loss(model, weights, batch, visible)
    assert abs(loss - expected_loss) <= 1e-12 * abs(expected_loss)

    loss.backward()
    expected_loss.backward()
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - weights[name].grad).abs().max()
        assert difference <= 1e-11 * weights[name].grad.abs().max(), name


@pytest.mark.parametrize(
    ("size", "input_size", "preset", "side", "keep"),
    [
        ("atto", 56, "default", 3, 2),
        ("atto", 112, "reference", 2, 2),
        ("tiny", 56, "default", 2, 2),
    ],
)
def test_twenty_steps_of_adamw_end_at_the_same_weights(
    size: str, input_size: int, preset: str, side: int, keep: int
) -> None:
    """AdamW by its definition (Loshchilov & Hutter 2019, algorithm 2) on the per-site definition's gradients."""
    model, batch = model_of(size, input_size, preset), batch_of(side * input_size // 7)
    visible, masked = patches_of(side, keep)
    recipe = replace(RECIPES["default"], base_rate=1e-4)
    adamw = optimizer(model, model.decays, recipe)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    moments = {name: [torch.zeros_like(w), torch.zeros_like(w)] for name, w in weights.items()}
    for step in range(1, 21):
        model.objective(model(batch, torch.from_numpy(visible), torch.from_numpy(masked))).backward()
        adamw.step()
        adamw.zero_grad()
        total_loss(model, weights, batch, visible).backward()
        with torch.no_grad():
            for name, w in weights.items():
                first, second = moments[name]
                first.mul_(0.9).add_(w.grad, alpha=0.1)
                second.mul_(0.95).addcmul_(w.grad, w.grad, value=0.05)
                w *= 1 - recipe.peak_rate * 0.05 * decays(name, w, preset)
                spread = (second / (1 - 0.95**step)).sqrt_().add_(1e-8)
                w.addcdiv_(first, spread, value=-recipe.peak_rate / (1 - 0.9**step))
                w.grad = None
    for name, parameter in model.named_parameters():
        assert (parameter - weights[name]).abs().max() <= 1e-10 * weights[name].abs().max(), name


def decays(name: str, weight: Tensor, preset: str) -> bool:
    vectors = ("gamma", "beta", "mask_token") if preset == "reference" else ()
    return weight.ndim > 1 or name.endswith(vectors)


@pytest.mark.parametrize(
    ("size", "input_size", "preset", "side", "keep"),
    [
        ("atto", 56, "default", 7, 19),
        ("atto", 112, "reference", 4, 6),
        ("tiny", 56, "reference", 3, 4),
    ],
)
def test_float32_stays_within_rounding_of_float64(
    size: str, input_size: int, preset: str, side: int, keep: int
) -> None:
    torch.manual_seed(0)
    model = scrambled(MPMAE(replace(random_spec(input_size, model=size), variant=VARIANTS[preset])))
    precise = MPMAE(model.spec).double()
    precise.load_state_dict(model.state_dict())
    batch = random_batch(2, side * model.spec.patch, seed=2)
    visible, masked = map(torch.from_numpy, patches_of(side, keep))
    losses = []
    for candidate in (model, precise):
        loss = candidate.objective(candidate(batch, visible, masked))
        loss.backward()
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) <= 2e-6 * abs(losses[1])
    for (name, rough), exact in zip(model.named_parameters(), precise.parameters(), strict=True):
        assert (rough.grad - exact.grad).abs().max() <= 1e-4 * exact.grad.abs().max(), name
    with torch.no_grad():
        rough, exact = (candidate.encoder(candidate.images(batch), visible) for candidate in (model, precise))
    assert (rough - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_bfloat16_stays_close_to_float32(preset: str) -> None:
    torch.manual_seed(0)
    model, batch = MPMAE(replace(random_spec(names=NAMES), variant=VARIANTS[preset])), random_batch(4, seed=2)
    visible, masked = map(torch.from_numpy, split_patches(0, 0, np.arange(4), 49))
    losses, gradients = [], []
    for rough in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            found = model(batch, visible, masked)
        loss = model.objective(found)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) <= 1e-3 * abs(losses[1])
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) >= 0.995
