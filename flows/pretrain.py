"""Pretraining as a flow: the trainer in processes of its own, so that a crash or a signal stays with them.

The trainer knows nothing of Prefect: what the flow shows it reads from the run's metrics.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, cast
from uuid import UUID

from httpx import HTTPError
from prefect import flow
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.artifacts import PUBLISH_SECONDS, keep_table
from mmearth_train import metrics

logger = logging.getLogger(__name__)
_LAST_WORDS_SECONDS = 5.0
"""How long to wait for what an ended trainer said last: a process that it left behind may keep its errors open."""


class PretrainingError(RuntimeError):
    """The trainer ended without finishing; what it wrote stays, and the next run resumes."""


@flow(name="pretrain", flow_run_name="{out}")
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
    # On a terminal the trainer draws its own bar; elsewhere its last words belong on the page of the run.
    trainer = subprocess.Popen(command, stderr=None if sys.stderr.isatty() else subprocess.PIPE)
    errors = _PassedOn(trainer.stderr) if trainer.stderr else None
    code = _ended(trainer, out, artifact)
    if code != 0:
        said = errors.last_line() if errors else "its last line says why"
        raise PretrainingError(f"pretraining into {out} ended with exit code {code}: {said}; mend that, then run again")
    if not (out / "encoder.safetensors").is_file():
        raise PretrainingError(f"pretraining into {out} was stopped before its end; run it again to resume")
    keep_table("pretraining-losses", f"Validation losses of {out}", losses(out))
    return out


class _PassedOn:
    """What the trainer says on its way to where this process does, and the last line of it."""

    def __init__(self, errors: IO[bytes]) -> None:
        self._errors, self._last = errors, b""
        self._thread = threading.Thread(target=self._pass_on, name="trainer's errors", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        for line in self._errors:
            # Where nobody listens here any more the trainer must not stand still for that.
            with contextlib.suppress(OSError):
                sys.stderr.write(line.decode(errors="replace"))
            self._last = line.strip() or self._last

    def last_line(self) -> str:
        """The last line that is not empty, once the trainer has ended."""
        self._thread.join(_LAST_WORDS_SECONDS)
        return self._last.decode(errors="replace") or "it said nothing"


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
