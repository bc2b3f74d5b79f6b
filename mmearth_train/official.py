"""Checkpoints that MMEarth's authors published (``checkpoint-199.pth``), read into this model.

The published encoder is written in MinkowskiEngine: kernels are flattened with the column varying slowest, biases and
GRN's vectors carry a leading 1, and every pretext task has a copy of the one decoder block.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.encoder import SIZES
from mmearth_train.model import INPUT, MPMAE, PATCHES_PER_SIDE, ModelSpec
from mmearth_train.tasks import Scaling, Task, pretext_names
from mmearth_train.variant import VARIANTS

SUFFIX = ".pth"
LOG_VARS = (
    *("sentinel2", "sentinel1", "aster", "era5", "dynamic_world", "canopy_height_eth"),
    *("lat", "lon", "biome", "eco_region", "month", "esa_worldcover"),
)
"""Order of the published log-variances."""
STATISTICS = ("sentinel2_l1c", "sentinel2_l2a")
"""Entries of the published ``data_…_band_stats.json``; each has ``mean`` and ``std`` of the 13 bands."""
_HARMLESS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [argparse.Namespace, pathlib.PosixPath]
"""What a published checkpoint holds beside tensors: the arguments it was trained with. Nothing else is unpickled."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Official:
    """A published model: its size, patch, pretext tasks, and its weights by this model's names."""

    size: str
    patch: int
    tasks: tuple[str, ...]
    weights: Weights


def load_official(path: Path, statistics: Path) -> MPMAE:
    """The published model in ``path``, its inputs scaled by the published ``statistics`` (data_…_band_stats.json).

    How targets were scaled is not carried over: they are left as stored. Raises CheckpointError for any other file.
    """
    found = convert(read(path), path)
    tasks = tuple(_task(name) for name in found.tasks)
    spec = ModelSpec(
        found.size,
        found.patch * PATCHES_PER_SIDE,
        MODEL_INPUT_BANDS,
        read_statistics(statistics),
        tasks,
        seed=0,
        variant=VARIANTS["reference"],
    )
    with torch.random.fork_rng(devices=[]):
        model = MPMAE(spec)
    model.load_state_dict(found.weights)
    return model


def read(path: Path) -> Weights:
    """The tensors under ``model`` of a published checkpoint, which is unpickled with an allow list."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} cannot be read ({reason}); give a checkpoint as MMEarth published it") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} has no entry 'model'; give a pretraining checkpoint as MMEarth published it")
    return dict(content["model"])


def read_statistics(path: Path) -> Scaling:
    """The input's means and standard deviations, L1C and L2A, from the published file; B10 is left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [[content[level][key] for level in STATISTICS] for key in ("mean", "std")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not readable as band statistics ({error!r}); give data_…_band_stats.json of the data's release"
        ) from error
    stored = MODALITIES[INPUT].bands
    if any(len(row) != len(stored) for level in rows for row in level):
        raise CheckpointError(f"{path} must have {len(stored)} bands for {' and '.join(STATISTICS)}; give a whole file")
    kept = [stored.index(band) for band in MODEL_INPUT_BANDS]
    mean, std = ([[row[i] for i in kept] for row in level] for level in rows)
    return Scaling.checked(mean, std)


def convert(official: Weights, path: Path) -> Official:
    """The size, tasks and weights of a published model; CheckpointError where a tensor is missing or left over."""
    left = dict(official)
    try:
        stem = left["encoder.stem.0.kernel"]
        stages = [key.split(".") for key in left if key.startswith("encoder.stages.") and key.endswith("dwconv.bias")]
        depths = tuple(sum(part[2] == str(stage) for part in stages) for stage in range(4))
        sizes: dict[object, str] = {(depth, width): name for name, (depth, width) in SIZES.items()}
        size = sizes[depths, stem.shape[-1]]
        present = {key.split(".")[1] for key in left if key.startswith("pred_dict.")}
        tasks = tuple(name for name in pretext_names("all") if name in present)
        weights = _encoder(left, depths) | _decoder(left, tasks)
        order = [name for name in LOG_VARS if name in present]
        log_vars = left.pop("loss_fn.log_vars", torch.zeros(len(order)))
        weights["log_vars"] = log_vars[[order.index(name) for name in tasks]]
    except KeyError as error:
        raise CheckpointError(
            f"{path} lacks {error.args[0]!r}; give an MP-MAE checkpoint with MMEarth's stem and decoders of depth 1"
        ) from error
    if left:
        raise CheckpointError(f"{path} has tensors that this model has not: {', '.join(sorted(left)[:3])}")
    return Official(size, 8 * round(len(stem) ** 0.5), tasks, weights)


def convolution(kernel: Tensor) -> Tensor:
    """(k², in, out), index row + k · column, to (out, in, k, k)."""
    k = round(len(kernel) ** 0.5)
    return kernel.view(k, k, *kernel.shape[1:]).permute(3, 2, 1, 0).contiguous()


def depthwise(kernel: Tensor) -> Tensor:
    """(k², c) to (c, 1, k, k)."""
    return convolution(kernel[:, None])


def joined(kernel: Tensor) -> Tensor:
    """(4, in, out) to a matrix (out, 4·in) whose inputs are ordered (row, column, channel)."""
    return convolution(kernel).permute(0, 2, 3, 1).flatten(1)


def _encoder(left: Weights, depths: tuple[int, ...]) -> Weights:
    """Takes the encoder's tensors out of ``left``."""
    weights: Weights = {}

    def take(ours: str, theirs: str, shape: Callable[[Tensor], Tensor]) -> None:
        weights[f"encoder.{ours}"] = shape(left.pop(f"encoder.{theirs}"))

    def norm(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            take(f"{ours}.{part}", f"{theirs}.ln.{part}", torch.clone)

    def conv(ours: str, theirs: str, shape: Callable[[Tensor], Tensor]) -> None:
        take(f"{ours}.weight", f"{theirs}.kernel", shape)
        take(f"{ours}.bias", f"{theirs}.bias", torch.flatten)

    conv("initial_conv", "initial_conv.0", convolution)
    norm("initial_norm", "initial_conv.1")
    conv("stem", "stem.0", depthwise)
    norm("stem_norm", "stem.1")
    for i in range(len(depths) - 1):
        norm(f"downsamples.{i}.norm", f"downsample_layers.{i}.0")
        conv(f"downsamples.{i}.reduce", f"downsample_layers.{i}.1", joined)
    for block in (f"stages.{i}.{j}" for i, depth in enumerate(depths) for j in range(depth)):
        conv(f"{block}.dwconv", f"{block}.dwconv", depthwise)
        norm(f"{block}.norm", f"{block}.norm")
        for part in ("weight", "bias"):
            for layer in ("pwconv1", "pwconv2"):
                take(f"{block}.{layer}.{part}", f"{block}.{layer}.linear.{part}", torch.clone)
        for part in ("gamma", "beta"):
            take(f"{block}.grn.{part}", f"{block}.grn.{part}", torch.flatten)
    return weights


def _decoder(left: Weights, tasks: tuple[str, ...]) -> Weights:
    """Takes the decoder's tensors out of ``left``; the tasks' copies of its block must be equal."""
    weights = {
        "decoder.project.weight": left.pop("proj.weight").flatten(1),
        "decoder.project.bias": left.pop("proj.bias"),
        "decoder.mask_token": left.pop("mask_token").flatten(),
    }
    heads: dict[str, list[tuple[Tensor, Tensor]]] = {"pixel": [], "image": []}
    for task in tasks:
        prefix = f"decoder_dict.{task}.0."
        for key in [key for key in left if key.startswith(prefix)]:
            part, tensor = key.removeprefix(prefix), left.pop(key)
            ours = f"decoder.block.{part}"
            tensor = tensor.flatten() if part.startswith("grn.") else tensor
            if not torch.equal(weights.setdefault(ours, tensor), tensor):
                raise CheckpointError(f"decoders differ in {part} of {task}; this model has one for all tasks")
        weight, bias = left.pop(f"pred_dict.{task}.weight"), left.pop(f"pred_dict.{task}.bias")
        heads[MODALITIES[task].scope].append((weight.flatten(1), bias))
    for scope, rows in heads.items():
        if rows:
            weights[f"decoder.{scope}_heads.weight"] = torch.cat([weight for weight, _ in rows])
            weights[f"decoder.{scope}_heads.bias"] = torch.cat([bias for _, bias in rows])
    if heads["image"]:
        for part in ("weight", "bias"):
            weights[f"decoder.image_norm.{part}"] = left.pop(f"layer_norm_tmp.{part}")
    return weights


def _task(name: str) -> Task:
    modality = MODALITIES[name]
    bands = MODEL_INPUT_BANDS if name == INPUT else modality.bands
    outputs = len(modality.classes) or len(bands)
    constant = 1 / outputs if modality.kind == "categorical" else 0.0
    return Task(name, bands, Scaling(((0.0,) * len(bands),), ((1.0,) * len(bands),)), (constant,) * outputs)
