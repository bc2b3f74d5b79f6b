"""Learning rates and weight decay."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmearth_train.config import PretrainConfig, RunError, recipe_of
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE
from mmearth_train.schedule import RECIPES, optimizer
from mmearth_train.variant import VARIANTS
from tests.train_batches import random_spec


def test_the_default_is_the_papers_recipe() -> None:
    recipe = RECIPES["default"]
    assert recipe.peak_rate == pytest.approx(1.5e-4 * 4096 / 256)
    assert recipe.rate(0) == 0
    assert recipe.rate(10) == pytest.approx(recipe.peak_rate / 4)
    assert recipe.rate(40) == pytest.approx(recipe.peak_rate)
    assert recipe.rate(120) == pytest.approx(recipe.peak_rate / 2)
    assert recipe.rate(160) == pytest.approx(recipe.peak_rate * (1 + math.cos(0.75 * math.pi)) / 2)
    assert recipe.rate(200) == pytest.approx(0)


def test_the_rate_that_is_asked_for_is_that_of_256_samples() -> None:
    config = PretrainConfig(Path("store"), Path("run"), batch_size=8, base_rate=2.4e-2)
    assert recipe_of(config).peak_rate == pytest.approx(2.4e-2 * 8 / 256)
    with pytest.raises(RunError, match=r"^--base-rate is 0\.0; it must be positive, such as the preset's 0\.00015$"):
        recipe_of(PretrainConfig(Path("store"), Path("run"), base_rate=0.0))


def test_seeds_are_signed_numbers_of_64_bits() -> None:
    """Those that order, crops and masks can be drawn from, and weights."""
    config = PretrainConfig(Path("store"), Path("run"))
    for seed in (-(2**63), -1, 2**63 - 1):
        recipe_of(dataclasses.replace(config, seed=seed))
        split_patches(seed, 0, np.arange(2), 49)
        torch.Generator().manual_seed(seed)
    for seed in (-(2**63) - 1, 2**63):
        with pytest.raises(RunError, match=rf"^--seed is {seed}; it must be at least -9223372036854775808 and less"):
            recipe_of(dataclasses.replace(config, seed=seed))
        with pytest.raises(OverflowError):
            split_patches(seed, 0, np.arange(2), 49)


@pytest.mark.parametrize("threads", [0, -3])
def test_a_process_has_a_thread_at_least(threads: int) -> None:
    with pytest.raises(RunError, match=f"^--threads is {threads}; it must be at least 1$"):
        recipe_of(PretrainConfig(Path("store"), Path("run"), threads=threads))


def test_a_split_smaller_than_a_batch_is_trained_at_its_own_rate() -> None:
    """The paper's rate is for 4096 samples; a step of 450 gets a ninth of it."""
    recipe = RECIPES["default"].on(450)
    assert recipe.peak_rate == pytest.approx(1.5e-4 * 450 / 256)
    assert recipe.rate(20) == pytest.approx(1.5e-4 * 450 / 512)
    assert RECIPES["default"].on(1_200_000) == RECIPES["default"]


def test_matrices_and_kernels_decay_and_vectors_do_not() -> None:
    model = MPMAE(random_spec())
    groups = optimizer(model, model.decays, RECIPES["default"]).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        free = ("bias" in name, "norm" in name, "grn" in name, "mask_token" in name, name == "log_vars")
        assert decay[id(parameter)] == (0.0 if any(free) else 0.05), name


def test_as_published_grn_and_the_mask_token_decay_too() -> None:
    model = MPMAE(dataclasses.replace(random_spec(), variant=VARIANTS["reference"]))
    groups = optimizer(model, model.decays, RECIPES["reference"]).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    vectors = {name: p for name, p in model.named_parameters() if p.ndim == 1}
    decaying = {name for name, p in vectors.items() if decay[id(p)] == 0.05}
    assert decaying == {name for name in vectors if name.endswith(("grn.gamma", "grn.beta", "mask_token"))}
    assert len(decaying) == 2 * (2 + 2 + 6 + 2 + 1) + 1


def test_one_step_is_adamw_by_its_definition() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2).double()
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    adamw = optimizer(layer, lambda name: name == "weight", RECIPES["default"])
    layer(torch.ones(1, 3, dtype=torch.float64)).square().sum().backward()
    adamw.step()
    rate = RECIPES["default"].peak_rate
    for name, parameter in layer.named_parameters():
        decayed = before[name] * (1 - rate * 0.05) if name == "weight" else before[name]
        expected = decayed - rate * parameter.grad / (parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)
