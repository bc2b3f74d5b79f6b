"""Pretraining as a flow: the trainer in a process of its own, so that a crash or a signal stays with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefect import flow


class PretrainingError(RuntimeError):
    """The trainer ended without finishing; what it wrote stays, and the next run resumes."""


@flow(name="pretrain")
def pretrain(store: Path, out: Path, options: tuple[str, ...] = ()) -> Path:
    """Pretrain on ``store`` into ``out``, resuming what lies there; returns ``out``.

    ``options`` are further options of ``mmearth pretrain``. Raises PretrainingError if the trainer fails.
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
    code = _ended(subprocess.Popen(command))
    if code != 0:
        raise PretrainingError(
            f"pretraining into {out} ended with exit code {code}; mend what its last line says, then run again"
        )
    if not (out / "encoder.safetensors").is_file():
        raise PretrainingError(f"pretraining into {out} was stopped before its end; run it again to resume")
    return out


def _ended(trainer: subprocess.Popen[bytes]) -> int:
    """The trainer's exit code; whoever is interrupted meanwhile gives it the time to save."""
    try:
        return trainer.wait()
    except BaseException:
        trainer.terminate()
        trainer.wait()
        raise
