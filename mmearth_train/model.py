"""MP-MAE: predict every modality of what is hidden from the Sentinel-2 pixels that are not (MMEarth, section 4)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from mmearth_data.modalities import MODALITIES
from mmearth_train import losses
from mmearth_train.decoder import Decoder
from mmearth_train.encoder import Encoder
from mmearth_train.tasks import Scaling, Standardise, Targets, Task
from mmearth_train.variant import MENDED, Variant

INPUT = "sentinel2"
PATCHES_PER_SIDE = 7


@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to build the model again, but its weights; written into every file of weights.

    ``scaling`` holds the statistics of the input bands in stored units, first L1C, then L2A. ``variant`` says which
    of the published model's choices are made.
    """

    model: str
    input_size: int
    bands: tuple[str, ...]
    scaling: Scaling
    tasks: tuple[Task, ...]
    seed: int
    variant: Variant = MENDED

    @property
    def patch(self) -> int:
        """Pixels on a patch's side: 8 at 56, 16 at 112."""
        return self.input_size // PATCHES_PER_SIDE

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The inverse of ``to_json``."""
        fields = json.loads(text)
        tasks = tuple(
            Task(task["name"], tuple(task["bands"]), _scaling(task["scaling"]), tuple(task["constant"]))
            for task in fields.pop("tasks")
        )
        scaling, bands = _scaling(fields.pop("scaling")), tuple(fields.pop("bands"))
        variant = Variant(**fields.pop("variant", {}))
        return cls(**fields, bands=bands, scaling=scaling, tasks=tasks, variant=variant)


def _scaling(fields: dict[str, Any]) -> Scaling:
    return Scaling(tuple(map(tuple, fields["mean"])), tuple(map(tuple, fields["std"])))


class Losses(NamedTuple):
    """Each task's loss summed over its valid targets, and how many there are, in the order of the model's tasks."""

    sums: Float[Tensor, " T"]
    counts: Integer[Tensor, " T"]


class MPMAE(nn.Module):
    """Encoder, decoder and one log-variance per task. Construction draws weights from torch's global generator.

    Where tasks weigh the same, log-variances are a buffer of zeros: every parameter has a gradient in every step.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normalise = Standardise(MODALITIES[INPUT], spec.bands, spec.scaling)
        fill = spec.variant.nodata == "zero"
        self.targets = nn.ModuleDict({task.name: Targets(task, spec.patch, fill) for task in spec.tasks})
        widths: dict[str, dict[str, int]] = {"pixel": {}, "image": {}}
        for target in self.task_targets:
            widths[target.task.modality.scope][target.task.name] = target.width
        self.encoder = Encoder(spec.model, len(spec.bands), spec.patch, spec.variant)
        self.decoder = Decoder(self.encoder.channels, widths["pixel"], widths["image"], spec.variant)
        self.log_vars: Tensor
        if spec.variant.weighting == "uncertainty":
            self.log_vars = nn.Parameter(torch.zeros(len(spec.tasks)))
        else:
            self.register_buffer("log_vars", torch.zeros(len(spec.tasks)))

    @property
    def task_targets(self) -> tuple[Targets, ...]:
        """The target makers in the order of the tasks."""
        return tuple(self.targets.values())  # type: ignore[arg-type]

    def images(self, batch: dict[str, Tensor]) -> Float[Tensor, "N B H H"]:
        """The normalised input in channels-last memory; no-data is 0 and a NaN never gets past here."""
        values, _ = self.normalise(batch[INPUT].permute(0, 2, 3, 1), batch["level"])
        normalised: Tensor = values.permute(0, 3, 1, 2)
        return normalised

    def predict(
        self, batch: dict[str, Tensor], visible: Integer[Tensor, "N K"], masked: Integer[Tensor, "N M"]
    ) -> dict[str, Tensor]:
        """Predictions by task: (N, M, width) for pixel tasks, (N, width) for image tasks."""
        predictions: dict[str, Tensor] = self.decoder(self.encoder(self.images(batch), visible), visible, masked)
        return predictions

    def forward(
        self, batch: dict[str, Tensor], visible: Integer[Tensor, "N K"], masked: Integer[Tensor, "N M"]
    ) -> Losses:
        """Losses of a batch in stored dtypes (N, C, H, H) and (N, C), given its visible and masked patches."""
        predictions = self.predict(batch, visible, masked)
        pairs = []
        for target in self.task_targets:
            values, valid = target(batch, masked)
            prediction = predictions[target.task.name].to(self.log_vars.dtype)
            pairs.append(target.compare(prediction, values, valid))
        return Losses(torch.stack([s for s, _ in pairs]), torch.stack([c for _, c in pairs]))

    def objective(self, found: Losses) -> Float[Tensor, ""]:
        """What is minimised: the tasks' mean losses, weighted by uncertainty or added."""
        return losses.weigh(losses.means(found.sums, found.counts), found.counts, self.log_vars)

    def decays(self, name: str) -> bool:
        """Whether weight decay takes in the parameter called ``name``."""
        vectors = self.spec.variant.decay == "published" and ("grn." in name or name.endswith("mask_token"))
        return vectors or self.get_parameter(name).ndim > 1
