"""The ablation as one command: killed on the way it carries on, and what it reports follows from what it made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmearth_data.modalities import DOWNSTREAM
from mmearth_data.store import open_store
from mmearth_train import metrics
from mmearth_train.evaluate import load_evaluation
from mmearth_train.pretrained import load_encoder
from mmearth_train.resume import code_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
ARMS = {"sentinel2", "pixel", "image", "all"}
SEEDS = 2


def command(out: Path, *options: str) -> list[str]:
    small = ("--locations", "56", "--epochs", "2", "--seeds", str(SEEDS), "--workers", "2")
    return [sys.executable, "benchmarks/ablation.py", "--out", str(out), *small, *options]


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(out / "prefect")}
    first = subprocess.Popen(command(out), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not list(out.glob("runs/*/*/encoder.safetensors")):
        assert first.poll() is None, "it ended before its first run did"
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {path: path.read_bytes() for path in out.glob("runs/*/*/encoder.safetensors")}
    commits = {path: path.stat().st_mtime_ns for path in out.glob("store.zarr/_commits/*.json")}
    again = subprocess.run(command(out), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "## Linear probe" in again.stdout
    assert f"This page is {out / 'ablation.md'}, every number behind it {out / 'ablation.json'}." in again.stdout
    assert "were not trained by this version" not in again.stderr
    assert done
    assert all(path.read_bytes() == content for path, content in done.items())
    assert all(path.stat().st_mtime_ns == at for path, at in commits.items())
    return out


def test_the_targets_are_no_pretext_task_of_any_arm(ablation: Path) -> None:
    downstream = {modality.name for modality in DOWNSTREAM}
    assert downstream <= set(open_store(ablation / "store.zarr").modalities)
    runs = sorted(ablation.glob("runs/*/*"))
    assert {run.parent.name for run in runs} == ARMS
    assert len(runs) == len(ARMS) * SEEDS
    assert all(downstream.isdisjoint(load_encoder(run).pretext) for run in runs)
    evaluation = load_evaluation(ablation)
    assert {target.modality for target in evaluation.targets} <= downstream


def test_every_arm_took_the_same_steps_on_the_same_tiles(ablation: Path) -> None:
    found = json.loads((ablation / "ablation.json").read_text())
    assert len(found["steps"]) == 1
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in ablation.glob("runs/*/*")
    ]
    assert {own[-1]["step"] for own in lines} == set(found["steps"])
    for arm, own in found["score_by_epoch"].items():
        runs = sorted(ablation.glob(f"runs/{arm}/*"))
        validated = [metrics.last(run, "val") for run in runs]
        assert own["2"]["seeds"] == [line["score"] for line in validated if line is not None]


def test_the_tables_are_the_evaluations_scores(ablation: Path) -> None:
    found = json.loads((ablation / "ablation.json").read_text())
    evaluation = load_evaluation(ablation)
    for row in evaluation.rows:
        if row.metric == "accuracy":
            continue
        entry = found["scores"][row.protocol][row.target][row.encoder]
        assert len(row.seeds) == SEEDS
        assert entry["mean"] == pytest.approx(np.mean(row.seeds))
        assert entry["std"] == pytest.approx(np.std(row.seeds, ddof=1))
    assert {"random", "band means", *ARMS} == set(found["effective_rank"])
    water = next(target for target in evaluation.targets if target.name == "water_present")
    assert found["targets"]["water_present"]["present"] == round(water.means[1] * water.tiles)


def test_the_result_says_which_code_and_which_earth_it_is_of(ablation: Path) -> None:
    found = json.loads((ablation / "ablation.json").read_text())
    assert found["code"] == {
        "trained_by": {arm: [[code_version()]] * SEEDS for arm in ARMS},
        "probed_by": code_version(),
    }
    assert found["earth"] == json.loads((ablation / "settings.json").read_text())["earth"]
    assert f"emulated Earth {found['earth']}" in (ablation / "ablation.md").read_text()


def test_a_folder_keeps_the_settings_it_was_begun_with(ablation: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for option, value, said in (
        ("--epochs", "3", "was begun with --epochs 2, not 3; choose another --out"),
        ("--seeds", "1", "has runs of 2 seeds, not 1; give --seeds 2"),
    ):
        refused = subprocess.run(
            command(ablation, option, value), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert line.startswith("make ablation: ")
        assert said in line
