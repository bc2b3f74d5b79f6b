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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
ASIDE = ".damaged"
"""Ends the name of a damaged checkpoint that a run was resumed without, until the run has saved as late a step."""
_PIECE_BYTES = 1 << 24

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """The file is not what it should be, or does not belong to this run; the message says what to do."""


class DamagedError(CheckpointError):
    """The file was read and its content is not what was written; one that cannot be read now may well be intact."""


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
        with suppress(OSError):
            temporary.unlink()  # what is left of the room is wanted for other things
        raise CheckpointError(f"{path} cannot be written ({error.strerror}); make room, then use --resume") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file that ``write`` made.

    Raises DamagedError where it fails its checksum, CheckpointError where it is missing or cannot be read.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; give the path of an exported encoder or a checkpoint")
        with path.open("rb", buffering=0) as raw:
            while raw.read(_PIECE_BYTES):  # a disk that fails says so here; a mapped file would end the process
                pass
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except OSError as error:
        why = error.strerror or error
        raise CheckpointError(f"{path} cannot be read ({why}); make it readable or move it away") from error
    except SafetensorError as error:
        raise DamagedError(f"{path} cannot be read ({error}); it is damaged or no safetensors file") from error
    if header.pop("sha256", None) != digest(tensors, header):
        raise DamagedError(f"{path} fails its checksum; it is damaged or was not written by mmearth")
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
    """Write the state after ``step`` steps and drop all but the last ``keep`` checkpoints until it and the best.

    What was set aside goes as soon as the run is as far again. Processes that share weights out must all come here;
    those whose ``writes`` is false only hand over their part.
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
    link_best(out, best)
    with _tidying(out):
        for old in [saved for saved in found(out) if saved <= path][:-keep]:
            if best is None or old != _path(out, best.step):
                old.unlink(missing_ok=True)
        for aside in path.parent.glob(f"step-*.safetensors{ASIDE}"):
            if aside.with_name(aside.name.removesuffix(ASIDE)) <= path:
                aside.unlink(missing_ok=True)
    return path


@contextmanager
def _tidying(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise CheckpointError(
            f"{out / FOLDER} cannot be kept in order ({why}); mend that, then use --resume"
        ) from error


def link_best(out: Path, best: Best | None) -> None:
    """Let the link lead to the best checkpoint; without one that is still there, let there be no link."""
    link = out / FOLDER / BEST
    path = _path(out, best.step) if best is not None else None
    with _tidying(out):
        if path is None or not path.is_file():
            link.unlink(missing_ok=True)
            return
        temporary = link.with_name(f"{BEST}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name)
        temporary.replace(link)


def set_aside(out: Path, step: int) -> None:
    """Rename what follows the newest intact checkpoint, that of ``step``: nothing is lost, and nothing counts it."""
    for path in found(out):
        if path > _path(out, step):
            with _tidying(out):
                aside = path.rename(path.with_name(path.name + ASIDE))
            logger.warning("%s is kept as %s until the run has saved as late a step", path, aside.name)


def load(path: Path) -> Checkpoint:
    """The checkpoint at ``path``; DamagedError where it is damaged, CheckpointError where it is none or unreadable."""
    tensors, header = read(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no training checkpoint; those lie in RUN/{FOLDER}")
    spec, settings = ModelSpec.from_json(header["spec"]), json.loads(header["settings"])
    origin, best = json.loads(header.get("origin", "{}")), json.loads(header.get("best", "null"))
    return Checkpoint(path, tensors, spec, int(header["step"]), settings, origin, best and Best(**best))


def _path(out: Path, step: int) -> Path:
    return out / FOLDER / f"step-{step:08d}.safetensors"


def found(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; CheckpointError where their folder cannot be read."""
    folder = out / FOLDER
    try:
        paths = list(folder.iterdir())  # where it may not look, glob would find nothing
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror}); make it readable, then go on") from error
    return sorted(path for path in paths if path.match("step-*.safetensors"))


def clear_unfinished(out: Path) -> None:
    """Remove what a run that was killed while writing left behind."""
    with _tidying(out):
        for path in (out / FOLDER).glob("*.tmp"):
            path.unlink()


def latest(out: Path) -> Checkpoint | None:
    """The newest intact checkpoint of a run; damaged ones are named in a warning and passed over.

    Raises CheckpointError where one cannot be read, for what may be intact is no reason to train a step again.
    """
    paths = found(out)
    while paths:
        path = paths.pop()
        try:
            return load(path)
        except DamagedError as error:
            then = "falling back to the checkpoint before it" if paths else "there is no checkpoint before it"
            logger.warning("%s; %s", error, then)
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and moments into a model and its optimiser."""
    there, weights = model.state_dict(), checkpoint.weights()
    model.load_state_dict({name: placed_like(t, there[name]) if name in there else t for name, t in weights.items()})
    for name, parameter in model.named_parameters():
        state = checkpoint.weights(f"optimizer.{name}.")
        optimizer.state[parameter] = {key: placed_like(value, parameter) for key, value in state.items()}
