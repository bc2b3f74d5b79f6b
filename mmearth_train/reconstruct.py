"""What a model makes of tiles it sees a part of: input, mask, prediction and target, in stored units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmearth_data.modalities import MODALITIES
from mmearth_data.store import Store
from mmearth_train import checkpoint, losses
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.feed import with_masks
from mmearth_train.loader import Loader
from mmearth_train.model import INPUT, MPMAE, PATCHES_PER_SIDE
from mmearth_train.precision import autocast
from mmearth_train.tasks import ClassIndex, Targets
from mmearth_train.validation import MASK_EPOCH

Images = dict[str, NDArray[np.float32]]


@torch.no_grad()
def reconstruct(path: str | Path, store: Store, rows: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Images of ``rows`` under validation's crops and masks, by the model of a training checkpoint or a run's last.

    Keys: ``rows`` (n,), ascending; ``hidden`` (n, H, H) bool, true where a pixel was hidden; and for sentinel2 and
    each pixel task of the model ``NAME.target`` (n, bands, H, H) float32, NaN where there is no data, and
    ``NAME.prediction``, NaN where nothing was hidden. ``sentinel2.input`` is the target, NaN where hidden. Values are
    in stored units (stored class values for land cover). The prediction of sentinel2 is relative to each patch's mean
    and spread, which are taken from its target. Raises CheckpointError where there is no checkpoint.
    """
    found = checkpoint.latest(Path(path)) if Path(path).is_dir() else checkpoint.load(Path(path))
    if found is None:
        raise CheckpointError(f"{path} has no checkpoint; pretrain into it first")
    model = MPMAE(found.spec)
    model.load_state_dict(found.weights())
    return reconstruct_with(model, store, rows)


@torch.no_grad()
def reconstruct_with(model: MPMAE, store: Store, rows: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """The same by a model that is at hand, on whatever device it is."""
    pixel_tasks = [target for target in model.task_targets if target.task.modality.scope == "pixel"]
    names = (INPUT, *(target.task.name for target in pixel_tasks))
    spec, device = model.spec, model.log_vars.device
    loader = Loader(store, rows, names, batch_size=32, crop=spec.input_size, seed=spec.seed, augment=False)
    parts: list[dict[str, NDArray[np.generic]]] = []
    for stored in loader.epoch(0):
        batch = {name: values.to(device) for name, values in with_masks(stored, spec.seed, MASK_EPOCH).items()}
        visible, masked = batch["visible"], batch["masked"]
        with autocast(device):
            predictions = model.predict(batch, visible, masked)
        hidden = torch.zeros(len(masked), PATCHES_PER_SIDE**2, dtype=torch.bool, device=device)
        hidden.scatter_(1, masked, True)
        pixels = hidden.view(-1, PATCHES_PER_SIDE, PATCHES_PER_SIDE)
        pixels = pixels.repeat_interleave(spec.patch, 1).repeat_interleave(spec.patch, 2)
        part: dict[str, NDArray[np.generic]] = {"hidden": pixels.cpu().numpy()}
        seen = stored_values(batch, INPUT, spec.bands)
        part[f"{INPUT}.target"] = seen.cpu().numpy()
        part[f"{INPUT}.input"] = torch.where(pixels[:, None], torch.nan, seen).cpu().numpy()
        for target in pixel_tasks:
            name = target.task.name
            values = in_stored_units(target, predictions[name].float(), batch, masked)
            part[f"{name}.prediction"] = place(values, masked, spec.input_size).cpu().numpy()
            part[f"{name}.target"] = stored_values(batch, name, target.task.bands).cpu().numpy()
        parts.append(part)
    result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {"rows": np.sort(rows), **result}


def stored_values(batch: dict[str, Tensor], name: str, bands: tuple[str, ...]) -> Tensor:
    """Stored values (N, bands, H, H) as float32, NaN where there is no data."""
    modality = MODALITIES[name]
    values = batch[name].float()[:, [modality.bands.index(band) for band in bands]]
    return torch.where(values == modality.nodata, torch.nan, values)


def in_stored_units(target: Targets, prediction: Tensor, batch: dict[str, Tensor], masked: Tensor) -> Tensor:
    """A pixel task's predictions (N, M, width) as stored values of the masked patches (N, M, p, p, bands)."""
    prediction = prediction.view(*masked.shape, target.patch, target.patch, target.task.outputs)
    if isinstance(target.prepare, ClassIndex):
        classes = torch.from_numpy(target.task.modality.class_values).to(prediction.device)
        return classes[prediction.argmax(-1)][..., None].float()
    level = batch["level"]
    if target.task.per_patch:
        values, valid = target.prepare(target.stored(batch, masked), level)
        mean, spread = losses.patch_moments(values, valid)
        prediction = prediction * spread + mean
    return target.prepare.invert(prediction, level)


def place(patches: Tensor, masked: Tensor, size: int) -> Tensor:
    """Patches (N, M, p, p, bands) at their places in images (N, bands, size, size) that are NaN elsewhere."""
    n, _, p, _, bands = patches.shape
    side = size // p
    images = torch.full((n, side, p, side, p, bands), torch.nan, device=patches.device)
    images[torch.arange(n, device=patches.device)[:, None], masked // side, :, masked % side] = patches
    return images.reshape(n, size, size, bands).permute(0, 3, 1, 2)
