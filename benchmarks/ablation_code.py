"""Which code trained an ablation's runs: kept beside each of them, so that none is averaged with others unnoticed.

Other code is no reason to refuse a folder. A version is a digest of the trainer's sources and another one after any
change, of a comment too, and hours of training are not thrown away for that; whoever changed them knows what it means.
"""

from __future__ import annotations

from pathlib import Path

from mmearth_train import checkpoint
from mmearth_train.pretrained import FILE_NAME as ENCODER_FILE
from mmearth_train.resume import code_version

FILE_NAME = "code.txt"
"""In a run's folder: the versions that trained it, one a line."""
UNKNOWN = "unknown"


def trained_by(run: Path) -> list[str]:
    """The versions that trained a run, first to last; unknown where it began before that was kept."""
    file = run / FILE_NAME
    return (file.read_text().split() if file.is_file() else []) or [UNKNOWN]


def note_code(run: Path) -> None:
    """Keep that this version trains a run from here on, beside those that trained what it goes on from."""
    before = trained_by(run) if checkpoint.found(run) else []
    (run / FILE_NAME).write_text("".join(f"{version}\n" for version in dict.fromkeys([*before, code_version()])))


def of_other_code(out: Path) -> str:
    """A line on the runs in ``out`` that this version did not train, or not alone; empty where there are none."""
    runs = [run for run in sorted(out.glob("runs/*/*")) if (run / ENCODER_FILE).is_file() or checkpoint.found(run)]
    others: dict[str, list[str]] = {}
    for run in runs:
        if trained_by(run) != [code_version()]:
            others.setdefault(" then ".join(trained_by(run)), []).append(f"{run.parent.name}/{run.name}")
    if not others:
        return ""
    named = "; ".join(f"{', '.join(own)} by {version}" for version, own in others.items())
    return (
        f"{sum(map(len, others.values()))} of {len(runs)} runs in {out / 'runs'} were not trained by this version "
        f"alone ({code_version()}) and are kept: {named}; if what it trains has changed, remove them or choose "
        "another --out"
    )
