"""Checkpoints: safetensors files written atomically, each with a checksum of all it holds; nothing is ever unpickled.

A run's state is its weights, the optimiser's moments and the number of steps taken: the learning rate, the loader's
position and every random draw follow from that number. Beside it a checkpoint says how the run was started, by which
code, and which validation was the best until then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mmearth_train.model import ModelSpec
from mmearth_train.sharing import collected, placed_like

FORMAT = "mmearth-checkpoint-1"
FOLDER = "checkpoints"
BEST = "best.safetensors"
"""A link to the checkpoint with the best validation so far, which is kept."""

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """The file is not what it should be, or does not belong to this run; the message says what to do."""


@dataclass(frozen=True)
class Best:
    """The step with the best validation of a run so far, and its score (small is good)."""

    step: int
    score: float


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors and what its header says.

    ``settings`` identify the run that it belongs to: only with the same can it be continued. ``origin`` is everything
    else that is worth knowing about how the run was made: its whole configuration, the code, the processes.
    """

    path: Path
    tensors: dict[str, Tensor]
    spec: ModelSpec
    step: int
    settings: dict[str, str | int | float]
    origin: dict[str, Any]
    best: Best | None

    def weights(self, prefix: str = "model.") -> dict[str, Tensor]:
        """The tensors whose names start with ``prefix``, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def digest(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the tensors, and the header."""
    total = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file with its checksum: complete under its name, or not there at all.

    Raises CheckpointError where that is impossible.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    content = save(tensors, {**header, "sha256": digest(tensors, header)})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror}); make room, then use --resume") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file that ``write`` made; CheckpointError where it is missing or fails its checksum."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the path of an exported encoder or a checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); it is damaged or no safetensors file") from error
    if header.pop("sha256", None) != digest(tensors, header):
        raise CheckpointError(f"{path} fails its checksum; it is damaged or was not written by mmearth")
    return tensors, header


def save_run(
    out: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    spec: ModelSpec,
    step: int,
    settings: dict[str, str | int | float],
    keep: int,
    *,
    origin: dict[str, Any] | None = None,
    best: Best | None = None,
    writes: bool = True,
) -> Path:
    """Write the state after ``step`` steps and drop all but the last ``keep`` checkpoints and the best.

    Processes that share weights out must all come here; those whose ``writes`` is false only hand over their part.
    """
    held = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        held |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    tensors = collected(held, keeps=writes)
    path = _path(out, step)
    if not writes:
        return path
    header = {"format": FORMAT, "spec": spec.to_json(), "step": str(step), "settings": json.dumps(settings)}
    header |= {"origin": json.dumps(origin or {}), "best": json.dumps(best and asdict(best))}
    write(path, tensors, header)
    if best is not None:
        link_best(out, best)
    for old in found(out)[:-keep]:
        if best is None or old != _path(out, best.step):
            old.unlink(missing_ok=True)
    return path


def link_best(out: Path, best: Best) -> None:
    """Let the link lead to the best checkpoint, if that is still there."""
    path = _path(out, best.step)
    if path.is_file():
        temporary = path.with_name(f"{BEST}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name)
        temporary.replace(path.with_name(BEST))


def load(path: Path) -> Checkpoint:
    """The checkpoint at ``path``; CheckpointError where it is none or damaged."""
    tensors, header = read(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no training checkpoint; those lie in RUN/{FOLDER}")
    spec, settings = ModelSpec.from_json(header["spec"]), json.loads(header["settings"])
    origin, best = json.loads(header.get("origin", "{}")), json.loads(header.get("best", "null"))
    return Checkpoint(path, tensors, spec, int(header["step"]), settings, origin, best and Best(**best))


def _path(out: Path, step: int) -> Path:
    return out / FOLDER / f"step-{step:08d}.safetensors"


def found(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((out / FOLDER).glob("step-*.safetensors"))


def clear_unfinished(out: Path) -> None:
    """Remove what a run that was killed while writing left behind."""
    for path in (out / FOLDER).glob("*.tmp"):
        path.unlink()


def latest(out: Path) -> Checkpoint | None:
    """The newest intact checkpoint of a run; damaged ones are named in a warning and passed over."""
    for path in reversed(found(out)):
        try:
            return load(path)
        except CheckpointError as error:
            logger.warning("%s; falling back to the checkpoint before it", error)
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and moments into a model and its optimiser."""
    there, weights = model.state_dict(), checkpoint.weights()
    model.load_state_dict({name: placed_like(t, there[name]) if name in there else t for name, t in weights.items()})
    for name, parameter in model.named_parameters():
        state = checkpoint.weights(f"optimizer.{name}.")
        optimizer.state[parameter] = {key: placed_like(value, parameter) for key, value in state.items()}
