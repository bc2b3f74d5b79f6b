"""Asked to stop at any moment a run ends with one line and code 0, and loses nothing that was trained."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
import torch

from mmearth_train import checkpoint, launch, resume
from mmearth_train.config import PretrainConfig
from mmearth_train.interruption import Stop
from mmearth_train.model import MPMAE
from mmearth_train.pretrain import pretrain
from mmearth_train.pretrained import load_encoder
from tests.pretraining import STEPS, configure
from tests.synthetic import make_store

FEW = {"model": "mini", "pretext": "sentinel2,biome", "micro_batch": 1}
"""A validation of several batches."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stopping") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopping") / "whole"
    pretrain(configure(store, out, **FEW))
    return out


def lines(out: Path) -> list[tuple[str, int, dict[str, float]]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["split"], line["step"], line["tasks"]) for line in found]


def assert_same(out: Path, whole: Path) -> None:
    ours, theirs = (checkpoint.load(checkpoint.found(path)[-1]) for path in (out, whole))
    assert (ours.step, ours.best) == (STEPS, theirs.best)
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())
    assert lines(out) == lines(whole)
    exported = load_encoder(out).state_dict()
    assert all(torch.equal(t, theirs.tensors[f"model.{name}"]) for name, t in exported.items())


def asking_at(call: int, work: Callable[..., object]) -> Callable[..., object]:
    """``work``, which is asked to stop as its call number ``call`` begins."""
    calls = 0

    def asked(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return work(*given, **named)

    return asked


def stopped(config: PretrainConfig, capsys: pytest.CaptureFixture[str]) -> str:
    """Train until SIGTERM; what is said last."""
    with pytest.raises(SystemExit) as end:
        pretrain(config)
    assert end.value.code == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return " ".join(capsys.readouterr().err.split())


def test_asked_before_the_first_step_it_has_nothing_to_save(
    store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(store, tmp_path / "run", **FEW)
    with monkeypatch.context() as patch:
        patch.setattr(resume, "begin", asking_at(1, resume.begin))
        assert "stopped before the first step; continue with --resume" in stopped(config, capsys)
    assert {path.name for path in config.out.iterdir()} == {".lock"}
    pretrain(dataclasses.replace(config, resume=True))
    assert_same(config.out, whole)


@pytest.mark.parametrize(
    ("call", "step"), [(1, 0), (2, STEPS // 2), (2, STEPS)], ids=["first", "between two epochs", "last"]
)
def test_a_validation_that_is_cut_short_is_made_up_for(
    store: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: int,
    step: int,
) -> None:
    """The model is asked at one of the batches of a validation."""
    config, forward = configure(store, tmp_path / "run", **FEW), MPMAE.forward
    validating: list[int] = []

    def counted(model: MPMAE, *given: object) -> object:
        if not torch.is_grad_enabled() and done(config.out) == step:
            validating.append(step)
            if len(validating) == call:
                os.kill(os.getpid(), signal.SIGTERM)
        return forward(model, *given)

    with monkeypatch.context() as patch:
        patch.setattr(MPMAE, "forward", counted)
        said = stopped(config, capsys)
    assert ("before the first step" if step == 0 else f"after step {step} of {STEPS}, saved") in said
    assert len(validating) == call
    assert ("val", step) not in [line[:2] for line in lines(config.out)] if step else not checkpoint.found(config.out)
    assert not (config.out / "encoder.safetensors").exists()
    pretrain(dataclasses.replace(config, resume=True))
    assert_same(config.out, whole)


def done(out: Path) -> int:
    """The steps that a run's metrics tell of."""
    return sum(split == "train" for split, *_ in lines(out)) if (out / "metrics.jsonl").is_file() else 0


def wait_until_asked(config: PretrainConfig) -> Path:
    """Stands for a training run that does nothing but listen; which signal it heard is part of what it returns."""
    stop = Stop()
    with stop.listening():
        for _ in range(600):
            if stop.signal is None:
                time.sleep(0.1)
    return config.out / str(stop.signal)


def test_processes_that_are_still_starting_hear_that_they_were_asked(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They import for seconds before they can listen, and would be dead of the signal."""
    config = configure(store, tmp_path)
    monkeypatch.setattr(launch, "_outcome", asking_at(1, launch._outcome))
    assert launch.launch(wait_until_asked, config, 2) == tmp_path / str(int(signal.SIGTERM))


@pytest.mark.parametrize("started", [0, 1])
def test_asked_while_processes_are_started_it_starts_no_more_of_them(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: int,
) -> None:
    stop, start, processes = Stop(), SpawnProcess.start, list[SpawnProcess]()
    stop.signal = None if started else signal.SIGTERM

    def counted(process: SpawnProcess) -> None:
        processes.append(process)
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", asking_at(1, counted))
    with pytest.raises(SystemExit) as end:
        launch.launch(wait_until_asked, configure(store, tmp_path), 100, stop)
    assert end.value.code == 0
    assert len(processes) == started
    for process in processes:
        process.join(20)  # the system takes its time over one that was killed
        assert not process.is_alive()
    assert "stopped before training began; continue with --resume" in " ".join(capsys.readouterr().err.split())
