"""The exported encoder: what comes out of the file is what went in, and features are those of the encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import mmearth_train
from mmearth_data.modalities import MODEL_INPUT_BANDS
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.model import MPMAE, ModelSpec
from mmearth_train.pretrained import InputShapeError, LevelError, export_encoder, random_encoder
from mmearth_train.variant import VARIANTS
from tests.train_batches import random_batch, random_spec


@pytest.fixture(scope="module")
def model() -> MPMAE:
    torch.manual_seed(0)
    return MPMAE(random_spec())


@pytest.fixture(scope="module")
def file(model: MPMAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "encoder.safetensors"
    export_encoder(path, model.spec, model.encoder, "demo")
    return path


def images(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    batch = random_batch(n)
    return batch["sentinel2"][:, [i for i in range(13) if i != 10]], batch["level"]


def test_features_are_the_mean_over_all_patches_of_normalised_images(file: Path, model: MPMAE) -> None:
    encoder = mmearth_train.load_encoder(file)
    stored, level = images(3)
    everything = torch.arange(49).expand(3, -1)
    with torch.no_grad():
        expected = model.encoder(model.images(random_batch(3)), everything).mean(1)
        features = encoder.features(stored, level)
        feature_map = encoder(stored, level)
    torch.testing.assert_close(features, expected)
    assert feature_map.shape == (3, encoder.channels, 7, 7)
    torch.testing.assert_close(feature_map.mean((2, 3)), expected)
    torch.testing.assert_close(encoder.features(stored.float(), level), expected)


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_a_random_encoder_is_what_a_run_of_that_seed_began_as(preset: str, tmp_path: Path) -> None:
    """To the bit: what training gained is told from it."""
    spec = replace(random_spec(), variant=VARIANTS[preset])
    path, drawn = tmp_path / "encoder.safetensors", {}
    for seed in (3, 4):
        torch.manual_seed(seed)
        drawn[seed] = MPMAE(spec).encoder
    export_encoder(path, spec, drawn[4], preset)
    found = random_encoder(mmearth_train.load_encoder(path), 3).encoder.state_dict()
    expected, other = (drawn[seed].state_dict() for seed in (3, 4))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["stages.0.0.pwconv1.weight"], other["stages.0.0.pwconv1.weight"])


def test_levels_have_their_own_normalisation(file: Path) -> None:
    encoder = mmearth_train.load_encoder(file)
    stored, _ = images(1)
    surface, top = (encoder.features(stored, torch.tensor([level], dtype=torch.uint8)) for level in (1, 0))
    assert not torch.allclose(surface, top)


def test_no_data_counts_as_the_mean_and_never_as_nan(file: Path) -> None:
    encoder = mmearth_train.load_encoder(file)
    stored, level = images(2)
    as_floats = stored.float()
    gaps = as_floats.clone()
    gaps[as_floats == 0] = torch.nan
    assert torch.equal(encoder.features(gaps, level), encoder.features(as_floats, level))


def test_larger_images_give_larger_maps(file: Path) -> None:
    encoder = mmearth_train.load_encoder(file)
    assert encoder(torch.ones(1, 12, 80, 48), torch.zeros(1, dtype=torch.uint8)).shape[2:] == (10, 6)


def test_maps_have_four_scales_and_gradients(file: Path) -> None:
    encoder = mmearth_train.load_encoder(file)
    stored, level = images(2)
    maps = encoder.feature_maps(stored, level)
    assert [tuple(one.shape) for one in maps] == [(2, 40 * 2**i, 56 // 2**i, 56 // 2**i) for i in range(4)]
    assert torch.equal(maps[-1], encoder(stored, level))
    maps[0].sum().backward()
    assert encoder.encoder.initial_conv.weight.grad is not None


def test_features_never_depend_on_the_batch_whatever_pretraining_did(tmp_path: Path) -> None:
    spec = replace(random_spec(), variant=VARIANTS["reference"])
    torch.manual_seed(0)
    path = tmp_path / "encoder.safetensors"
    trained = MPMAE(spec)
    for block in trained.encoder.stages[0]:
        torch.nn.init.ones_(block.grn.gamma)
    export_encoder(path, spec, trained.encoder, "reference")
    encoder = mmearth_train.load_encoder(path)
    assert encoder.spec == spec
    stored, level = images(3)
    stored[1] *= 3
    torch.testing.assert_close(encoder.features(stored, level)[:1], encoder.features(stored[:1], level[:1]))


def test_the_header_tells_everything_about_the_encoder(file: Path, model: MPMAE) -> None:
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    assert ModelSpec.from_json(header["spec"]) == model.spec
    assert (header["patch"], header["preset"]) == ("8", "demo")
    said = json.loads(header["spec"])
    assert tuple(said["bands"]) == MODEL_INPUT_BANDS
    assert [np.shape(said["scaling"][what]) for what in ("mean", "std")] == [(2, 12), (2, 12)]
    encoder = mmearth_train.load_encoder(file)
    assert encoder.bands == MODEL_INPUT_BANDS
    assert (encoder.input_size, encoder.patch, encoder.channels) == (56, 8, 320)
    assert encoder.pretext == tuple(task.name for task in model.spec.tasks)


def test_random_encoders_have_the_shape_and_depend_on_the_seed_alone(file: Path) -> None:
    encoder = mmearth_train.load_encoder(file)
    stored, level = images(2)
    first, again, other = (mmearth_train.random_encoder(encoder, seed).features(stored, level) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape == encoder.features(stored, level).shape
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, encoder.features(stored, level))


@pytest.mark.parametrize("shape", [(1, 13, 56, 56), (1, 12, 60, 56), (1, 12, 56, 60), (12, 56, 56), (1, 12, 0, 56)])
def test_images_of_another_shape_are_refused(file: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputShapeError, match=r"images must be \(N, 12, H, W\) with H and W multiples of 8"):
        mmearth_train.load_encoder(file).features(torch.ones(shape), torch.zeros(1, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("n", "level", "seen"),
    [
        (2, torch.tensor([0]), r"torch.int64 of shape \(1,\)"),
        (1, torch.tensor([0, 0, 1]), r"torch.int64 of shape \(3,\)"),
        (1, torch.tensor([[1]]), r"torch.int64 of shape \(1, 1\)"),
        (1, torch.tensor(1), r"torch.int64 of shape \(\)"),
        (1, torch.tensor([0.5]), r"torch.float32 of shape \(1,\)"),
        (2, torch.tensor([0, 2]), "2"),
        (2, torch.tensor([-1, 1]), "-1"),
    ],
)
def test_levels_that_do_not_fit_the_images_are_refused(file: Path, n: int, level: torch.Tensor, seen: str) -> None:
    encoder = mmearth_train.load_encoder(file)
    for use in (encoder, encoder.features, encoder.feature_maps):
        with pytest.raises(
            LevelError, match=rf"level must be \({n},\) integers, .*, not {seen}; give each image its own$"
        ):
            use(torch.ones(n, 12, 56, 56), level)


def test_an_encoder_can_be_exported_as_a_graph(file: Path) -> None:
    encoder = mmearth_train.load_encoder(file)
    stored, level = images(2)
    graph = torch.export.export(encoder, (stored.float(), level)).module()
    torch.testing.assert_close(graph(stored.float(), level), encoder(stored.float(), level))


@pytest.mark.parametrize("where", [100, 2000, -100])
def test_a_changed_byte_is_noticed(file: Path, tmp_path: Path, where: int) -> None:
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    damaged = tmp_path / "encoder.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        mmearth_train.load_encoder(damaged)


def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        mmearth_train.load_encoder(tmp_path / "array.npy")
    with pytest.raises(CheckpointError, match="does not exist"):
        mmearth_train.load_encoder(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="finish the run"):
        mmearth_train.load_encoder(tmp_path)
