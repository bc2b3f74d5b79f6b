"""An ablation's folder is carried on with what it was begun with, and refused in a line otherwise."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest

from benchmarks import ablation
from benchmarks.ablation import AblationSettings, adopt
from benchmarks.ablation_code import FILE_NAME as CODE_FILE
from benchmarks.ablation_code import note_code, of_other_code, trained_by
from mmearth_data.emulator import world
from mmearth_train import checkpoint, resume
from mmearth_train.config import RunError
from mmearth_train.evaluate import EvaluateConfig, Evaluation
from mmearth_train.evaluate.results import save
from mmearth_train.resume import code_version


@pytest.fixture
def begun(tmp_path: Path) -> AblationSettings:
    """Three runs of one arm, and the folder's settings."""
    settings = AblationSettings(out=tmp_path / "out", locations=56, epochs=2)
    adopt(settings)
    for seed in range(3):
        (settings.out / "runs" / "all" / f"seed-{seed}").mkdir(parents=True)
    return settings


def test_the_same_settings_and_further_seeds_carry_on(begun: AblationSettings) -> None:
    adopt(begun)
    adopt(dataclasses.replace(begun, seeds=5, workers=7))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 3}, r"out was begun with --epochs 2, not 3; choose another --out$"),
        ({"tile_size": 128}, r"out was begun with --tile-size 64, not 128; choose another --out$"),
        ({"world": 1}, r"out was begun with --world 0, not 1; choose another --out$"),
        (
            {"seeds": 2},
            r"out has runs of 3 seeds, not 2; give --seeds 3, remove the runs of the others, or choose another --out$",
        ),
    ],
)
def test_other_settings_and_fewer_seeds_are_refused(
    begun: AblationSettings, changed: dict[str, int], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        adopt(dataclasses.replace(begun, **changed))


def test_fewer_seeds_are_asked_once_the_other_runs_are_gone(begun: AblationSettings) -> None:
    shutil.rmtree(begun.out / "runs" / "all" / "seed-2")
    adopt(dataclasses.replace(begun, seeds=2))


def test_what_is_no_run_is_refused_before_probes_would_take_it_for_one(begun: AblationSettings) -> None:
    kept = begun.out / "runs" / "all" / "seed-0.bak"
    kept.mkdir()
    adopt(begun)
    (kept / ablation.ENCODER_FILE).touch()
    with pytest.raises(RunError, match=r"seed-0\.bak is no run of this ablation .*; move it out of .*/all$"):
        adopt(begun)


@pytest.mark.parametrize(("code", "again"), [(code_version(), False), ("of another version", True)])
def test_probes_are_made_again_where_other_code_made_them(
    begun: AblationSettings, code: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ablation.Job("all", 0, begun.out / "runs" / "all" / "seed-0")
    (job.out / ablation.ENCODER_FILE).touch()
    found = Evaluation("store", 1, 1, 5, 56, (), (), (), (), code)
    time.sleep(0.01)
    save(found, begun.out / ablation.EVALUATION_FILE)
    asked: list[EvaluateConfig] = []
    monkeypatch.setattr(ablation, "evaluate", lambda config: asked.append(config) or found)
    assert ablation.probe(begun, begun.out / "store.zarr", [job]) == found
    assert bool(asked) == again


def test_tiles_of_another_earth_are_refused(
    begun: AblationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte of a table of the world is another world; so is a folder that says nothing of its own."""
    sources = tmp_path / "world"
    shutil.copytree(Path(world.__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(world, "__file__", str(sources / "__init__.py"))
    adopt(begun)
    with (sources / "ecoregions.csv").open("ab") as table:
        table.write(b"\n")
    message = r"out holds tiles of another emulated Earth than this version's; choose another --out$"
    with pytest.raises(RunError, match=message):
        adopt(begun)
    monkeypatch.undo()
    adopt(begun)
    file = begun.out / ablation.SETTINGS
    made = json.loads(file.read_text())
    file.write_text(json.dumps({name: made[name] for name in ablation.FIXED}))
    with pytest.raises(RunError, match=message):
        adopt(begun)


def test_runs_that_were_trained_otherwise_are_refused(begun: AblationSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ablation.TRAINING, "batch_size", 4096)
    with pytest.raises(RunError, match=r"the runs in .+ are trained otherwise than this version does"):
        adopt(begun)


def saved(run: Path) -> Path:
    """The run with a checkpoint to go on from."""
    (run / checkpoint.FOLDER).mkdir()
    (run / checkpoint.FOLDER / "step-00000007.safetensors").touch()
    return run


def test_runs_of_other_code_are_kept_and_named(
    begun: AblationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment in the trainer makes another version: a folder is still carried on, with a line that says so."""
    first, second, third = (begun.out / "runs" / "all" / f"seed-{seed}" for seed in range(3))
    for run in (first, second):
        note_code(run)
        saved(run)
    before = code_version()
    assert of_other_code(begun.out) == ""
    sources = tmp_path / "mmearth_train"
    shutil.copytree(Path(resume.__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(resume, "__file__", str(sources / "resume.py"))
    assert of_other_code(begun.out) == ""
    with (sources / "losses.py").open("a") as source:
        source.write("# a comment\n")
    now = code_version()
    assert now != before
    adopt(begun)
    note_code(second)
    note_code(saved(third))
    assert of_other_code(begun.out) == (
        f"3 of 3 runs in {begun.out / 'runs'} were not trained by this version alone ({now}) and are kept: "
        f"all/seed-0 by {before}; all/seed-1 by {before} then {now}; all/seed-2 by unknown then {now}; "
        "if what it trains has changed, remove them or choose another --out"
    )
    for run in (first, second, third):
        shutil.rmtree(run / checkpoint.FOLDER)
    assert of_other_code(begun.out) == "", "without a checkpoint a run starts anew"
    note_code(second)
    assert trained_by(second) == [now]


def test_a_finished_run_of_an_unknown_version_is_named(begun: AblationSettings) -> None:
    run = begun.out / "runs" / "all" / "seed-0"
    (run / ablation.ENCODER_FILE).touch()
    for content in (None, ""):
        if content is not None:
            (run / CODE_FILE).write_text(content)
        assert trained_by(run) == ["unknown"]
        assert "1 of 1 runs" in of_other_code(begun.out)


@pytest.mark.parametrize("folder", ["store.zarr", "runs"])
def test_a_folder_that_has_lost_its_settings_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(
        RunError, match=r"holds tiles or runs and no settings\.json that says which; choose another --out$"
    ):
        adopt(AblationSettings(out=tmp_path))
    assert not (tmp_path / ablation.SETTINGS).exists()
