"""Which pretext tasks pay: encoders of four sets of them, asked for water and roofs that none was trained on.

    make ablation [ARGS='--out ablation --locations 1400 --epochs 7']

On the emulated Earth, alone on a small machine: one store of MMEarth's modalities and the downstream ones; four arms
(sentinel2 alone, pixel, image, all) with three seeds each, the same tiles, steps and initial weights in every arm;
probes on geographic blocks beside the untrained encoders they began as and band means. Writes OUT/ablation.json and
OUT/ablation.md, which say what code trained and probed, and on which Earth. Killed at any moment and started again it
carries on: locations, shards, steps and runs that are done stay done.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import ablation_tables
from benchmarks.ablation_code import note_code, of_other_code, trained_by
from flows.cli import exit_with
from flows.emulated import emulator_beside
from flows.server import prefect_server
from mmearth_data.completion import is_finalized
from mmearth_data.emulator import world
from mmearth_train import metrics, run_lock
from mmearth_train.config import PretrainConfig, RunError
from mmearth_train.evaluate import EvaluateConfig, Evaluation, evaluate, load_evaluation
from mmearth_train.evaluate.results import FILE_NAME as EVALUATION_FILE
from mmearth_train.launch import ProcessError
from mmearth_train.pretrain import pretrain
from mmearth_train.pretrained import FILE_NAME as ENCODER_FILE
from mmearth_train.resume import code_version

ARMS = ("sentinel2", "pixel", "image", "all")
"""What each arm predicts, as ``--pretext`` says it."""
FIXED = ("locations", "tile_size", "epochs", "world")
"""Settings that a folder is begun with; seeds may be added later."""
TRAINING: dict[str, Any] = {"preset": "demo", "batch_size": 8, "base_rate": 2.4e-2}
"""How every arm is trained; docs/evaluation.md says how it was chosen."""
TASKS = ("water_share", "water_present", "built_share", "built_present")
LOG = "log.txt"
SETTINGS = "settings.json"
RESULT = "ablation.json"
PAGE = "ablation.md"
SAVING_SECONDS = 60.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class AblationSettings:
    """How large the ablation is and where it goes."""

    out: Path = Path("ablation")
    """Folder for the store, the runs and the result."""
    locations: int = 1400
    """Locations in all, equally many for each of 14 biomes and 4 years."""
    tile_size: int = 64
    """Pixels along one edge of a tile; crops have 56."""
    epochs: int = 7
    """How often each training tile is seen."""
    seeds: int = 3
    """Runs of each arm, with the seeds 0, 1, 2, …: initial weights, order, crops and masks."""
    world: int = 0
    """Seed of the emulated Earth."""
    workers: int = os.cpu_count() or 1
    """Runs trained at once, on one thread each."""


@dataclass(frozen=True)
class Job:
    """One run: an arm with a seed, and its folder."""

    arm: str
    seed: int
    out: Path

    @property
    def done(self) -> bool:
        """Whether it has trained to its end."""
        return (self.out / ENCODER_FILE).is_file()

    def steps(self) -> tuple[int, int]:
        """Steps logged so far and in all; 0 and 0 before the first."""
        line = metrics.last(self.out, "train")
        return (line["step"], line["steps"]) if line else (0, 0)


def collect(settings: AblationSettings, store: Path) -> None:
    """The store, with every downstream modality, from an emulator beside this process."""
    if (store / "zarr.json").is_file() and is_finalized(store):
        return
    out = settings.out
    with prefect_server(), emulator_beside(settings.world, out / "requests.jsonl") as url:
        from flows.collect import collect as collect_all
        from flows.finalize import finalize
        from flows.sample import sample
        from flows.settings import CollectSettings, SampleSettings

        asked = SampleSettings(
            locations=settings.locations,
            out=out / "locations.parquet",
            tile_size=settings.tile_size,
            emulator=url,
        )
        locations = asked.out if asked.out.is_file() else sample(asked)
        collect_all(CollectSettings(locations, store, emulator=url, downstream=("all",)))
        finalize(store)


def train(settings: AblationSettings, store: Path, jobs: Sequence[Job]) -> None:
    """Train every job that is not done, a few at once; ProcessError where one fails."""
    waiting = [job for job in jobs if not job.done]
    under_way: dict[Job, SpawnProcess] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress, _saved_with_us(under_way):
        bar = progress.add_task("pretraining", total=None)
        while waiting or under_way:
            while waiting and len(under_way) < settings.workers:
                job = waiting.pop(0)
                under_way[job] = _start(settings, store, job)
            time.sleep(_POLL_SECONDS)
            for job in [job for job, process in under_way.items() if not process.is_alive()]:
                code = under_way.pop(job).exitcode
                if not job.done:
                    raise ProcessError(f"{job.out} ended with exit code {code}; see {job.out / LOG}, then run again")
            done = [job.steps() for job in jobs]
            longest = max(total for _, total in done)
            progress.update(bar, completed=sum(step for step, _ in done), total=longest * len(jobs) or None)


def _start(settings: AblationSettings, store: Path, job: Job) -> SpawnProcess:
    job.out.mkdir(parents=True, exist_ok=True)
    config = PretrainConfig(
        store=store,
        out=job.out,
        pretext=job.arm,
        epochs=settings.epochs,
        validate_every=max(1, settings.epochs // 3),
        seed=job.seed,
        **TRAINING,
        resume=True,
        device="cpu",
        processes=1,
        threads=1,
    )
    process = multiprocessing.get_context("spawn").Process(target=_pretrain, args=(config,))
    process.start()
    return process


def _pretrain(config: PretrainConfig) -> None:
    """One run in a process of its own, which saves and ends when we are killed; what it says goes to a file."""
    os.setsid()  # Ctrl-C reaches us alone, and we ask it to save
    with (config.out / LOG).open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _wait_for_folder(config.out)
    note_code(config.out)
    pretrain(config)


def _wait_for_folder(out: Path) -> None:
    """A run whose ablation was killed a moment ago may still be saving; past that, the trainer says who has it."""
    until = time.monotonic() + SAVING_SECONDS
    while time.monotonic() < until:
        try:
            with run_lock.hold(out):
                return
        except RunError:
            time.sleep(_POLL_SECONDS)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _saved_with_us(processes: dict[Job, SpawnProcess]) -> Iterator[None]:
    """Runs that are under way when we stop save what they have."""
    try:
        yield
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def probe(settings: AblationSettings, store: Path, jobs: Sequence[Job]) -> Evaluation:
    """Probes of every arm, each one encoder with a run for each seed; what this code made of these runs is kept."""
    file = settings.out / EVALUATION_FILE
    newest = max((job.out / ENCODER_FILE).stat().st_mtime for job in jobs)
    if file.is_file() and file.stat().st_mtime > newest:
        found = load_evaluation(file)
        if found.code == code_version() and all(len(row.seeds) == settings.seeds for row in found.rows):
            return found
    arms = tuple(dict.fromkeys(job.out.parent for job in jobs))
    return evaluate(EvaluateConfig(store=store, checkpoint=arms, out=file, task=TASKS, seeds=settings.seeds))


def earth() -> str:
    """A digest of the sources and tables that the emulated Earth is computed from: another one, another Earth."""
    folder, total = Path(world.__file__).parent, hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".csv")):
        total.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def adopt(settings: AblationSettings) -> dict[str, Any]:
    """Keep what the folder's tiles and runs depend on and return it; RunError where those it holds are of another."""
    out, file = settings.out, settings.out / SETTINGS
    out.mkdir(parents=True, exist_ok=True)
    asked = {name: getattr(settings, name) for name in FIXED}
    if not file.is_file():
        if (out / "store.zarr").exists() or (out / "runs").exists():
            raise RunError(f"{out} holds tiles or runs and no {SETTINGS} that says which; choose another --out")
        partial = file.with_name(f".{SETTINGS}.{os.getpid()}")
        partial.write_text(json.dumps({**asked, "earth": earth(), "training": TRAINING}) + "\n")
        partial.replace(file)
    made: dict[str, Any] = json.loads(file.read_text())
    for name, value in asked.items():
        if made[name] != value:
            option = name.replace("_", "-")
            raise RunError(f"{out} was begun with --{option} {made[name]}, not {value}; choose another --out")
    if made.get("earth") != earth():
        raise RunError(f"{out} holds tiles of another emulated Earth than this version's; choose another --out")
    if made.get("training") != TRAINING:
        raise RunError(f"the runs in {out} are trained otherwise than this version does; choose another --out")
    found = {run: _seed(run) for run in sorted(out.glob("runs/*/*"))}
    beyond = [seed for seed in found.values() if seed is not None and seed >= settings.seeds]
    if beyond:
        raise RunError(
            f"{out} has runs of {max(beyond) + 1} seeds, not {settings.seeds}; give --seeds {max(beyond) + 1}, "
            f"remove the runs of the others, or choose another --out"
        )
    for run, seed in found.items():
        if seed is None and (run / ENCODER_FILE).is_file():
            raise RunError(
                f"{run} is no run of this ablation but would be probed like one; move it out of {run.parent}"
            )
    return made


def _seed(run: Path) -> int | None:
    """The seed of a run by its folder; None for what is no run's."""
    match = re.fullmatch(r"seed-(0|[1-9]\d*)", run.name)
    return int(match[1]) if match else None


def main(settings: AblationSettings) -> int:
    """Collect, train, probe, and write what came out; returns the exit code."""
    out = settings.out
    made, mixed = adopt(settings), of_other_code(out)
    if mixed:
        sys.stderr.write(f"make ablation: {mixed}\n")
    store = out / "store.zarr"
    jobs = [Job(arm, seed, out / "runs" / arm / f"seed-{seed}") for seed in range(settings.seeds) for arm in ARMS]
    marks = [(time.monotonic(), sum(os.times()[:4]))]
    collect(settings, store)
    marks.append((time.monotonic(), sum(os.times()[:4])))
    train(settings, store, jobs)
    marks.append((time.monotonic(), sum(os.times()[:4])))
    evaluation = probe(settings, store, jobs)
    marks.append((time.monotonic(), sum(os.times()[:4])))
    spent = {
        name: {"wall": after[0] - before[0], "cpu": after[1] - before[1]}
        for name, (before, after) in zip(("collect", "train", "probe"), pairwise(marks), strict=True)
    }
    runs = {arm: [job.out for job in jobs if job.arm == arm] for arm in ARMS}
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}
    document = {
        "settings": asked,
        "earth": made["earth"],
        "code": {
            "trained_by": {arm: [trained_by(run) for run in own] for arm, own in runs.items()},
            "probed_by": evaluation.code,
        },
        "seconds_since_this_start": spent,
        **ablation_tables.summarise(evaluation, store, runs),
    }
    (out / RESULT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    text = ablation_tables.markdown(document)
    (out / PAGE).write_text(text)
    minutes = {name: own["wall"] / 60 for name, own in spent.items()}
    sys.stdout.write(
        f"{text}\nThis page is {out / PAGE}, every number behind it {out / RESULT}. Since this start: "
        f"{minutes['collect']:.1f} minutes of collecting, {minutes['train']:.1f} of training, "
        f"{minutes['probe']:.1f} of probes.\n"
    )
    return 0


if __name__ == "__main__":
    chosen = tyro.cli(AblationSettings, prog="make ablation", description=__doc__)
    exit_with("make ablation", lambda: main(chosen))
