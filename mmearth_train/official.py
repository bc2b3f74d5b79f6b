"""Checkpoints that MMEarth's authors published (``checkpoint-199.pth``), read into this model.

The published encoder is written in MinkowskiEngine: kernels are flattened with the column varying slowest, biases and
GRN's vectors carry a leading 1, and every pretext task has a copy of the one decoder block.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmearth_data.modalities import MODALITIES, MODEL_INPUT_BANDS
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.decoder import WIDTH
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
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, pickle.UnpicklingError),
    *(AssertionError, AttributeError, LookupError, struct.error, TypeError, ValueError),
)
"""What ``torch.load`` raises on files: the first ones by design, the others where it follows random bytes."""
_STEM, _BLOCK_NAME = "encoder.stem.0.kernel", re.compile(r"encoder\.stages\.(\d)\.(\d+)\.")
_REMEDY = "give an MP-MAE checkpoint with MMEarth's stem and decoders of depth 1"
_BLOCK = {
    "dwconv.weight": (WIDTH, 1, 7, 7), "dwconv.bias": (WIDTH,), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
    "pwconv1.weight": (4 * WIDTH, WIDTH), "pwconv1.bias": (4 * WIDTH,),
    "grn.gamma": (1, 1, 1, 4 * WIDTH), "grn.beta": (1, 1, 1, 4 * WIDTH),
    "pwconv2.weight": (WIDTH, 4 * WIDTH), "pwconv2.bias": (WIDTH,),
}  # fmt: skip
"""Tensors of the published decoder's block."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Official:
    """A published model: its size, patch, pretext tasks, and its weights by this model's names."""

    size: str
    patch: int
    tasks: tuple[str, ...]
    weights: Weights


@dataclass(frozen=True)
class _Left:
    """The tensors of a published checkpoint that have not been taken yet."""

    path: Path
    tensors: Weights

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor; CheckpointError where there is none."""
        if name not in self.tensors:
            raise CheckpointError(f"{self.path} lacks {name!r}; {_REMEDY}")
        found: object = self.tensors[name]
        if not isinstance(found, Tensor):
            raise CheckpointError(f"{self.path}: {name} must be a tensor, not {type(found).__name__}; {_REMEDY}")
        return tuple(found.shape)

    def take(self, name: str, *shape: int) -> Tensor:
        """Takes out a tensor, which must have this shape, but for dimensions of 1."""
        seen = self.shape(name)
        if [side for side in seen if side != 1] != [side for side in shape if side != 1]:
            raise CheckpointError(f"{self.path}: {name} must have the shape {shape}, not {seen}; {_REMEDY}")
        return self.tensors.pop(name).reshape(shape)

    def size(self) -> tuple[str, int]:
        """The encoder's size and patch, by its stem and its number of blocks."""
        blocks = {found.groups() for found in map(_BLOCK_NAME.match, self.tensors) if found}
        depths = tuple(sum(stage == str(i) for stage, _ in blocks) for i in range(4))
        known = {width: name for name, (depth, width) in SIZES.items() if depth == depths}
        if not known:
            raise CheckpointError(f"{self.path} has stages of {depths} blocks, which no size has; {_REMEDY}")
        seen = self.shape(_STEM)
        if len(seen) != 2 or seen[1] not in known:
            widths = " or ".join(map(str, known))
            raise CheckpointError(f"{self.path}: {_STEM} must have the shape (k², {widths}), not {seen}; {_REMEDY}")
        return known[seen[1]], 8 * max(1, round(seen[0] ** 0.5))


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
    except _UNREADABLE as error:
        reason = (str(error) or "end of file").splitlines()[0].partition(". ")[0]
        raise CheckpointError(f"{path} cannot be read ({reason}); give a checkpoint as MMEarth published it") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} has no entry 'model'; give a pretraining checkpoint as MMEarth published it")
    return {str(name): tensor for name, tensor in content["model"].items()}


def read_statistics(path: Path) -> Scaling:
    """The input's means and standard deviations, L1C and L2A, from the published file; B10 is left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [[[float(x) for x in content[level][key]] for level in STATISTICS] for key in ("mean", "std")]
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
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
    """The size, tasks and weights of a published model; CheckpointError where a tensor is not as published."""
    left = _Left(path, dict(official))
    size, patch = left.size()
    present = {key.split(".")[1] for key in left.tensors if key.startswith("pred_dict.")}
    tasks = tuple(name for name in pretext_names("all") if name in present)
    if not tasks:
        raise CheckpointError(f"{path} lacks 'pred_dict', the heads of its tasks; {_REMEDY}")
    weights = _encoder(left, size, patch) | _decoder(left, size, patch, tasks)
    order = [name for name in LOG_VARS if name in present]
    log_vars = torch.zeros(len(order))
    if "loss_fn.log_vars" in left.tensors:
        log_vars = left.take("loss_fn.log_vars", len(order))
    weights["log_vars"] = log_vars[[order.index(name) for name in tasks]]
    if left.tensors:
        raise CheckpointError(f"{path} has tensors that this model has not: {', '.join(sorted(left.tensors)[:3])}")
    return Official(size, patch, tasks, weights)


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


def _encoder(left: _Left, size: str, patch: int) -> Weights:
    """Takes the encoder's tensors out of ``left``."""
    depths, width = SIZES[size]
    weights: Weights = {}

    def norm(ours: str, theirs: str, channels: int) -> None:
        for part in ("weight", "bias"):
            weights[f"encoder.{ours}.{part}"] = left.take(f"encoder.{theirs}.ln.{part}", channels)

    def conv(ours: str, theirs: str, convert: Callable[[Tensor], Tensor], *kernel: int) -> None:
        weights[f"encoder.{ours}.weight"] = convert(left.take(f"encoder.{theirs}.kernel", *kernel))
        weights[f"encoder.{ours}.bias"] = left.take(f"encoder.{theirs}.bias", 1, kernel[-1]).flatten()

    conv("initial_conv", "initial_conv.0", convolution, 9, len(MODEL_INPUT_BANDS), width)
    norm("initial_norm", "initial_conv.1", width)
    conv("stem", "stem.0", depthwise, (patch // 8) ** 2, width)
    norm("stem_norm", "stem.1", width)
    for i, (depth, channels) in enumerate((depth, width * 2**i) for i, depth in enumerate(depths)):
        if i:
            norm(f"downsamples.{i - 1}.norm", f"downsample_layers.{i - 1}.0", channels // 2)
            conv(f"downsamples.{i - 1}.reduce", f"downsample_layers.{i - 1}.1", joined, 4, channels // 2, channels)
        for block in (f"stages.{i}.{j}" for j in range(depth)):
            conv(f"{block}.dwconv", f"{block}.dwconv", depthwise, 49, channels)
            norm(f"{block}.norm", f"{block}.norm", channels)
            for layer, rows, columns in (("pwconv1", 4 * channels, channels), ("pwconv2", channels, 4 * channels)):
                for part, shape in (("weight", (rows, columns)), ("bias", (rows,))):
                    name = f"encoder.{block}.{layer}"
                    weights[f"{name}.{part}"] = left.take(f"{name}.linear.{part}", *shape)
            for name in (f"encoder.{block}.grn.{part}" for part in ("gamma", "beta")):
                weights[name] = left.take(name, 1, 4 * channels).flatten()
    return weights


def _decoder(left: _Left, size: str, patch: int, tasks: tuple[str, ...]) -> Weights:
    """Takes the decoder's tensors out of ``left``; the tasks' copies of its block must be equal."""
    weights = {
        "decoder.project.weight": left.take("proj.weight", WIDTH, 8 * SIZES[size][1], 1, 1).flatten(1),
        "decoder.project.bias": left.take("proj.bias", WIDTH),
        "decoder.mask_token": left.take("mask_token", 1, WIDTH, 1, 1).flatten(),
    }
    heads: dict[str, list[tuple[Tensor, Tensor]]] = {"pixel": [], "image": []}
    for task in map(_task, tasks):
        for part, shape in _BLOCK.items():
            tensor = left.take(f"decoder_dict.{task.name}.0.{part}", *shape)
            tensor = tensor.flatten() if part.startswith("grn.") else tensor
            if not torch.equal(weights.setdefault(f"decoder.block.{part}", tensor), tensor):
                raise CheckpointError(
                    f"{left.path}: decoders differ in {part} of {task.name}; this model has one for all tasks"
                )
        pixel = task.modality.scope == "pixel"
        rows = task.outputs * (patch**2 if pixel else 1)
        weight = left.take(f"pred_dict.{task.name}.weight", rows, WIDTH, *((1, 1) if pixel else ()))
        heads[task.modality.scope].append((weight.flatten(1), left.take(f"pred_dict.{task.name}.bias", rows)))
    for scope, parts in heads.items():
        if parts:
            weights[f"decoder.{scope}_heads.weight"] = torch.cat([weight for weight, _ in parts])
            weights[f"decoder.{scope}_heads.bias"] = torch.cat([bias for _, bias in parts])
    if heads["image"]:
        for part in ("weight", "bias"):
            weights[f"decoder.image_norm.{part}"] = left.take(f"layer_norm_tmp.{part}", WIDTH)
    return weights


def _task(name: str) -> Task:
    modality = MODALITIES[name]
    bands = MODEL_INPUT_BANDS if name == INPUT else modality.bands
    outputs = len(modality.classes) or len(bands)
    constant = 1 / outputs if modality.kind == "categorical" else 0.0
    return Task(name, bands, Scaling(((0.0,) * len(bands),), ((1.0,) * len(bands),)), (constant,) * outputs)
