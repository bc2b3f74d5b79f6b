"""What the flow starts: torchrun, which ends as the trainer does and loses nothing when it or a process is stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mmearth_train import checkpoint, run_lock
from tests.pretraining import ROOT
from tests.synthetic import make_store

PATIENCE = 240.0
OPTIONS = (
    "--preset=demo",
    "--epochs=8",
    "--batch-size=6",
    "--log-every=1",
    "--validate-every=8",
    "--pretext=biome",
    "--processes=2",
    "--resume",
)
"""Thirty-two steps, shared by two processes."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("torchrun") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


def started(store: Path, out: Path, said: Path, module: Sequence[str] = ("flows.torchrun",)) -> subprocess.Popen[bytes]:
    """As beside another torchrun, which tells its own to start again what has failed."""
    environment = {**os.environ, "PET_MAX_RESTARTS": "1"}
    command = [sys.executable, "-m", *module, f"--store={store}", f"--out={out}", *OPTIONS]
    with said.open("wb") as errors:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stderr=errors)


def wait_for(process: subprocess.Popen[bytes], out: Path, step: int) -> None:
    """Until the metrics tell of ``step``, in what this process wrote."""
    deadline, since = time.monotonic() + PATIENCE, time.time_ns()
    metrics = out / "metrics.jsonl"
    while not (metrics.is_file() and metrics.stat().st_mtime_ns > since and f'"step": {step},' in metrics.read_text()):
        assert process.poll() is None, "ended before that step"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def position(out: Path) -> int:
    """The step of the last checkpoint."""
    return checkpoint.load(checkpoint.found(out)[-1]).step


@pytest.mark.timeout(600)  # five runs of two processes each: 60 to 143 s on two cores
def test_stopped_and_killed_on_the_way_it_trains_what_the_plain_command_trains(store: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "run", tmp_path / "said"

    process = started(store, out, said)
    wait_for(process, out, 2)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    stopped = position(out)
    assert stopped >= 2
    assert said.read_text().splitlines()[-1] == f"stopped after step {stopped} of 32, saved; continue with --resume"

    process = started(store, out, said)
    wait_for(process, out, stopped + 2)
    os.kill(children(process)[1], signal.SIGKILL)
    assert process.wait(PATIENCE) == 1
    assert position(out) == stopped
    last = said.read_text().splitlines()[-1]
    assert last.startswith("mmearth pretrain: process 1 of 2 was ended (exit code -9)")
    assert "carry on with --resume" in last

    process = started(store, out, said)
    wait_for(process, out, stopped + 2)
    process.kill()
    process.wait(PATIENCE)
    with (out / run_lock.FILE_NAME).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # when those it left behind are gone
    assert stopped + 2 <= position(out) < 32, "they trained on"

    assert started(store, out, said).wait(PATIENCE) == 0
    assert "torch" not in said.read_text()
    plain = tmp_path / "plain"
    assert started(store, plain, said, ("flows", "pretrain")).wait(PATIENCE) == 0
    ours, theirs = (checkpoint.load(checkpoint.found(path)[-1]) for path in (out, plain))
    assert ours.step == theirs.step == 32
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, *range(1, 33), 32], "each step once, between two validations"


def test_refusals_are_the_trainers_with_its_exit_code_and_nothing_after_them(store: Path, tmp_path: Path) -> None:
    said, missing = tmp_path / "said", tmp_path / "missing"
    assert started(missing, tmp_path / "run", said).wait(PATIENCE) == 2
    lines = said.read_text().splitlines()
    assert lines
    assert all(line.startswith(f"mmearth pretrain: {missing} does not exist; ") for line in lines)
