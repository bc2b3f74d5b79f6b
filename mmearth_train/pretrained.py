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
from mmearth_train import checkpoint, official
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.encoder import Encoder, Stem
from mmearth_train.model import INPUT, ModelSpec
from mmearth_train.sharing import collected
from mmearth_train.tasks import Standardise

FORMAT = "mmearth-encoder-1"
FILE_NAME = "encoder.safetensors"


class InputShapeError(ValueError):
    """Images do not fit the encoder; the message says what they must be."""


class LevelError(ValueError):
    """Levels do not fit the images; the message says what they must be."""


class PretrainedEncoder(nn.Module):
    """The encoder with every patch visible, and the normalisation that it was trained with.

    Response normalisation is per sample whatever it was in pretraining: features never depend on the batch.
    """

    def __init__(self, spec: ModelSpec, stem: Stem = "same") -> None:
        super().__init__()
        self.spec, self.stem = spec, stem
        self.normalise = Standardise(MODALITIES[INPUT], spec.bands, spec.scaling, spec.bands)
        self.encoder = Encoder(spec.model, len(spec.bands), spec.patch, spec.variant, dense=True)

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
        """The last of ``feature_maps``: one vector for each patch."""
        return self.feature_maps(images, level)[-1]

    def feature_maps(self, images: Tensor, level: Integer[Tensor, " N"]) -> tuple[Float[Tensor, "N C h w"], ...]:
        """Maps of ``images`` (N, bands, H, W) in stored units (0: no data) of level 0 (L1C) or 1 (L2A).

        Four scales, h = 8, 4, 2 and 1 × H ÷ patch, with 1, 2, 4 and 8 × the size's first channels. Raises
        InputShapeError where a dimension or a band is missing or H or W is no multiple of the patch, LevelError where
        ``level`` has not one of the two for each image; its values are not looked at on a GPU, which would wait.
        """
        self._check(images, level)
        values, _ = self.normalise(images.permute(0, 2, 3, 1), level)
        maps: tuple[Tensor, ...] = self.encoder.maps(values.permute(0, 3, 1, 2), self.stem)
        return maps

    def _check(self, images: Tensor, level: Tensor) -> None:
        """Refuses what would end in an error of torch's, or be broadcast, counted from the end or rounded."""
        seen = tuple(images.shape)
        if len(seen) != 4 or seen[1] != len(self.bands) or any(not side or side % self.patch for side in seen[2:]):
            raise InputShapeError(
                f"images must be (N, {len(self.bands)}, H, W) with H and W multiples of {self.patch}, "
                f"not {seen}; select the bands {', '.join(self.bands)} and crop"
            )
        rule = f"level must be ({seen[0]},) integers, 0 for an image of L1C and 1 for one of L2A"
        if level.shape != seen[:1] or level.is_floating_point():
            raise LevelError(f"{rule}, not {level.dtype} of shape {tuple(level.shape)}; give each image its own")
        if level.device.type == "cpu" and not torch.compiler.is_compiling():
            unknown = level[(level != 0) & (level != 1)]
            if len(unknown):
                raise LevelError(f"{rule}, not {int(unknown[0])}; give each image its own")

    @torch.no_grad()
    def features(self, images: Tensor, level: Integer[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """The mean of the feature map over all patches, without gradients; arguments as of ``forward``."""
        return self.forward(images, level).mean((2, 3))


def export_encoder(path: Path, spec: ModelSpec, encoder: Encoder, preset: str, *, writes: bool = True) -> None:
    """Write an encoder's weights, its specification and the name of the preset that it was trained with.

    Processes that share weights out must all come here; those whose ``writes`` is false only hand over their part.
    """
    tensors = collected({f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}, keeps=writes)
    header = {"format": FORMAT, "spec": spec.to_json(), "patch": str(spec.patch), "preset": preset}
    if writes:
        checkpoint.write(path, tensors, header)


def load_encoder(path: str | Path, *, statistics: str | Path | None = None, stem: Stem = "same") -> PretrainedEncoder:
    """The encoder in an exported file, a training checkpoint or a finished run's folder, in evaluation mode.

    A checkpoint that MMEarth's authors published (``.pth``) does not say how its input is scaled: ``statistics`` is
    their ``data_…_band_stats.json``. ``stem`` "published" leaves out the padding of the first convolution, as their
    classifier does in fine-tuning. Raises CheckpointError where there is no encoder or the file is damaged.
    """
    file = Path(path)
    if file.suffix == official.SUFFIX:
        if statistics is None:
            raise CheckpointError(
                f"{file} does not say how its input is scaled; give statistics=data_…_band_stats.json"
            )
        model = official.load_official(file, Path(statistics))
        return _encoder_of(model.spec, model.encoder.state_dict(), stem)
    if file.is_dir():
        file = file / FILE_NAME
        if not file.is_file():
            raise CheckpointError(f"{file} does not exist; finish the run with mmearth pretrain --resume")
    tensors, header = checkpoint.read(file)
    if "spec" not in header:
        raise CheckpointError(f"{file} holds no encoder of mmearth; give RUN/{FILE_NAME}")
    prefix = "encoder." if header["format"] == FORMAT else "model.encoder."
    weights = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return _encoder_of(ModelSpec.from_json(header["spec"]), weights, stem)


def _encoder_of(spec: ModelSpec, weights: dict[str, Tensor], stem: Stem) -> PretrainedEncoder:
    encoder = PretrainedEncoder(spec, stem)
    encoder.encoder.load_state_dict(weights)
    return encoder.eval()


def random_encoder(like: PretrainedEncoder, seed: int) -> PretrainedEncoder:
    """An encoder as it was before any training, of the same shape and with the same normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretrainedEncoder(like.spec).eval()
