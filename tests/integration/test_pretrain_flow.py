"""The flow around the trainer shows what the run's metrics say."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from flows.pretrain import _PassedOn
from mmearth_train import checkpoint, metrics
from tests.commands import shared_server
from tests.synthetic import make_store

FLOW = """
import os
from pathlib import Path

import httpx
import prefect.artifacts

import flows.pretrain

update = flows.pretrain.update_progress_artifact

def shown(artifact, *progress, **description):
    update(artifact, *progress, **description)
    print("shown", httpx.get(f"{{os.environ['PREFECT_API_URL']}}/artifacts/{{artifact}}").json()["data"])

def gone(*_, **__):
    raise httpx.ConnectError("nobody listens")

def again():
    return flows.pretrain.pretrain(Path({store!r}), Path({out!r}), {options!r})

flows.pretrain.update_progress_artifact, flows.pretrain.PUBLISH_SECONDS = shown, 0.05
again()
flows.pretrain.update_progress_artifact = update
prefect.artifacts.TableArtifact.create = gone
print("returned", again())
flows.pretrain.pretrain(Path({missing!r}), Path({none!r}))
"""
"""Run, say what the server shows after each update, run again without tables, and fail for want of a store."""


CANCELLED = """
from pathlib import Path

import flows.pretrain

flows.pretrain.pretrain(Path({store!r}), Path({out!r}), {options!r})
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("flow") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with shared_server(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


def test_the_flow_publishes_progress_and_losses_and_what_a_trainer_said_last(
    store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    options = (
        "--preset=demo",
        "--epochs=1",
        "--batch-size=6",
        "--log-every=1",
        "--pretext=sentinel2,biome",
        "--processes=2",
        "--threads=1",
    )
    out = tmp_path / "run"
    # Prefect reads its settings when it is first imported, so the flow gets a process of its own.
    paths = {"store": store, "out": out, "missing": tmp_path / "missing", "none": tmp_path / "none"}
    flow = FLOW.format(options=options, **{name: str(path) for name, path in paths.items()})
    ran = subprocess.run([sys.executable, "-c", flow], env=environment, capture_output=True, timeout=240, text=True)
    answer = requests.post(f"{environment['PREFECT_API_URL']}/artifacts/filter", json={}, timeout=60)
    progress = [float(line.split()[1]) for line in ran.stdout.splitlines() if line.startswith("shown ")]
    assert progress == sorted(progress)
    assert {25, 50, 75} & set(progress), "after the last of four steps there is nothing but 100 to show"
    assert f"returned {out}" in ran.stdout, "a finished run is one also where its table cannot be shown"
    refusal = next(line for line in ran.stderr.splitlines() if line.startswith("mmearth pretrain: "))
    assert f" ended with exit code 2: {refusal}; mend that, then run again" in ran.stderr.splitlines()[-1]
    shown = {artifact["key"]: artifact for artifact in answer.json() if str(out) in str(artifact["description"])}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    training, validation = ([line for line in lines if line["split"] == split] for split in ("train", "val"))
    step, loss = training[-1]["step"], training[-1]["loss"]
    assert shown["pretraining"]["data"] == 100
    assert f"step {step} of {step}, loss {loss:.4g}" in shown["pretraining"]["description"]
    rows = {row["task"]: row for row in json.loads(shown["pretraining-losses"]["data"])}
    assert rows.keys() == {"sentinel2", "biome"}
    for name, row in rows.items():
        assert float(row["validation"]) == pytest.approx(validation[-1]["tasks"][name], rel=1e-3)
        assert float(row["best constant"]) == pytest.approx(validation[-1]["constant"][name], rel=1e-3)


def test_a_flow_that_is_cancelled_saves(store: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Prefect's worker sends SIGTERM to the whole process group of a run, which is one of its own."""
    out, said = tmp_path / "run", tmp_path / "said"
    options = ("--preset=demo", "--epochs=100", "--batch-size=6", "--log-every=1", "--pretext=biome", "--threads=1")
    flow = CANCELLED.format(store=str(store), out=str(out), options=options)
    with said.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-c", flow], env=environment, stderr=errors, start_new_session=True)
    deadline = time.monotonic() + 240
    while metrics.last(out, "train") is None:
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(120) != 0
    step = checkpoint.load(checkpoint.found(out)[-1]).step
    assert f"stopped after step {step} of 400, saved; continue with --resume" in said.read_text()


def test_a_trainer_is_heard_to_its_end_though_nobody_listens_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops reading lets the trainer stand still once the pipe is full."""

    class Deaf(io.StringIO):
        def write(self, said: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Deaf())
    errors = io.BytesIO(b"a warning\nthe last word\n")
    assert _PassedOn(errors).reason() == "the last word"
    assert not errors.read()


def test_what_other_processes_say_of_a_failure_does_not_hide_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = "a warning\nmmearth pretrain: no room\n[rank1]: RuntimeError: Connection closed\nmmearth pretrain: gone\n"
    assert _PassedOn(io.BytesIO(said.encode())).reason() == "mmearth pretrain: no room"
    assert capsys.readouterr().err == said
