"""Pretraining as a flow: the trainer in processes of its own, so that a crash or a signal stays with them.

The trainer knows nothing of Prefect: what the flow shows it reads from the run's metrics.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import cast
from uuid import UUID

from httpx import HTTPError
from prefect import flow
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from flows.artifacts import PUBLISH_SECONDS
from mmearth_train import metrics

logger = logging.getLogger(__name__)


class PretrainingError(RuntimeError):
    """The trainer ended without finishing; what it wrote stays, and the next run resumes."""


@flow(name="pretrain")
def pretrain(store: Path, out: Path, options: tuple[str, ...] = ()) -> Path:
    """Pretrain on ``store`` into ``out``, resuming what lies there; returns ``out``.

    ``options`` are further options of ``mmearth pretrain``, which starts one process for each GPU. A progress artifact
    shows the step, a table at the end the validation losses. Raises PretrainingError if the trainer fails.
    """
    command = [
        sys.executable,
        "-m",
        "flows",
        "pretrain",
        "--store",
        str(store),
        "--out",
        str(out),
        "--resume",
        *options,
    ]
    artifact = cast("UUID", create_progress_artifact(0.0, "pretraining", f"Pretraining into {out}"))
    code = _ended(subprocess.Popen(command), out, artifact)
    if code != 0:
        raise PretrainingError(
            f"pretraining into {out} ended with exit code {code}; mend what its last line says, then run again"
        )
    if not (out / "encoder.safetensors").is_file():
        raise PretrainingError(f"pretraining into {out} was stopped before its end; run it again to resume")
    create_table_artifact(losses(out), "pretraining-losses", f"Validation losses of {out}")
    return out


def losses(out: Path) -> list[dict[str, str]]:
    """A run's last validation as a table: each task's loss beside its best constant's."""
    line = metrics.last(out, "val")
    if line is None:
        return []
    return [
        {"task": name, "validation": f"{loss:.4g}", "best constant": f"{line['constant'][name]:.4g}"}
        for name, loss in line["tasks"].items()
    ]


def _ended(trainer: subprocess.Popen[bytes], out: Path, artifact: UUID) -> int:
    """The trainer's exit code; whoever is interrupted meanwhile gives it the time to save."""
    try:
        while True:
            try:
                code = trainer.wait(PUBLISH_SECONDS)
            except subprocess.TimeoutExpired:
                _publish(out, artifact)
            else:
                _publish(out, artifact)
                return code
    except BaseException:
        trainer.terminate()
        trainer.wait()
        raise


def _publish(out: Path, artifact: UUID) -> None:
    line = metrics.last(out, "train")
    if line is None:
        return
    description = (
        f"Pretraining into {out}: step {line['step']} of {line['steps']}, loss {line['loss']:.4g}, "
        f"gradient norm {line['gradient_norm']:.3g}, {line['images_per_second']:.0f} images a second"
    )
    try:
        update_progress_artifact(artifact, 100 * line["step"] / line["steps"], description=description)
    except HTTPError as error:
        # Days of training do not end because the server that shows them is away for a while.
        logger.warning("Prefect was not told how far pretraining is: %s", error)
