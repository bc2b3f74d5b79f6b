"""Several processes, or a step in several parts, train what one process trains in one part."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmearth_data.store import open_store
from mmearth_train import checkpoint, resume
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.config import PretrainConfig, RunError
from mmearth_train.distributed import ALONE, Processes
from mmearth_train.launch import launch
from mmearth_train.pretrain import Run, pretrain
from mmearth_train.pretrained import load_encoder
from mmearth_train.sharing import Weights, shared_out
from tests.pretraining import (
    EXCHANGED,
    HELD,
    ONLY_AT_THE_END,
    ROOT,
    command,
    configure,
    pretrain_counting,
    pretrain_exchanging,
    pretrain_in_double,
)
from tests.synthetic import make_store

SMALL = {
    "model": "mini",
    "epochs": 5,
    "save_every": ONLY_AT_THE_END,
    "validate_every": 5,
    "pretext": "sentinel2,sentinel1,biome",
}
"""Twenty steps of a model whose radar task has no valid target in some parts and many in others."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 training tiles: four steps of five or six, which two processes cannot halve, make an epoch."""
    return make_store(tmp_path_factory.mktemp("together") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


@pytest.fixture(scope="module")
def single(store: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    config = configure(store, tmp_path_factory.mktemp("together") / "single", **SMALL)
    pretrain(config)
    return config


@pytest.fixture(scope="module")
def double(store: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    out = tmp_path_factory.mktemp("together") / "double"
    config = configure(store, out, **{**SMALL, "save_every": 10})
    pretrain_in_double(config)
    return config


def final(out: Path) -> dict[str, Tensor]:
    """Weights and moments after the last step."""
    last = checkpoint.latest(out)
    assert last is not None
    assert last.step == 20
    return last.tensors


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of any weight or moment, relative to the largest value of its tensor."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-12)) for name in theirs
    )


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_equal_one_in_double_precision(double: PretrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(double, out=tmp_path / "two")
    assert launch(pretrain_in_double, config, 2) == checkpoint.found(config.out)[-1]
    assert distance(final(config.out), final(double.out)) < 1e-10
    for ours, theirs in zip(lines(config.out), lines(double.out), strict=True):
        assert ours["tasks"] == pytest.approx(theirs["tasks"], rel=1e-9)
        if theirs["split"] == "train":
            assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-9)


def test_a_step_in_parts_equals_a_step_at_once(double: PretrainConfig, tmp_path: Path) -> None:
    """Six samples at once, or three, two and one: the parts' targets are counted together, not averaged."""
    config = dataclasses.replace(double, out=tmp_path / "parts", micro_batch=2)
    pretrain_in_double(config)
    assert distance(final(config.out), final(double.out)) < 1e-10


def test_two_processes_of_torchrun_in_parts_equal_one_in_single_precision(
    single: PretrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(single, out=tmp_path / "two", micro_batch=2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = command(config)[2:]
    result = subprocess.run([*torchrun, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    assert distance(final(config.out), final(single.out)) < 1e-4
    assert [line["step"] for line in lines(config.out)] == [line["step"] for line in lines(single.out)]


def test_processes_that_share_weights_out_carry_on_what_one_began(double: PretrainConfig, tmp_path: Path) -> None:
    """Half the weights, gradients and moments each; in parts, of which the smaller share's last is empty.

    Nobody ever holds the model whole, be it to train, to validate or to draw pictures: at most the block that is
    computed on and the one that comes next.
    """
    config = dataclasses.replace(double, out=tmp_path / "shared", weights="shared", micro_batch=1, resume=True)
    config = dataclasses.replace(config, tensorboard=True)
    shutil.copytree(double.out, config.out)
    checkpoint.found(config.out)[-1].unlink()
    (config.out / "encoder.safetensors").unlink()
    assert launch(pretrain_counting, config, 2) == checkpoint.found(config.out)[-1]
    assert [int((config.out / f"{HELD}-{rank}").read_text()) in (1, 2) for rank in range(2)] == [True, True]
    assert distance(final(config.out), final(double.out)) < 1e-10
    for ours, theirs in zip(lines(config.out), lines(double.out), strict=True):
        assert ours["tasks"] == pytest.approx(theirs["tasks"], rel=1e-9)
        if theirs["split"] == "train":
            assert ours["log_vars"] == pytest.approx(theirs["log_vars"], rel=1e-9, abs=1e-12)
            assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-9)
    exported = load_encoder(config.out).state_dict()
    assert all(torch.equal(t, final(config.out)[f"model.{name}"].float()) for name, t in exported.items())


@pytest.mark.parametrize(
    ("asked", "size", "world", "expected"),
    [
        ("auto", "huge", 2, True),
        ("auto", "large", 2, False),
        ("whole", "huge", 2, False),
        ("shared", "atto", 2, True),
        ("auto", "huge", 1, False),
        ("shared", "huge", 1, False),
    ],
)
def test_weights_of_huge_are_shared_out_unless_one_asks_otherwise(
    asked: Weights, size: str, world: int, expected: bool
) -> None:
    assert shared_out(asked, size, Processes(0, world)) is expected


def wait_for(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until a run has written ``count`` lines of metrics, or saved a checkpoint."""
    deadline = time.monotonic() + 200
    while not path.is_file() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_asked_to_stop_all_processes_save_the_same_step(single: PretrainConfig, tmp_path: Path) -> None:
    """And another number of processes goes on from there to where one process alone would be."""
    config = dataclasses.replace(single, out=tmp_path / "two", processes=2, epochs=1000)
    process = subprocess.Popen(command(config), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(config.out / "metrics.jsonl", 4, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert errors.count("saved; continue with --resume") == 1
    last = checkpoint.latest(config.out)
    assert last is not None
    assert last.step == lines(config.out)[-1]["step"]
    after = dataclasses.replace(config, processes=1, save_every=last.step, keep=1000)
    found = []
    for again in (dataclasses.replace(after, resume=True), dataclasses.replace(after, out=tmp_path / "one")):
        process = subprocess.Popen(command(again), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        path = again.out / checkpoint.FOLDER / f"step-{2 * last.step:08d}.safetensors"
        wait_for(path, 0, process)
        process.kill()
        process.communicate()
        found.append(checkpoint.load(path).tensors)
    assert distance(*found) < 1e-4


def test_a_process_that_is_killed_ends_the_others_with_one_line(single: PretrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(single, out=tmp_path / "two", processes=2, epochs=1000)
    process = subprocess.Popen(command(config), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(config.out / "metrics.jsonl", 3, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    trainers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(trainers) == 2
    os.kill(trainers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Traceback" not in errors
    ours = [line for line in errors.splitlines() if line.startswith("mmearth")]
    assert len(ours) == 1
    assert ours[0].startswith("mmearth pretrain: process 1 of 2 was ended (exit code -9)")
    assert not any(Path(f"/proc/{pid}").exists() for pid in trainers)


def test_more_processes_than_a_step_has_tiles_are_refused(
    single: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any is started, and by each that torchrun has started."""
    config = dataclasses.replace(single, out=tmp_path / "many", batch_size=1)
    with pytest.raises(RunError, match=r"1 tiles in a step are too few for 2 processes; use fewer --processes"):
        Run(config, Processes(0, 2))
    monkeypatch.setattr(SpawnProcess, "start", lambda _: pytest.fail("a process was started"))
    with pytest.raises(RunError, match=r"1 tiles in a step are too few for 100 processes; use fewer --processes"):
        pretrain(dataclasses.replace(config, processes=100))
    assert not config.out.exists()


def test_gradients_are_exchanged_once_a_step_whatever_its_parts(single: PretrainConfig, tmp_path: Path) -> None:
    """Four steps, in each of which a process computes two or three parts of one sample."""
    config = dataclasses.replace(single, out=tmp_path / "counted", epochs=1, micro_batch=1)
    launch(pretrain_exchanging, config, 2)
    found = [json.loads((config.out / f"{EXCHANGED}-{rank}").read_text()) for rank in range(2)]
    assert found == [{"exchanges": 4, "parts": 12}] * 2


def test_a_step_is_never_larger_than_the_training_split(store: Path, tmp_path: Path) -> None:
    """The paper's batch is 4096: a store of 21 tiles gives one step an epoch."""
    config = configure(store, tmp_path / "run", **{**SMALL, "epochs": 1, "validate_every": 1, "batch_size": 4096})
    last = checkpoint.load(pretrain(dataclasses.replace(config, preset="default", epochs=2)))
    assert last.step == 2
    assert torch.equal(last.tensors["optimizer.log_vars.step"], torch.tensor(2.0))
    assert last.settings["peak_rate"] == pytest.approx(1.5e-4 * 21 / 256)


def test_what_is_normalised_together_is_not_changed_on_the_way(store: Path, tmp_path: Path) -> None:
    """The reference's responses are over the samples that a process computes at once, so those are part of a run."""
    small = {**SMALL, "epochs": 1, "validate_every": 1, "preset": "reference"}
    config = configure(store, tmp_path / "run", **{**small, "micro_batch": 3})
    last = checkpoint.load(pretrain(config))
    resumed = dataclasses.replace(config, resume=True)
    with pytest.raises(CheckpointError, match="was started with micro_batch 3, not 6; resume with the same settings"):
        pretrain(dataclasses.replace(resumed, micro_batch=1000))
    two = Run(resumed, Processes(0, 2))
    with pytest.raises(CheckpointError, match="was started with processes 1, not 2; resume with the same settings"):
        resume.begin(resumed, ALONE, two.settings, two.spec, two.console)
    assert pretrain(resumed) == last.path

    run = Run(resumed)
    older = {name: value for name, value in run.settings.items() if name not in ("micro_batch", "processes")}
    checkpoint.restore(last, run.model, run.optimizer)
    checkpoint.save_run(config.out, run.model, run.optimizer, run.spec, last.step, older, 2)
    pretrain(dataclasses.replace(resumed, micro_batch=1000))


def test_a_store_without_validation_tiles_is_trained_on_all_the_same(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", rows=1, tile_pixels=64, shard_rows=1)
    assert not len(open_store(store).select("val"))
    config = configure(store, tmp_path / "run", **{**SMALL, "epochs": 2, "validate_every": 1, "pretext": "biome"})
    assert checkpoint.load(pretrain(config)).step == 2
    assert [line["split"] for line in lines(config.out)] == ["train"] * 2
