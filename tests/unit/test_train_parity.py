"""The compact model against the per-site definition in float64, and against itself in other precisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_train import decoder
from mmearth_train.encoder import SIZES
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.variant import VARIANTS
from tests.per_site import AdamW, Objective, Statistics, Weights
from tests.train_batches import random_batch, random_spec


def scrambled(model: MPMAE) -> MPMAE:
    """Weights away from their start, so that GRN, norms and biases all matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def defined(model: MPMAE, preset: str) -> tuple[Objective, Weights]:
    """The definition of what ``model`` computes, and its weights."""
    spec, published = model.spec, preset == "reference"
    objective = Objective(
        patch={56: 8, 112: 16}[spec.input_size],
        bands=spec.bands,
        statistics=Statistics(spec.scaling.mean, spec.scaling.std),
        tasks={task.name: Statistics(task.scaling.mean, task.scaling.std) for task in spec.tasks},
        scope="batch" if published else "sample",
        eps=1e-6,
        decoder_eps=1e-4 if published else 1e-6,
        fill=published,
    )
    return objective, {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}


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
    objective, weights = defined(model, preset)
    with torch.no_grad():
        features = model.encoder(model.images(batch), torch.from_numpy(visible))
        expected = objective.features(batch, visible, weights)
    for i in range(2):
        assert (features[i] - expected[i]).norm() <= 1e-12 * expected[i].norm()

    loss = model.objective(model(batch, torch.from_numpy(visible), torch.from_numpy(masked)))
    expected_loss = objective.loss(batch, visible, weights)
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
        ("atto", 56, "reference", 2, 2),
        ("atto", 112, "default", 2, 2),
        ("atto", 112, "reference", 2, 2),
        ("tiny", 56, "default", 2, 2),
        ("tiny", 56, "reference", 3, 2),
        ("tiny", 112, "default", 2, 2),
        ("tiny", 112, "reference", 2, 2),
    ],
)
def test_twenty_steps_of_adamw_end_at_the_same_weights(
    size: str, input_size: int, preset: str, side: int, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny has all its blocks and an eighth of its channels, the decoder 32: AdamW is the same for each weight."""
    monkeypatch.setitem(SIZES, "tiny", (SIZES["tiny"][0], 12))
    monkeypatch.setattr(decoder, "WIDTH", 32)
    model, batch = model_of(size, input_size, preset), batch_of(side * input_size // 7)
    visible, masked = patches_of(side, keep)
    recipe = replace(RECIPES["default"], base_rate=1e-4)
    adamw = optimizer(model, model.decays, recipe)
    objective, weights = defined(model, preset)
    expected = AdamW(weights, {name: 0.05 * decays(name, weight, preset) for name, weight in weights.items()})
    for _ in range(20):
        model.objective(model(batch, torch.from_numpy(visible), torch.from_numpy(masked))).backward()
        adamw.step()
        adamw.zero_grad()
        objective.loss(batch, visible, weights).backward()
        expected.step(recipe.peak_rate)
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
