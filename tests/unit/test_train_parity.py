"""The compact model against a per-site definition in float64 that shares nothing with it but weights and statistics.

The definition keeps a table of occupied coordinates, as sparse convolution libraries do: a site is a coordinate, a
convolution looks its neighbours up one by one, and what is not in the table does not exist.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from tests.train_batches import random_batch, random_spec

DEPTHS = (2, 2, 6, 2)
Coordinates = list[tuple[int, int]]


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + 1e-6) ** 0.5 * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def neighbours(sites: Coordinates, kernel: int) -> Tensor:
    """For each site and kernel cell the neighbour's row, or the row after the last where there is none."""
    table = {site: row for row, site in enumerate(sites)}
    reach = range(-(kernel // 2), kernel // 2 + 1)
    return torch.tensor([[table.get((y + dy, x + dx), len(sites)) for dy in reach for dx in reach] for y, x in sites])


def block(x: Tensor, sites: Coordinates, weights: dict[str, Tensor], name: str) -> Tensor:
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    kernel = weights[f"{name}.dwconv.weight"].flatten(1).T
    y = (padded[neighbours(sites, 7)] * kernel).sum(1) + weights[f"{name}.dwconv.bias"]
    y = layer_norm(y, weights, f"{name}.norm")
    y = gelu(y @ weights[f"{name}.pwconv1.weight"].T + weights[f"{name}.pwconv1.bias"])
    norm = (y**2).sum(0).sqrt()
    y = y * (norm / (norm.mean() + 1e-6)) * weights[f"{name}.grn.gamma"] + weights[f"{name}.grn.beta"] + y
    return x + y @ weights[f"{name}.pwconv2.weight"].T + weights[f"{name}.pwconv2.bias"]


def encode(image: Tensor, visible: list[int], patch: int, weights: dict[str, Tensor]) -> Tensor:
    """Features (K, C) of one image (bands, H, W), patch by patch in the order of ``visible``."""
    corners = [(v // 7 * patch, v % 7 * patch) for v in visible]
    sites = [(y + i, x + j) for y, x in corners for i in range(patch) for j in range(patch)]
    pixels = torch.stack([image[:, y, x] for y, x in sites])
    padded = torch.cat([pixels, pixels.new_zeros(1, pixels.shape[1])])
    kernel = weights["encoder.initial_conv.weight"].permute(2, 3, 1, 0).flatten(0, 1)
    x = torch.einsum("skb,kbc->sc", padded[neighbours(sites, 3)], kernel) + weights["encoder.initial_conv.bias"]
    x = gelu(layer_norm(x, weights, "encoder.initial_norm"))
    stride = patch // 8
    x, sites = pool(x, sites, stride, weights["encoder.stem.weight"][:, 0], weights["encoder.stem.bias"])
    x = layer_norm(x, weights, "encoder.stem_norm")
    for stage, depth in enumerate(DEPTHS):
        if stage:
            name = f"encoder.downsamples.{stage - 1}"
            x = layer_norm(x, weights, f"{name}.norm")
            x, sites = join(x, sites, weights[f"{name}.reduce.weight"], weights[f"{name}.reduce.bias"])
        for index in range(depth):
            x = block(x, sites, weights, f"encoder.stages.{stage}.{index}")
    return x


def children(sites: Coordinates, factor: int) -> dict[tuple[int, int], dict[tuple[int, int], int]]:
    """Rows of the sites below each coarser site, by their place in it."""
    found: dict[tuple[int, int], dict[tuple[int, int], int]] = {}
    for row, (y, x) in enumerate(sites):
        found.setdefault((y // factor, x // factor), {})[y % factor, x % factor] = row
    return found


def pool(x: Tensor, sites: Coordinates, factor: int, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Coordinates]:
    below = children(sites, factor)
    rows = [sum(x[row] * kernel[:, i, j] for (i, j), row in cell.items()) + bias for cell in below.values()]
    return torch.stack(rows), list(below)


def join(x: Tensor, sites: Coordinates, weight: Tensor, bias: Tensor) -> tuple[Tensor, Coordinates]:
    below = children(sites, 2)
    kernel = weight.view(len(weight), 2, 2, -1)
    rows = [sum(kernel[:, i, j] @ x[row] for (i, j), row in cell.items()) + bias for cell in below.values()]
    return torch.stack(rows), list(below)


def decode(features: Tensor, visible: list[int], weights: dict[str, Tensor]) -> Tensor:
    """The decoder's output (49, 512) of one image."""
    projected = features @ weights["decoder.project.weight"].T + weights["decoder.project.bias"]
    rows = [
        projected[visible.index(patch)] if patch in visible else weights["decoder.mask_token"] for patch in range(49)
    ]
    return block(torch.stack(rows), [(p // 7, p % 7) for p in range(49)], weights, "decoder.block")


def total_loss(model: MPMAE, weights: dict[str, Tensor], batch: dict[str, Tensor], visible: np.ndarray) -> Tensor:
    """The objective from its definition, value by value."""
    spec, n = model.spec, len(visible)
    mean = torch.tensor(spec.scaling.mean, dtype=torch.float32).double()
    std = torch.tensor(spec.scaling.std, dtype=torch.float32).double()
    rows = [MODALITIES["sentinel2"].bands.index(band) for band in spec.bands]
    images, decoded = [], []
    for i in range(n):
        level = int(batch["level"][i])
        stored = batch["sentinel2"][i].double()[rows]
        images.append(
            torch.where(stored != 0, (stored - mean[level, :, None, None]) / std[level, :, None, None], torch.nan)
        )
        seen = [int(v) for v in visible[i]]
        decoded.append(decode(encode(images[i].nan_to_num(0.0), seen, spec.patch, weights), seen, weights))
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
                terms += compare(task, stored, weight @ tokens + bias)
                continue
            for patch in sorted(set(range(49)) - {int(v) for v in visible[i]}):
                y, x = patch // 7 * spec.patch, patch % 7 * spec.patch
                cut = stored[:, y : y + spec.patch, x : x + spec.patch].permute(1, 2, 0)
                if task.name == "sentinel2":
                    known = cut[~cut.isnan()]
                    cut = (cut - known.mean()) / (known.var(unbiased=True) + 1e-6) ** 0.5
                prediction = (weight @ decoded[i][patch] + bias).view(spec.patch, spec.patch, outputs)
                terms += compare(task, cut, prediction)
        if terms:
            values = torch.cat([t.flatten() for t in terms])
            s = weights["log_vars"][index]
            total = total + torch.exp(-s) * values.mean() + s
    return total


def compare(task, stored: Tensor, prediction: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Losses of the values that are data."""
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
    return [(prediction[known] - target[known]) ** 2]


def scrambled(model: MPMAE) -> MPMAE:
    """Weights away from their start, so that GRN, norms and biases all matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("input_size", [56, 112])
def test_encoder_loss_and_gradients_equal_the_per_site_definition(input_size: int) -> None:
    names = ("sentinel2", "sentinel1", "dynamic_world", "era5", "biome", "lat")
    torch.manual_seed(0)
    model = scrambled(MPMAE(random_spec(input_size, names))).double()
    batch = random_batch(2, input_size, seed=1)
    batch["sentinel1"][0] = MODALITIES["sentinel1"].nodata
    visible, masked = split_patches(0, 0, np.array([11, 12]), 49)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}

    images = model.images(batch)
    with torch.no_grad():
        features = model.encoder(images, torch.from_numpy(visible))
        for i in range(2):
            expected = encode(images[i], [int(v) for v in visible[i]], input_size // 7, weights)
            assert (features[i] - expected).norm() <= 1e-12 * expected.norm()

    loss = model.objective(model(batch, torch.from_numpy(visible), torch.from_numpy(masked)))
    expected_loss = total_loss(model, weights, batch, visible)
    assert abs(loss - expected_loss) <= 1e-12 * abs(expected_loss)

    loss.backward()
    expected_loss.backward()
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - weights[name].grad).abs().max()
        assert difference <= 1e-11 * weights[name].grad.abs().max(), name


def test_float32_stays_within_rounding_of_float64() -> None:
    torch.manual_seed(0)
    model = scrambled(MPMAE(random_spec()))
    precise = MPMAE(model.spec).double()
    precise.load_state_dict(model.state_dict())
    batch = random_batch(4, seed=2)
    visible, masked = map(torch.from_numpy, split_patches(0, 0, np.arange(4), 49))
    losses = []
    for candidate in (model, precise):
        loss = candidate.objective(candidate(batch, visible, masked))
        loss.backward()
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) <= 2e-6 * abs(losses[1])
    for (name, rough), exact in zip(model.named_parameters(), precise.parameters(), strict=True):
        assert (rough.grad - exact.grad).abs().max() <= 1e-4 * exact.grad.abs().max(), name
