"""A pretrained encoder as a file and as a module: stored pixels in, features out.

The file is safetensors; its header holds the model's specification as JSON (size, patch, bands, normalisation,
pretext tasks, seed), so that nothing else is needed to use it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from mmearth_data.modalities import MODALITIES
from mmearth_train import checkpoint
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.encoder import Encoder
from mmearth_train.model import INPUT, ModelSpec
from mmearth_train.tasks import Standardise

FORMAT = "mmearth-encoder-1"
FILE_NAME = "encoder.safetensors"


class InputShapeError(ValueError):
    """Images do not fit the encoder; the message says what they must be."""


class PretrainedEncoder(nn.Module):
    """The encoder with every patch visible, and the normalisation that it was trained with."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normalise = Standardise(MODALITIES[INPUT], spec.bands, spec.scaling, spec.bands)
        self.encoder = Encoder(spec.model, len(spec.bands), spec.patch)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the input bands, in order."""
        return self.spec.bands

    @property
    def input_size(self) -> int:
        """Pixels on the side of the crops that it was trained on."""
        return self.spec.input_size

    @property
    def patch(self) -> int:
        """Pixels on the side of a patch."""
        return self.spec.patch

    @property
    def channels(self) -> int:
        """Length of a feature vector."""
        channels: int = self.encoder.channels
        return channels

    @property
    def pretext(self) -> tuple[str, ...]:
        """Names of the tasks that it was trained on."""
        return tuple(task.name for task in self.spec.tasks)

    def forward(self, images: Tensor, level: Integer[Tensor, " N"]) -> Float[Tensor, "N C h h"]:
        """The feature map of ``images`` (N, bands, H, H) in stored units (0: no data) of level 0 (L1C) or 1 (L2A).

        H is a multiple of the patch; h = H ÷ patch. Raises InputShapeError for anything else.
        """
        n, bands, height, width = images.shape
        if bands != len(self.bands) or height != width or height % self.patch:
            raise InputShapeError(
                f"images must be (N, {len(self.bands)}, H, H) with H a multiple of {self.patch}, "
                f"not {tuple(images.shape)}; select the bands {', '.join(self.bands)} and crop"
            )
        side = height // self.patch
        values, _ = self.normalise(images.permute(0, 2, 3, 1), level)
        everything = torch.arange(side**2, device=values.device).expand(n, -1)
        features: Tensor = self.encoder(values.permute(0, 3, 1, 2), everything)
        return features.transpose(1, 2).reshape(n, -1, side, side)

    @torch.no_grad()
    def features(self, images: Tensor, level: Integer[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """The mean of the feature map over all patches, without gradients; arguments as of ``forward``."""
        return self.forward(images, level).mean((2, 3))


def export_encoder(path: Path, spec: ModelSpec, encoder: Encoder) -> None:
    """Write an encoder's weights and its specification."""
    header = {"format": FORMAT, "spec": spec.to_json()}
    checkpoint.write(path, {f"encoder.{name}": p for name, p in encoder.state_dict().items()}, header)


def load_encoder(path: str | Path) -> PretrainedEncoder:
    """The encoder in an exported file, a training checkpoint or a finished run's folder, in evaluation mode.

    Raises CheckpointError where there is none or the file is damaged.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
        if not file.is_file():
            raise CheckpointError(f"{file} does not exist; finish the run with mmearth pretrain --resume")
    tensors, header = checkpoint.read(file)
    if "spec" not in header:
        raise CheckpointError(f"{file} holds no encoder of mmearth; give RUN/{FILE_NAME}")
    prefix = "encoder." if header["format"] == FORMAT else "model.encoder."
    encoder = PretrainedEncoder(ModelSpec.from_json(header["spec"]))
    encoder.encoder.load_state_dict(
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    )
    return encoder.eval()


def random_encoder(like: PretrainedEncoder, seed: int) -> PretrainedEncoder:
    """An encoder as it was before any training, of the same shape and with the same normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretrainedEncoder(like.spec).eval()
