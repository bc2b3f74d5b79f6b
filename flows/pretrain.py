"""Pretraining as a flow: torchrun in a process of its own, so that a crash or a signal stays with the trainer.

The trainer knows nothing of Prefect: what the flow shows it reads from the run's metrics.
"""

from __future__ import annotations

import contextlib
import logging
import signal
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
_STOPPED = 128 + signal.SIGTERM
"""The code of processes that were asked to stop; whether they saved they say themselves."""
_ERROR = b"mmearth pretrain: "
"""How the trainer begins the one line of an error."""


class PretrainingError(RuntimeError):
    """The trainer ended without finishing; what it wrote stays, and the next run resumes."""


@flow(name="pretrain", flow_run_name="{out}")
def pretrain(store: Path, out: Path, options: tuple[str, ...] = ()) -> Path:
    """Pretrain on ``store`` into ``out``, resuming what lies there; returns ``out``.

    ``options`` are further options of ``mmearth pretrain``; torchrun starts one process of it for each GPU, or as many
    as ``--processes`` says. A progress artifact shows the step, a table at the end the validation losses. Raises
    PretrainingError if the trainer fails.
    """
    torchrun = [sys.executable, "-m", "flows.torchrun"]
    command = [*torchrun, "--store", str(store), "--out", str(out), "--resume", *options]
    artifact = cast("UUID", create_progress_artifact(0.0, "pretraining", f"Pretraining into {out}"))
    # On a terminal the trainer draws its own bar; elsewhere what it says belongs on the page of the run.
    said_to = None if sys.stderr.isatty() else subprocess.PIPE
    # In a process group of its own, so that what is sent to this one's does not reach it twice.
    trainer = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said_to, process_group=0)
    errors = _PassedOn(trainer.stderr) if trainer.stderr else None
    code = _ended(trainer, out, artifact)
    said = errors.reason() if errors else "it says above why"
    if code not in (0, _STOPPED):
        raise PretrainingError(f"pretraining into {out} ended with exit code {code}: {said}; mend that, then run again")
    if not (out / "encoder.safetensors").is_file():
        raise PretrainingError(f"pretraining into {out} was stopped before its end ({said}); run it again to resume")
    keep_table("pretraining-losses", f"Validation losses of {out}", losses(out))
    return out


class _PassedOn:
    """What the trainer says on its way to where this process does, and of that the line that says why it ended."""

    def __init__(self, errors: IO[bytes]) -> None:
        self._errors = errors
        self._first_error, self._last = b"", b""
        self._thread = threading.Thread(target=self._pass_on, name="trainer's errors", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        for line in self._errors:
            # Where nobody listens here any more the trainer must not stand still for that.
            with contextlib.suppress(OSError):
                sys.stderr.write(line.decode(errors="replace"))
            self._last = line.strip() or self._last
            if line.startswith(_ERROR):
                self._first_error = self._first_error or self._last

    def reason(self) -> str:
        """Once the trainer has ended: its first error, for what other processes say of one follows it, or last line."""
        self._thread.join(_LAST_WORDS_SECONDS)
        return (self._first_error or self._last).decode(errors="replace") or "it said nothing"


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
    assert trainer.stdin is not None
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
        trainer.stdin.close()
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
