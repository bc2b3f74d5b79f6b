"""Pretext tasks: what is predicted, how targets are made from stored values, which loss compares them.

A task follows from its modality's scope and kind. Pixel tasks are judged on masked patches only.

| scope | kind | target | loss |
|---|---|---|---|
| pixel | continuous | standardised values; sentinel2 per patch normalised on top | mean squared error |
| pixel | categorical | class index | cross-entropy |
| image | continuous, cyclic | standardised values; sine and cosine as they are | mean squared error |
| image | categorical | class index | cross-entropy |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from mmearth_data.modalities import MODALITIES, PRETEXT, Modality
from mmearth_train import losses

GROUPS: dict[str, tuple[str, ...]] = {
    "all": tuple(m.name for m in PRETEXT),
    "pixel": tuple(m.name for m in PRETEXT if m.scope == "pixel"),
    "image": tuple(m.name for m in PRETEXT if m.scope == "image"),
}
"""Names that stand for several pretext tasks."""


class PretextError(ValueError):
    """The pretext tasks asked for cannot be trained on; the message says why."""


def pretext_names(text: str) -> tuple[str, ...]:
    """The tasks that ``text`` names, in registry order: ``all``, ``pixel``, ``image`` or modalities with commas.

    Raises PretextError for any other name, and none at all; it names what there is.
    """
    asked: set[str] = set()
    for name in (part.strip() for part in text.split(",")):
        if name in GROUPS:
            asked.update(GROUPS[name])
        elif name in GROUPS["all"]:
            asked.add(name)
        else:
            wrong = f"{name} is never predicted" if name in MODALITIES else f"unknown pretext task {name!r}"
            raise PretextError(f"{wrong}; choose from: {', '.join((*GROUPS, *GROUPS['all']))}")
    return tuple(name for name in GROUPS["all"] if name in asked)


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each band, in stored units: one row for each level, or a single row."""

    mean: tuple[tuple[float, ...], ...]
    std: tuple[tuple[float, ...], ...]

    @classmethod
    def checked(cls, mean: Sequence[Sequence[float]], std: Sequence[Sequence[float]]) -> Scaling:
        """With 0 and 1 in place of what is undefined (a band without data) or would divide by zero (a constant)."""
        return cls(
            tuple(tuple(m if math.isfinite(m) else 0.0 for m in row) for row in mean),
            tuple(tuple(s if math.isfinite(s) and s > 0 else 1.0 for s in row) for row in std),
        )


@dataclass(frozen=True)
class Task:
    """One pretext task: its modality's name, the bands it predicts, and the numbers its targets need.

    ``scaling`` standardises continuous values. ``constant`` is the best prediction that ignores the image, estimated
    on the train split: a value per band in the target's own scale, or the frequency of each class.
    """

    name: str
    bands: tuple[str, ...]
    scaling: Scaling
    constant: tuple[float, ...]

    @property
    def modality(self) -> Modality:
        """The registry's entry."""
        return MODALITIES[self.name]

    @property
    def categorical(self) -> bool:
        """Whether classes are predicted."""
        return self.modality.kind == "categorical"

    @property
    def per_patch(self) -> bool:
        """Whether targets are normalised patch by patch: the model's own input, reconstructed."""
        return self.name == "sentinel2"

    @property
    def outputs(self) -> int:
        """Numbers predicted for each pixel, or for the image."""
        return len(self.modality.classes) if self.categorical else len(self.bands)


class Standardise(nn.Module):
    """Stored values with bands last to standardised ones, and where they are data; what is not becomes 0.

    ``bands`` are picked by name from ``stored_bands``, by default all of the modality's.
    """

    mean: Tensor
    std: Tensor
    bands: Tensor

    def __init__(
        self, modality: Modality, bands: Sequence[str], scaling: Scaling, stored_bands: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.nodata = modality.nodata
        stored_bands = modality.bands if stored_bands is None else stored_bands
        self.register_buffer("bands", torch.tensor([stored_bands.index(b) for b in bands]), persistent=False)
        self.register_buffer("mean", torch.tensor(scaling.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(scaling.std, dtype=torch.float32), persistent=False)

    def forward(
        self, stored: Tensor, level: Integer[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N *S B"], Bool[Tensor, "N *S B"]]:
        """``stored`` is (N, *S, stored bands); ``level`` chooses the statistics where they differ by level."""
        values = stored.to(self.mean.dtype)[..., self.bands]
        valid = torch.isfinite(values)
        if not math.isnan(self.nodata):
            valid &= values != self.nodata
        mean, std = self._rows(level, values.ndim)
        return torch.where(valid, (values - mean) / std, 0.0), valid

    def invert(self, scaled: Float[Tensor, "N *S B"], level: Integer[Tensor, " N"]) -> Float[Tensor, "N *S B"]:
        """Standardised values back to stored units."""
        mean, std = self._rows(level, scaled.ndim)
        return scaled * std + mean

    def _rows(self, level: Integer[Tensor, " N"], ndim: int) -> tuple[Tensor, Tensor]:
        """Each sample's mean and standard deviations, shaped to go with ``ndim`` dimensions."""
        row = level.long() if len(self.mean) > 1 else torch.zeros_like(level, dtype=torch.long)
        shape = (len(row), *(1,) * (ndim - 2), self.mean.shape[1])
        return self.mean[row].view(shape), self.std[row].view(shape)


class ClassIndex(nn.Module):
    """Stored class values to class indices; no-data and values that are no class become IGNORE."""

    table: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        table = torch.full((torch.iinfo(getattr(torch, modality.dtype)).max + 1,), losses.IGNORE)
        table[torch.from_numpy(modality.class_values)] = torch.arange(len(modality.classes))
        self.register_buffer("table", table, persistent=False)

    def forward(self, stored: Integer[Tensor, "N ... 1"]) -> Integer[Tensor, "N ..."]:
        """Class indices of the only band."""
        indices: Tensor = self.table[stored[..., 0].long()]
        return indices


class Targets(nn.Module):
    """Makes one task's targets and compares predictions with them.

    With ``fill`` continuous pixels without data are targets like any other: 0, their band's mean.
    """

    def __init__(self, task: Task, patch: int, fill: bool = False) -> None:
        super().__init__()
        self.task, self.patch, self.fill = task, patch, fill
        self.prepare = (
            ClassIndex(task.modality) if task.categorical else Standardise(task.modality, task.bands, task.scaling)
        )

    @property
    def width(self) -> int:
        """Rows of the task's head: outputs per patch (ordered row, column, output) or per image."""
        return self.task.outputs * (self.patch**2 if self.task.modality.scope == "pixel" else 1)

    def stored(self, batch: dict[str, Tensor], masked: Integer[Tensor, "N M"]) -> Tensor:
        """Stored values with bands last: (N, M, p, p, bands) of the masked patches, or (N, bands) of the image."""
        values = batch[self.task.name]
        return values if self.task.modality.scope == "image" else select_patches(values, masked, self.patch)

    def forward(self, batch: dict[str, Tensor], masked: Integer[Tensor, "N M"]) -> tuple[Tensor, Tensor | None]:
        """Targets, and where they are valid; class indices carry that themselves (None).

        Both are (N, M, p, p, bands) of pixels and (N, bands) of images; class indices lack the last dimension.
        """
        stored = self.stored(batch, masked)
        if isinstance(self.prepare, ClassIndex):
            return self.prepare(stored), None
        values, valid = self.prepare(stored, batch["level"])
        if self.fill and self.task.modality.scope == "pixel":
            valid = torch.ones_like(valid)
        return losses.normalise_patches(values, valid) if self.task.per_patch else (values, valid)

    def compare(self, prediction: Tensor, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum of the task's loss over valid targets, and their number, both (); targets are as ``forward`` makes them.

        ``prediction`` is (N, M, width) for pixels, (N, width) for images.
        """
        if valid is None:
            return losses.cross_entropy(prediction.reshape(*target.shape, self.task.outputs), target)
        return losses.squared_error(prediction.reshape(target.shape), target, valid)

    def compare_constant(self, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same, both (), for the best prediction that ignores the image: ``Task.constant`` everywhere."""
        constant = torch.tensor(self.task.constant, device=target.device, dtype=torch.float32)
        if valid is None:
            return losses.cross_entropy(constant.log().expand(*target.shape, self.task.outputs), target)
        return losses.squared_error(constant.expand(target.shape), target, valid)


def select_patches(images: Tensor, patches: Integer[Tensor, "N M"], patch: int) -> Tensor:
    """Patches (N, M, p, p, C) of images (N, C, H, H) by their index in row-major order, in the images' dtype."""
    n, c, h, _ = images.shape
    side = h // patch
    # CUDA indexes no uint16; for moving values about it does not matter what their bits mean.
    bits = images.view(torch.int16) if images.dtype == torch.uint16 else images
    grid = bits.view(n, c, side, patch, side, patch)
    batch = torch.arange(n, device=images.device)[:, None]
    return grid[batch, :, patches // side, :, patches % side].view(images.dtype).permute(0, 1, 3, 4, 2)
