"""Published checkpoints: one in their layout, and what it computes by that layout, against the model it becomes."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import mmearth_train
from mmearth_data.modalities import MODEL_INPUT_BANDS
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.masking import split_patches
from mmearth_train.official import convert, load_official, read
from tests.train_batches import random_batch

DEPTHS, WIDTHS = (2, 2, 6, 2), (40, 80, 160, 320)
TASKS = {
    "sentinel2": 12, "sentinel1": 8, "aster": 2, "era5": 12, "dynamic_world": 9, "canopy_height_eth": 2,
    "lat": 2, "lon": 2, "biome": 14, "eco_region": 846, "month": 2, "esa_worldcover": 11,
}  # fmt: skip
"""Outputs in the order of the published log-variances."""
IMAGE = {"era5", "lat", "lon", "biome", "eco_region", "month"}
Weights = dict[str, Tensor]


def published(patch: int) -> Weights:
    """Random weights of an atto model with the published names and shapes."""
    random = torch.Generator().manual_seed(3)
    weights: Weights = {}

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        weights[name] = mean + 0.3 * torch.randn(shape, generator=random)

    def norm(name: str, channels: int) -> None:
        add(f"{name}.weight", channels, mean=1.0)
        add(f"{name}.bias", channels)

    def conv(name: str, *kernel: int) -> None:
        add(f"{name}.kernel", *kernel)
        add(f"{name}.bias", 1, kernel[-1])

    def block(name: str, channels: int, sparse: bool) -> None:
        if sparse:
            conv(f"{name}.dwconv", 49, channels)
        else:
            add(f"{name}.dwconv.weight", channels, 1, 7, 7)
            add(f"{name}.dwconv.bias", channels)
        norm(f"{name}.norm.ln" if sparse else f"{name}.norm", channels)
        for layer, rows, columns in (("pwconv1", 4 * channels, channels), ("pwconv2", channels, 4 * channels)):
            layer = f"{name}.{layer}.linear" if sparse else f"{name}.{layer}"
            add(f"{layer}.weight", rows, columns)
            add(f"{layer}.bias", rows)
        for part in ("gamma", "beta"):
            add(f"{name}.grn.{part}", *((1,) if sparse else (1, 1, 1)), 4 * channels)

    conv("encoder.initial_conv.0", 9, 12, WIDTHS[0])
    norm("encoder.initial_conv.1.ln", WIDTHS[0])
    conv("encoder.stem.0", (patch // 8) ** 2, WIDTHS[0])
    norm("encoder.stem.1.ln", WIDTHS[0])
    for i, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        if i < 3:
            norm(f"encoder.downsample_layers.{i}.0.ln", width)
            conv(f"encoder.downsample_layers.{i}.1", 4, width, 2 * width)
        for j in range(depth):
            block(f"encoder.stages.{i}.{j}", width, sparse=True)
    add("proj.weight", 512, WIDTHS[-1], 1, 1)
    add("proj.bias", 512)
    add("mask_token", 1, 512, 1, 1)
    norm("layer_norm_tmp", 512)
    block("decoder_dict.sentinel2.0", 512, sparse=False)
    copied = [key for key in weights if key.startswith("decoder_dict.")]
    for task, outputs in TASKS.items():
        weights |= {key.replace("sentinel2", task): weights[key].clone() for key in copied}
        rows = outputs if task in IMAGE else patch**2 * outputs
        add(f"pred_dict.{task}.weight", rows, 512, *(() if task in IMAGE else (1, 1)))
        add(f"pred_dict.{task}.bias", rows)
    weights["loss_fn.log_vars"] = torch.arange(12) / 10
    return weights


def save(path: Path, weights: Weights, **more: object) -> Path:
    arguments = argparse.Namespace(model="convnextv2_atto", data_dir=Path("/data"), patch_size=8)
    torch.save({"model": weights, "epoch": 199, "args": arguments, **more}, path)
    return path


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def shifted(x: Tensor, dy: int, dx: int) -> Tensor:
    """The value ``dy`` rows below and ``dx`` columns to the right of each site of (N, H, W, C), zero outside."""
    reach = max(abs(dy), abs(dx))
    padded = functional.pad(x, (0, 0, reach, reach, reach, reach))
    h, w = x.shape[1:3]
    return padded[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w]


def convolve(x: Tensor, weights: Weights, name: str, side: int, apply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A convolution of stride 1 around each site, kernel cells counted down the columns."""
    kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
    terms = [apply(shifted(x, i % side - side // 2, i // side - side // 2), kernel[i]) for i in range(side**2)]
    return torch.stack(terms).sum(0) + bias


def strided(x: Tensor, weights: Weights, name: str, side: int, apply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A convolution whose stride is its side, kernel cells counted down the columns."""
    kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
    terms = [apply(x[:, i % side :: side, i // side :: side], kernel[i]) for i in range(side**2)]
    return torch.stack(terms).sum(0) + bias


def respond(x: Tensor, weights: Weights, name: str, axes: tuple[int, ...], eps: float) -> Tensor:
    norm = x.square().sum(axes, keepdim=True).sqrt()
    return weights[f"{name}.gamma"] * (x * norm / (norm.mean(-1, keepdim=True) + eps)) + weights[f"{name}.beta"] + x


def encode(weights: Weights, images: Tensor, seen: Tensor, patch: int, dense: bool) -> Tensor:
    """The published encoder on (N, H, W, 12): every site computed, hidden ones blanked after every layer."""

    def blank(x: Tensor) -> Tensor:
        factor = x.shape[1] // 7
        return x * seen.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[..., None]

    axes, eps = ((1, 2), 1e-4) if dense else ((0, 1, 2), 1e-6)
    x = blank(convolve(blank(images), weights, "encoder.initial_conv.0", 3, torch.matmul))
    x = blank(functional.gelu(layer_norm(x, weights, "encoder.initial_conv.1.ln")))
    x = blank(layer_norm(strided(x, weights, "encoder.stem.0", patch // 8, torch.mul), weights, "encoder.stem.1.ln"))
    for i, depth in enumerate(DEPTHS):
        if i:
            name = f"encoder.downsample_layers.{i - 1}"
            x = blank(layer_norm(x, weights, f"{name}.0.ln"))
            x = blank(strided(x, weights, f"{name}.1", 2, torch.matmul))
        for j in range(depth):
            name = f"encoder.stages.{i}.{j}"
            y = blank(layer_norm(convolve(x, weights, f"{name}.dwconv", 7, torch.mul), weights, f"{name}.norm.ln"))
            y = blank(functional.gelu(linear(y, weights, f"{name}.pwconv1.linear")))
            y = blank(respond(y, weights, f"{name}.grn", axes, eps))
            x = x + blank(linear(y, weights, f"{name}.pwconv2.linear"))
    return x


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def decode(weights: Weights, encoded: Tensor, seen: Tensor, task: str) -> Tensor:
    """One task's prediction: (N, 7, 7, rows), or (N, rows) of the image."""
    x = functional.conv2d(encoded.permute(0, 3, 1, 2), weights["proj.weight"], weights["proj.bias"])
    x = torch.where(seen[:, None], x, weights["mask_token"])
    name = f"decoder_dict.{task}.0"
    y = functional.conv2d(x, weights[f"{name}.dwconv.weight"], weights[f"{name}.dwconv.bias"], padding=3, groups=512)
    y = layer_norm(y.permute(0, 2, 3, 1), weights, f"{name}.norm")
    y = respond(functional.gelu(linear(y, weights, f"{name}.pwconv1")), weights, f"{name}.grn", (1, 2), 1e-4)
    x = x.permute(0, 2, 3, 1) + linear(y, weights, f"{name}.pwconv2")
    if task in IMAGE:
        return linear(layer_norm(x, weights, "layer_norm_tmp").mean((1, 2)), weights, f"pred_dict.{task}")
    return functional.linear(x, weights[f"pred_dict.{task}.weight"].flatten(1), weights[f"pred_dict.{task}.bias"])


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("statistics") / "data_1M_130_new_band_stats.json"
    bands = np.arange(13.0)
    content = {
        f"sentinel2_{level}": {"mean": (shift + bands).tolist(), "std": (shift / 2 + bands).tolist()}
        for level, shift in (("l1c", 90.0), ("l2a", 110.0))
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("patch", [8, 16])
def test_a_published_checkpoint_computes_what_it_did(patch: int, statistics: Path, tmp_path: Path) -> None:
    weights = published(patch)
    model = load_official(save(tmp_path / "checkpoint-199.pth", weights), statistics).double()
    assert model.spec.patch == patch
    exact = {name: tensor.double() for name, tensor in weights.items()}
    batch = random_batch(2, 7 * patch)
    visible, masked = split_patches(0, 0, np.arange(2), 49)
    seen = torch.zeros(2, 49, dtype=torch.bool).scatter_(1, torch.from_numpy(visible), True).view(2, 7, 7)
    images = batch["sentinel2"].double()[:, [i for i in range(13) if i != 10]].permute(0, 2, 3, 1)
    number = torch.tensor([i for i in range(13) if i != 10], dtype=torch.float64)
    shift = torch.tensor([90.0, 110.0], dtype=torch.float64).view(2, 1, 1, 1)
    images = torch.where(images == 0, 0.0, (images - shift - number) / (shift / 2 + number))
    with torch.no_grad():
        encoded = encode(exact, images, seen, patch, dense=False)
        predictions = model.predict(batch, *map(torch.from_numpy, (visible, masked)))
        for task in TASKS:
            expected = decode(exact, encoded, seen, task)
            if task not in IMAGE:
                expected = expected[~seen].view(2, 30, -1)
            assert (predictions[task] - expected).norm() <= 1e-12 * expected.norm(), task
    assert [round(10 * s) for s in model.log_vars.tolist()] == [list(TASKS).index(t.name) for t in model.spec.tasks]


def test_its_encoder_gives_the_features_of_the_published_dense_network(statistics: Path, tmp_path: Path) -> None:
    weights = published(8)
    path = save(tmp_path / "checkpoint-199.pth", weights)
    encoder = mmearth_train.load_encoder(path, statistics=statistics).double()
    assert encoder.bands == MODEL_INPUT_BANDS
    assert set(encoder.pretext) == set(TASKS)
    images = torch.rand(2, 12, 56, 56, dtype=torch.float64) * 200 + 1
    shift, number = torch.tensor([90.0, 110.0]).view(2, 1, 1, 1), torch.tensor([i for i in range(13) if i != 10])
    scaled = (images.permute(0, 2, 3, 1) - shift - number) / (shift / 2 + number)
    everything = torch.ones(2, 7, 7, dtype=torch.bool)
    with torch.no_grad():
        expected = encode({k: t.double() for k, t in weights.items()}, scaled, everything, 8, dense=True)
        found = encoder(images, torch.tensor([0, 1], dtype=torch.uint8))
    assert (found.permute(0, 2, 3, 1) - expected).norm() <= 1e-12 * expected.norm()


@pytest.fixture(scope="module")
def small() -> Weights:
    """A published model with two tasks."""
    weights = published(8)
    others = [key for key in weights if key.startswith(("decoder_dict.", "pred_dict."))]
    for key in others:
        if key.split(".")[1] not in ("sentinel2", "biome"):
            del weights[key]
    return weights | {"loss_fn.log_vars": torch.zeros(2)}


def change_a_copy(weights: Weights) -> None:
    weights["decoder_dict.biome.0.norm.bias"] = weights["decoder_dict.biome.0.norm.bias"] + 1


def drop_a_tensor(weights: Weights) -> None:
    del weights["encoder.stages.2.3.grn.gamma"]


def drop_a_block(weights: Weights) -> None:
    for name in [name for name in weights if name.startswith("encoder.stages.2.3.")]:
        del weights[name]


def drop_the_tasks(weights: Weights) -> None:
    for name in [name for name in weights if name.startswith("pred_dict.")]:
        del weights[name]


def drop_a_part_of_a_copy(weights: Weights) -> None:
    del weights["decoder_dict.biome.0.norm.bias"]


def add_a_tensor(weights: Weights) -> None:
    weights["encoder.extra"] = torch.zeros(1)


def add_a_part_to_a_copy(weights: Weights) -> None:
    weights["decoder_dict.biome.0.scale"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_a_copy, "decoders differ in norm.bias of biome"),
        (drop_a_tensor, r"lacks 'encoder.stages.2.3.grn.gamma'"),
        (drop_a_block, r"has stages of \(2, 2, 5, 2\) blocks, which no size has"),
        (drop_the_tasks, r"lacks 'pred_dict'"),
        (drop_a_part_of_a_copy, r"lacks 'decoder_dict.biome.0.norm.bias'"),
        (add_a_tensor, "has tensors that this model has not: encoder.extra"),
        (add_a_part_to_a_copy, "has tensors that this model has not: decoder_dict.biome.0.scale"),
    ],
)
def test_a_checkpoint_that_is_otherwise_is_refused(
    change: Callable[[Weights], None], message: str, small: Weights
) -> None:
    weights = dict(small)
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        convert(weights, Path("checkpoint-199.pth"))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("loss_fn.log_vars", (1,), "(2,)"),
        ("loss_fn.log_vars", (), "(2,)"),
        ("encoder.initial_conv.0.kernel", (9, 13, 40), "(9, 12, 40)"),
        ("encoder.initial_conv.1.ln.bias", (39,), "(40,)"),
        ("encoder.stem.0.kernel", (5, 40), "(4, 40)"),
        ("encoder.stem.0.kernel", (0, 40), "(1, 40)"),
        ("encoder.stem.0.kernel", (1, 41), "(k², 40 or 48 or 64)"),
        ("encoder.stem.0.kernel", (), "(k², 40 or 48 or 64)"),
        ("encoder.downsample_layers.1.1.kernel", (2, 2, 80, 160), "(4, 80, 160)"),
        ("encoder.stages.3.1.dwconv.kernel", (48, 320), "(49, 320)"),
        ("encoder.stages.3.1.dwconv.bias", (1, 160), "(1, 320)"),
        ("encoder.stages.3.1.pwconv1.linear.weight", (320, 1280), "(1280, 320)"),
        ("encoder.stages.3.1.grn.gamma", (1, 320), "(1, 1280)"),
        ("proj.weight", (512, 160, 1, 1), "(512, 320, 1, 1)"),
        ("mask_token", (1, 256, 1, 1), "(1, 512, 1, 1)"),
        ("layer_norm_tmp.bias", (256,), "(512,)"),
        ("decoder_dict.biome.0.dwconv.weight", (512, 1, 5, 5), "(512, 1, 7, 7)"),
        ("pred_dict.sentinel2.weight", (12, 512, 1, 1), "(768, 512, 1, 1)"),
        ("pred_dict.biome.bias", (15,), "(14,)"),
    ],
)
def test_a_tensor_of_another_shape_is_named(name: str, shape: tuple[int, ...], expected: str, small: Weights) -> None:
    with pytest.raises(CheckpointError) as refused:
        convert(small | {name: torch.zeros(shape)}, Path("checkpoint-199.pth"))
    line = str(refused.value)
    assert line.startswith(f"checkpoint-199.pth: {name} must have the shape {expected}, not {shape}; give ")
    assert "\n" not in line


def test_what_is_no_tensor_is_named(small: Weights) -> None:
    with pytest.raises(CheckpointError, match=r"mask_token must be a tensor, not float; give "):
        convert({**small, "mask_token": 1.0}, Path("checkpoint-199.pth"))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "content", [b"", b"a note\n", b"e\n", b"\x80\x02e", b"\x80\x02Vcaf\xe9\n", b"PK\x03\x04" + bytes(60)]
)
def test_what_is_no_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-199.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^.* cannot be read .*; give a checkpoint as MMEarth published it$"):
        read(path)


def test_a_wrong_byte_in_the_older_format_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-199.pth"
    torch.save({"model": {"a": torch.zeros(3)}}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    keys = [found.start(1) for found in re.finditer(rb"X..\0\0(\d{6,})q", content)]
    assert len(keys) == 2  # where the tensor is, and in the list of what follows
    other = b"1" if content[keys[1]] != ord("1") else b"2"
    path.write_bytes(content[: keys[1]] + other + content[keys[1] + 1 :])
    with pytest.raises(CheckpointError, match=r"^.* cannot be read .*; give a checkpoint as MMEarth published it$"):
        read(path)


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("harm"),)


def test_nothing_but_tensors_and_arguments_is_unpickled(
    statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "checkpoint-199.pth", {}, hook=Harmful())
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_official(path, statistics)
    assert not (tmp_path / "harm").exists()


def test_the_statistics_must_be_named_and_whole(statistics: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoint-199.pth", published(8))
    with pytest.raises(CheckpointError, match="does not say how its input is scaled"):
        mmearth_train.load_encoder(path)
    content = json.loads(statistics.read_text())
    content["sentinel2_l2a"]["std"].pop()
    short = tmp_path / "stats.json"
    short.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="must have 13 bands"):
        mmearth_train.load_encoder(path, statistics=short)
    content["sentinel2_l2a"]["std"] = 1.0
    short.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="not readable as band statistics"):
        mmearth_train.load_encoder(path, statistics=short)
