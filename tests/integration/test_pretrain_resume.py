"""Pretraining end to end on a small store: interrupted in every way, it ends with the same weights bit by bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmearth_data.statistics import finalize
from mmearth_data.store import StoreError, open_store
from mmearth_data.store import statistics as store_statistics
from mmearth_train import checkpoint
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.config import PretrainConfig, RunError
from mmearth_train.encoder import UnknownModelError
from mmearth_train.failures import DivergedError
from mmearth_train.pretrain import Run, pretrain
from mmearth_train.pretrained import load_encoder
from mmearth_train.tasks import PretextError
from tests.pretraining import ONLY_AT_THE_END, ROOT, STEPS, command, configure
from tests.synthetic import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 training tiles: four steps of five or six make an epoch."""
    return make_store(tmp_path_factory.mktemp("pretrain") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("pretrain") / "whole"
    final = pretrain(configure(store, out))
    assert final == checkpoint.found(out)[-1]
    assert len(checkpoint.found(out)) == STEPS
    return out


def state(out: Path) -> dict[str, Tensor]:
    """Weights and moments of a run's last checkpoint, and the exported weights."""
    last = checkpoint.load(checkpoint.found(out)[-1])
    assert last.step == STEPS
    encoder = load_encoder(out).state_dict()
    assert all(torch.equal(t, last.tensors[f"model.{name}"]) for name, t in encoder.items())
    return last.tensors


def assert_same(out: Path, whole: Path) -> None:
    expected, found = state(whole), state(out)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert steps(out) == steps(whole)
    assert not list(out.rglob("*.tmp"))


def steps(out: Path) -> list[tuple[str, int, dict[str, float]]]:
    """What the metrics say, but speed."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["split"], line["step"], line["tasks"]) for line in lines]


def copy_until(whole: Path, out: Path, step: int) -> Path:
    """A run as it was after ``step`` steps, with what it had logged a little further."""
    (out / checkpoint.FOLDER).mkdir(parents=True)
    for path in checkpoint.found(whole)[:step]:
        shutil.copy(path, out / checkpoint.FOLDER)
    (out / checkpoint.FOLDER / "step-00000099.safetensors.1.tmp").write_bytes(b"unfinished")
    lines = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[: step + 3]) + '{"split": "tr')
    return out


def start(config: PretrainConfig) -> subprocess.Popen[str]:
    """Start a run in a process of its own and wait until it has saved its third step."""
    process = subprocess.Popen(command(config), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline = time.monotonic() + 200
    while len(checkpoint.found(config.out)) < 3:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_losses_are_logged_for_every_step_and_validation(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in training] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if line["split"] == "val"] == [0, STEPS // 2, STEPS]
    for line in training:
        assert len(line["tasks"]) == 12
        total = sum(
            math.exp(-line["log_vars"][name]) * loss + line["log_vars"][name] for name, loss in line["tasks"].items()
        )
        assert total == pytest.approx(line["loss"], rel=1e-5)
    assert set(lines[0]["constant"]) == set(lines[0]["tasks"])
    assert training[-1]["loss"] < training[0]["loss"]


def test_the_exported_encoder_says_which_preset_it_was_trained_with(whole: Path) -> None:
    """The demo's model is that of the default."""
    _, header = checkpoint.read(whole / "encoder.safetensors")
    assert header["preset"] == "demo"


@pytest.mark.parametrize("step", [3, 4])
def test_half_the_steps_and_then_the_rest_are_all_the_steps(
    store: Path, whole: Path, tmp_path: Path, step: int
) -> None:
    out = copy_until(whole, tmp_path / "run", step)
    pretrain(configure(store, out, resume=True, save_every=ONLY_AT_THE_END))
    assert_same(out, whole)


def test_half_the_steps_and_then_the_rest_are_all_the_steps_in_several_threads(store: Path, tmp_path: Path) -> None:
    """As by default, where there are more cores than one; with few steps of a small model."""
    small = {"threads": 2, "model": "mini", "pretext": "sentinel2,biome", "epochs": 1, "save_every": 2}
    config = configure(store, tmp_path / "whole", **small)
    whole = checkpoint.load(pretrain(config))
    assert torch.get_num_threads() == 2
    out = copy_until(config.out, tmp_path / "run", 1)
    last = checkpoint.load(pretrain(dataclasses.replace(config, out=out, resume=True)))
    assert whole.step == last.step == 4
    assert last.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(last.tensors[name], whole.tensors[name]) for name in whole.tensors)
    assert steps(out) == steps(config.out)


def test_killed_and_resumed_it_ends_with_the_same_weights(store: Path, whole: Path, tmp_path: Path) -> None:
    config = configure(store, tmp_path / "run")
    process = start(config)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    last = checkpoint.latest(config.out)
    assert last is not None
    assert 3 <= last.step < STEPS
    pretrain(dataclasses.replace(config, resume=True, save_every=ONLY_AT_THE_END))
    assert_same(config.out, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_asked_to_stop_it_saves_and_exits(
    store: Path, whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = configure(store, tmp_path / "run", save_every=3)
    process = subprocess.Popen(command(config), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (config.out / "metrics.jsonl").is_file() or len(steps(config.out)) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "saved; continue with --resume" in errors
    last = checkpoint.latest(config.out)
    assert last is not None
    assert last.step < STEPS
    assert last.step == steps(config.out)[-1][1]
    pretrain(dataclasses.replace(config, resume=True, save_every=ONLY_AT_THE_END))
    assert_same(config.out, whole)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    store: Path, whole: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = copy_until(whole, tmp_path / "run", STEPS)
    path = checkpoint.found(out)[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "truncated": content[:-1000], "empty": b""}[damage])
    pretrain(configure(store, out, resume=True, save_every=ONLY_AT_THE_END))
    assert f"{path}" in caplog.text
    assert "falling back to the checkpoint before it" in caplog.text
    assert_same(out, whole)


def test_without_an_intact_checkpoint_the_run_is_refused(
    store: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = copy_until(whole, tmp_path / "run", 2)
    paths = checkpoint.found(out)
    for path in paths:
        path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .+ is damaged; start again"):
        pretrain(configure(store, out, resume=True, save_every=ONLY_AT_THE_END))
    said = [record.getMessage() for record in caplog.records if record.name == checkpoint.__name__]
    assert [message.partition("; ")[2].rpartition("; ")[2] for message in said] == [
        "falling back to the checkpoint before it",
        "there is no checkpoint before it",
    ]
    assert checkpoint.found(out) == paths


def test_resuming_nothing_starts_anew_and_says_so(
    store: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(configure(store, tmp_path / "run", resume=True, save_every=ONLY_AT_THE_END))
    assert "starting anew" in " ".join(capsys.readouterr().err.split())
    assert_same(tmp_path / "run", whole)


def test_resuming_a_finished_run_changes_nothing(store: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    assert pretrain(configure(store, out, resume=True)) == checkpoint.found(out)[-1]
    assert_same(out, whole)


def test_only_the_last_checkpoints_are_kept(store: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_until(whole, tmp_path / "run", 5)
    pretrain(configure(store, out, resume=True, keep=2))
    assert [checkpoint.load(path).step for path in checkpoint.found(out)] == [STEPS - 1, STEPS]


def test_the_result_does_not_depend_on_how_it_is_logged_or_saved(store: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(configure(store, out, save_every=5, log_every=4, validate_every=2, keep=1))
    expected, found = state(whole), state(out)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pretext": "sentinel3"}, PretextError, "unknown pretext task 'sentinel3'; choose from: all, pixel, image, "),
        ({"model": "giant"}, UnknownModelError, "unknown model 'giant'; choose from: atto"),
        ({"epochs": 0}, RunError, "--epochs is 0; it must be at least 1"),
        ({"threads": -3}, RunError, "--threads is -3; it must be at least 1"),
        ({"seed": 2**63}, RunError, "--seed is 9223372036854775808; it must be at least -9223372036854775808 and less"),
        (
            {"epochs": 1, "batch_size": 64},
            RunError,
            "one step with all 21 training tiles would train nothing.*--epochs",
        ),
        ({"input_size": 112}, RunError, "tiles of 64 pixels are smaller than --input-size 112"),
        ({"store": Path("/nowhere")}, StoreError, "/nowhere does not exist"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    store: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        pretrain(configure(store, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_used_folder_needs_resume_and_the_same_settings(store: Path, whole: Path) -> None:
    with pytest.raises(RunError, match="is not empty; continue its run with --resume or choose another --out"):
        pretrain(configure(store, whole))
    with pytest.raises(CheckpointError, match="was started with seed 0, not 1; resume with the same settings"):
        pretrain(configure(store, whole, resume=True, seed=1))


def test_a_folder_in_training_is_left_alone_until_its_trainer_is_gone(store: Path, whole: Path, tmp_path: Path) -> None:
    config = configure(store, copy_until(whole, tmp_path / "run", 5), resume=True)
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    holder = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    lock = config.out / ".lock"
    process = subprocess.Popen([sys.executable, "-c", holder, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        for resume in (True, False):
            with pytest.raises(RunError, match=r"run is being trained by another process; wait for it or stop it$"):
                pretrain(dataclasses.replace(config, resume=resume))
        assert before == {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file() and path != lock}
    finally:
        process.kill()
        process.communicate()
    pretrain(config)
    assert_same(config.out, whole)
    assert lock.is_file()


def test_a_folder_that_cannot_be_made_is_named(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run cannot be used \(Not a directory\); choose another --out"):
        pretrain(configure(store, tmp_path / "file" / "run"))


def test_a_lock_alone_does_not_make_a_folder_used(store: Path, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"")
    pretrain(configure(store, tmp_path, epochs=1, pretext="biome", save_every=ONLY_AT_THE_END))
    with pytest.raises(RunError, match="is not empty"):
        pretrain(configure(store, tmp_path, epochs=1, pretext="biome"))


def test_statistics_of_fewer_tiles_are_refused(store: Path, tmp_path: Path) -> None:
    tiles = tmp_path / "store"
    shutil.copytree(store, tiles)
    now = open_store(tiles).statistics
    store_statistics.save(tiles, dataclasses.replace(now, rows=12))
    with pytest.raises(RunError, match=r"are of 12 training tiles, it has 21; run mmearth finalize --store .+/store$"):
        pretrain(configure(tiles, tmp_path / "run"))
    finalize(tiles)
    Run(configure(tiles, tmp_path / "run"))


def test_a_run_is_not_continued_with_other_statistics(store: Path, whole: Path, tmp_path: Path) -> None:
    tiles, out = tmp_path / "store", copy_until(whole, tmp_path / "run", 3)
    shutil.copytree(store, tiles)
    now = open_store(tiles).statistics
    aster = {group: dataclasses.replace(bands, mean=bands.mean + 1) for group, bands in now.modalities["aster"].items()}
    store_statistics.save(tiles, dataclasses.replace(now, modalities={**now.modalities, "aster": aster}))
    with pytest.raises(CheckpointError, match=r"have changed since .+ was started; resume with the store as it was"):
        pretrain(configure(tiles, out, resume=True))
    finalize(tiles)
    pretrain(configure(tiles, out, resume=True, save_every=ONLY_AT_THE_END))
    assert_same(out, whole)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"save_every": 1, "validate_every": 2}, "a weight"),
        ({"save_every": ONLY_AT_THE_END, "validate_every": 1}, "a weight|the validation loss"),
        ({"save_every": ONLY_AT_THE_END, "log_every": 1}, "the training loss"),
    ],
)
def test_a_diverged_run_stops_and_leaves_only_finite_files(
    store: Path, tmp_path: Path, changes: dict[str, object], what: str
) -> None:
    config = configure(store, tmp_path, **{"log_every": 100, "pretext": "pixel", **changes})
    run = Run(config)
    run.recipe = dataclasses.replace(run.recipe, base_rate=1e38, warmup_epochs=0.0)
    with pytest.raises(DivergedError, match=rf"^({what}) is not finite after step \d; start again with another --out"):
        run.train()
    for path in checkpoint.found(tmp_path):
        assert all(t.isfinite().all() for name, t in checkpoint.load(path).tensors.items() if name.startswith("model"))
    assert steps(tmp_path)[0][:2] == ("val", 0)
