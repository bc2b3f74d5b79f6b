"""Pages that show a run while it lasts, each where it is asked for: TensorBoard, and Weights & Biases."""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmearth_train.config import PretrainConfig, RunError

if TYPE_CHECKING:
    import wandb
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD_FOLDER = "tensorboard"
WANDB_FOLDER = "wandb"
WANDB_PROJECT = "mmearth"
"""Where runs go unless WANDB_PROJECT in the environment says otherwise."""

Pictures = dict[str, NDArray[np.float64]]
"""Images (H, W, 3) between 0 and 1 by name."""


class Board(Protocol):
    """Where figures and pictures of a step appear."""

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """Show numbers by name; names with a slash are grouped by what stands before it."""

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Show images."""

    def close(self, *, failed: bool) -> None:
        """Leave nothing unwritten; ``failed`` says that an error ends the run."""


def boards_of(config: PretrainConfig, origin: dict[str, Any], step: int) -> list[Board]:
    """The boards that ``config`` asks for, to be written to from ``step`` on; ``origin`` says how the run is made.

    RunError where a package is missing, Weights & Biases does not start or a folder cannot be written; no board is left
    open then, and without a package none is begun.
    """
    boards: list[Board] = []
    writer = _summary_writer() if config.tensorboard else None
    with ExitStack() as begun:
        if config.wandb:
            # First, for it fails more often, and then leaves a folder that a run can still start in.
            boards.append(WeightsAndBiases(config.out, origin))
            begun.callback(boards[-1].close, failed=True)
        if writer is not None:
            boards.append(TensorBoard(writer, config.out / TENSORBOARD_FOLDER, step))
        begun.pop_all()
    return boards


def _summary_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError(
            "--tensorboard needs the package tensorboard; install it with: pip install tensorboard"
        ) from error
    return SummaryWriter


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, writer: type[SummaryWriter], folder: Path, step: int) -> None:
        try:
            # What an earlier process wrote after the step that it is resumed from is written again.
            self._writer: SummaryWriter = writer(str(folder), purge_step=step + 1)
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}); mend that, or leave out --tensorboard"
            ) from error

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """Scalars by the names given."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Images, on the disk when this returns."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """The files say nothing of how a run ended."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases for the folder, also over several processes that resume it.

    The environment says where to (WANDB_PROJECT, WANDB_ENTITY) and how (WANDB_MODE=offline keeps it in RUN/wandb).
    A resumed run shows the steps after its checkpoint a second time, with the same values.
    """

    def __init__(self, out: Path, origin: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise RunError("--wandb needs the package wandb; install it with: pip install 'mmearth[wandb]'") from error
        identity = out / WANDB_FOLDER / "id"
        name = identity.read_text(encoding="utf-8") if identity.is_file() else uuid.uuid4().hex
        try:
            self._run: wandb.Run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", WANDB_PROJECT),
                id=name,
                name=out.name,
                dir=out,
                config=origin,
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            said = str(error).strip() or type(error).__name__
            raise RunError(
                f"Weights & Biases does not start ({said.splitlines()[0].rstrip('.')}); "
                "mend that, or set WANDB_MODE=offline"
            ) from error
        identity.parent.mkdir(exist_ok=True)
        identity.write_text(name, encoding="utf-8")
        self._image = wandb.Image
        self._run.define_metric("*", step_metric="step")

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """A row of the run's history."""
        self._run.log({**figures, "step": step})

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Images beside the history."""
        images = {name: self._image(np.rint(255 * picture).astype(np.uint8)) for name, picture in pictures.items()}
        self._run.log({**images, "step": step})

    def close(self, *, failed: bool) -> None:
        """Whether it failed is the run's state on the page."""
        self._run.finish(exit_code=int(failed))
