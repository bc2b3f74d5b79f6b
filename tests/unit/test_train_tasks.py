"""Pretext tasks: names, targets from stored values, and that what is not data has no influence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_train.masking import split_patches
from mmearth_train.model import MPMAE, ModelSpec
from mmearth_train.tasks import GROUPS, ClassIndex, PretextError, Scaling, Standardise, pretext_names, select_patches
from mmearth_train.variant import VARIANTS, Variant
from tests.train_batches import input_scaling, random_batch, random_spec


def masks(n: int) -> tuple[Tensor, Tensor]:
    visible, masked = split_patches(0, 0, np.arange(n), 49)
    return torch.from_numpy(visible), torch.from_numpy(masked)


@pytest.fixture(scope="module")
def model() -> MPMAE:
    torch.manual_seed(0)
    return MPMAE(random_spec())


def test_groups_are_the_twelve_of_mmearth_by_scope() -> None:
    pixel = {"sentinel2", "sentinel1", "aster", "dynamic_world", "canopy_height_eth", "esa_worldcover"}
    image = {"era5", "biome", "eco_region", "lat", "lon", "month"}
    assert set(pretext_names("pixel")) == pixel
    assert set(pretext_names("image")) == image
    assert set(pretext_names("all")) == pixel | image


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sentinel2", ("sentinel2",)),
        ("biome, sentinel2", ("sentinel2", "biome")),
        ("lat,image", pretext_names("image")),
    ],
)
def test_names_come_in_registry_order_and_once(text: str, names: tuple[str, ...]) -> None:
    assert pretext_names(text) == names


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("sentinel2,sentinel3", "unknown pretext task 'sentinel3'"),
        ("", "unknown pretext task ''"),
        ("sentinel2,", "unknown pretext task ''"),
        ("cloud_score", "cloud_score is never predicted"),
        ("sentinel2_scl", "sentinel2_scl is never predicted"),
    ],
)
def test_another_name_is_refused_with_exactly_those_that_are_not(text: str, wrong: str) -> None:
    with pytest.raises(PretextError) as caught:
        pretext_names(text)
    said, choices = str(caught.value).split("; choose from: ")
    assert said == wrong
    named = choices.split(", ")
    assert all(pretext_names(name) for name in named)
    assert set(named) == {"all", "pixel", "image", *(name for name, one in MODALITIES.items() if one.pretext)}


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_the_specification_survives_json(preset: str) -> None:
    spec = replace(random_spec(112), variant=VARIANTS[preset])
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_bands_are_picked_by_name_and_scaled_by_level() -> None:
    modality, scaling = MODALITIES["sentinel2"], input_scaling()
    stored = torch.arange(1, 14, dtype=torch.int32).to(torch.uint16).expand(2, 13)
    values, valid = Standardise(modality, MODEL_INPUT_BANDS, scaling)(stored, torch.tensor([0, 1], dtype=torch.uint8))
    for level in range(2):
        for i, band in enumerate(MODEL_INPUT_BANDS):
            expected = (modality.bands.index(band) + 1 - scaling.mean[level][i]) / scaling.std[level][i]
            assert values[level, i].item() == pytest.approx(expected, rel=1e-6)
    assert valid.all()


@pytest.mark.parametrize("name", ["sentinel1", "era5"])
def test_no_data_becomes_zero_and_invalid(name: str) -> None:
    modality = MODALITIES[name]
    bands = len(modality.bands)
    scale = Standardise(modality, modality.bands, Scaling(((5.0,) * bands,), ((2.0,) * bands,)))
    stored = torch.full((1, bands), 9, dtype=getattr(torch, modality.dtype))
    stored[0, 1] = modality.nodata
    values, valid = scale(stored, torch.zeros(1, dtype=torch.uint8))
    assert valid.tolist() == [[i != 1 for i in range(bands)]]
    assert values.tolist() == [[0.0 if i == 1 else 2.0 for i in range(bands)]]


def test_statistics_without_data_never_scale() -> None:
    scaling = Scaling.checked([[math.nan, 3.0]], [[math.nan, 0.0]])
    assert scaling == Scaling(((0.0, 3.0),), ((1.0, 1.0),))


def test_every_class_has_its_index_and_nothing_else_has_one() -> None:
    table = ClassIndex(MODALITIES["esa_worldcover"])
    indices = table(torch.arange(256, dtype=torch.uint8)[:, None])
    classes = MODALITIES["esa_worldcover"].class_values.tolist()
    assert [i for i, index in enumerate(indices.tolist()) if index >= 0] == classes
    assert indices[10] == 0
    assert indices[100] == 10


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16])
def test_patches_are_cut_in_row_major_order(dtype: torch.dtype) -> None:
    images = (7 * torch.arange(2 * 3 * 56 * 56)).view(2, 3, 56, 56).to(dtype)
    _, masked = masks(2)
    patches = select_patches(images, masked, 8)
    for n, m in [(0, 0), (1, 17), (1, 29)]:
        y, x = divmod(int(masked[n, m]), 7)
        expected = images[n, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].permute(1, 2, 0)
        assert torch.equal(patches[n, m], expected)


def test_what_is_stored_under_no_data_or_visible_patches_has_no_influence_on_any_loss(model: MPMAE) -> None:
    """Statistics are replaced by others where a value is no-data: the losses must not move by a bit."""
    batch = random_batch(3)
    visible, masked = masks(3)
    before = model(batch, visible, masked)
    changed = {name: values.clone() for name, values in batch.items()}
    seen = torch.zeros(3, 49, dtype=torch.bool).scatter_(1, visible, True).view(3, 1, 7, 7)
    seen = seen.repeat_interleave(8, 2).repeat_interleave(8, 3)
    for name in ("sentinel1", "aster", "canopy_height_eth", "dynamic_world", "esa_worldcover"):
        changed[name] = torch.where(seen, torch.ones_like(changed[name]), changed[name])
    changed["dynamic_world"][changed["dynamic_world"] == 0] = 77
    changed["era5"][changed["era5"].isnan()] = torch.inf
    after = model(changed, visible, masked)
    assert torch.equal(before.sums, after.sums)
    assert torch.equal(before.counts, after.counts)


def test_valid_targets_are_counted_value_by_value(model: MPMAE) -> None:
    batch = random_batch(3)
    visible, masked = masks(3)
    counts = dict(zip(GROUPS["all"], model(batch, visible, masked).counts.tolist(), strict=True))
    for name, modality in ((n, MODALITIES[n]) for n in GROUPS["all"] if n != "sentinel2"):
        stored = batch[name].numpy()
        valid = modality.valid(stored)
        if modality.scope == "image":
            assert counts[name] == valid.sum(), name
            continue
        hidden = [(n, divmod(p, 7)) for n in range(3) for p in masked[n].tolist()]
        expected = sum(valid[n, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].sum() for n, (y, x) in hidden)
        assert counts[name] == expected, name


@pytest.mark.parametrize("absent", [("sentinel1",), ("era5", "biome", "month"), GROUPS["all"]])
def test_gradients_stay_finite_without_a_modality(model: MPMAE, absent: tuple[str, ...]) -> None:
    batch = random_batch(2)
    for name in absent:
        batch[name].fill_(MODALITIES[name].nodata)
    model.zero_grad()
    visible, masked = masks(2)
    found = model(batch, visible, masked)
    model.objective(found).backward()
    for task, total, count in zip(GROUPS["all"], found.sums, found.counts, strict=True):
        assert (count == 0) == (task in absent)
        assert (total == 0) == (task in absent)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    absent_rows = [model.spec.tasks[i].name in absent for i in range(len(GROUPS["all"]))]
    assert (model.log_vars.grad[absent_rows] == 0).all()


def test_constants_are_judged_on_the_same_targets(model: MPMAE) -> None:
    batch = random_batch(4)
    _, masked = masks(4)
    target = model.targets["biome"]
    total, count = target.compare_constant(*target(batch, masked))
    stored = batch["biome"][:, 0]
    known = stored[stored != 255].long()
    assert count == len(known)
    assert total.item() == pytest.approx(-sum(math.log(target.task.constant[int(k)]) for k in known), rel=1e-5)


@pytest.mark.parametrize("pretext", ["sentinel2", "pixel", "image", "era5,aster"])
def test_any_choice_of_tasks_trains_every_weight(pretext: str) -> None:
    names = pretext_names(pretext)
    torch.manual_seed(0)
    chosen = MPMAE(random_spec(names=names))
    found = chosen(random_batch(2), *masks(2))
    chosen.objective(found).backward()
    assert len(found.sums) == len(names)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in chosen.parameters())


@pytest.mark.parametrize(
    ("like", "bands"), [("aster", ("height", "depth")), ("dynamic_world", ("use",)), ("era5", ("a",))]
)
def test_an_entry_of_the_registry_is_all_that_a_new_task_needs(
    like: str, bands: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and loss follow from scope and kind, and are what their definitions say."""
    added = replace(MODALITIES[like], name="added", bands=bands)
    monkeypatch.setitem(MODALITIES, "added", added)
    spec = random_spec(names=("sentinel2", like))
    own = replace(spec.tasks[1], name="added", bands=bands)
    if added.kind == "continuous":
        own = replace(own, scaling=Scaling(((0.0,) * len(bands),), ((1.0,) * len(bands),)))
    torch.manual_seed(0)
    grown = MPMAE(replace(spec, tasks=(*spec.tasks, own)))
    batch = random_batch(2)
    batch["added"] = batch[like][:, : len(bands)]
    visible, masked = masks(2)
    found = grown(batch, visible, masked)
    prediction = grown.predict(batch, visible, masked)["added"]
    grown.objective(found).backward()
    values = batch["added"].numpy()
    if added.scope == "pixel":
        patches = values.reshape(2, len(bands), 7, 8, 7, 8).transpose(0, 2, 4, 3, 5, 1).reshape(2, 49, -1)
        values = np.stack([patches[n, masked[n]] for n in range(2)])
    if added.kind == "categorical":
        known = np.isin(values, added.class_values)
        rows = np.searchsorted(added.class_values, values[known])
        logits = prediction.detach().double().numpy().reshape(*values.shape, -1)[known]
        expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(rows)), rows]).sum()
    else:
        known = np.isfinite(values) if np.isnan(added.nodata) else values != added.nodata
        expected = ((prediction.detach().double().numpy() - values.astype(np.float64))[known] ** 2).sum()
    assert found.counts[2] == known.sum() > 0
    assert found.sums[2].item() == pytest.approx(expected, rel=1e-5)


def test_published_pixels_without_data_are_regressed_as_zeros() -> None:
    torch.manual_seed(0)
    spec = replace(random_spec(), variant=Variant(nodata="zero"))
    filled, batch = MPMAE(spec), random_batch(2)
    batch["sentinel1"].fill_(MODALITIES["sentinel1"].nodata)
    visible, masked = masks(2)
    found = filled(batch, visible, masked)
    counts = dict(zip(GROUPS["all"], found.counts.tolist(), strict=True))
    for name in ("sentinel2", "sentinel1", "aster", "canopy_height_eth"):
        assert counts[name] == 2 * 30 * 64 * len(spec.tasks[GROUPS["all"].index(name)].bands), name
    excluded = dict(zip(GROUPS["all"], MPMAE(random_spec())(batch, visible, masked).counts.tolist(), strict=True))
    assert excluded["sentinel1"] == 0
    for name in ("dynamic_world", "era5", "biome"):
        assert counts[name] == excluded[name], name
    with torch.no_grad():
        prediction = filled.predict(batch, visible, masked)["sentinel1"]
    torch.testing.assert_close(found.sums[GROUPS["all"].index("sentinel1")], prediction.square().sum())


def test_the_published_start_is_wide_where_it_was() -> None:
    """Pixel losses start near 22 there, near 1 here."""
    starts = {}
    for preset in ("default", "reference"):
        torch.manual_seed(0)
        found = MPMAE(replace(random_spec(), variant=VARIANTS[preset]))(random_batch(8), *masks(8))
        starts[preset] = (found.sums / found.counts)[GROUPS["all"].index("sentinel2")].item()
    assert starts["default"] == pytest.approx(1, abs=0.1)
    assert starts["reference"] == pytest.approx(22, abs=2)


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_weight_decay_takes_in_what_the_preset_says(preset: str) -> None:
    chosen = MPMAE(replace(random_spec(), variant=VARIANTS[preset]))
    for name, parameter in chosen.named_parameters():
        vector = name.endswith(("bias", "norm.weight", "log_vars"))
        published = name.endswith(("gamma", "beta", "mask_token"))
        assert vector + published == (parameter.ndim == 1), name
        assert chosen.decays(name) == (preset == "reference" if published else not vector), name


def test_equal_weighting_adds_the_mean_losses() -> None:
    torch.manual_seed(0)
    chosen = MPMAE(replace(random_spec(), variant=Variant(weighting="equal")))
    found = chosen(random_batch(2), *masks(2))
    assert chosen.objective(found).item() == pytest.approx((found.sums / found.counts).sum().item(), rel=1e-6)
    assert "log_vars" in chosen.state_dict()
    assert "log_vars" not in dict(chosen.named_parameters())
