"""A run's figures and pictures in TensorBoard are those of its metrics."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmearth_train.pretrain import pretrain
from tests.pretraining import ONLY_AT_THE_END, ROOT, STEPS, command, configure
from tests.synthetic import make_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was resumed after it had logged more than it had saved."""
    folder = tmp_path_factory.mktemp("watching")
    store = make_store(folder / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)
    config = configure(store, folder / "run", model="mini", pretext="sentinel2,aster,biome", tensorboard=True)
    pretrain(config)
    for path in sorted((config.out / "checkpoints").glob("step-*"))[STEPS // 2 + 1 :]:
        path.unlink()
    pretrain(dataclasses.replace(config, resume=True, save_every=ONLY_AT_THE_END))
    return config.out


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def test_every_figure_is_there_once(run: Path, events: EventAccumulator) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["split"] == "train"]
    validation = [line for line in lines if line["split"] == "val"]
    for tag, expected in {
        "train/loss": [line["loss"] for line in training],
        "train/lr": [line["lr"] for line in training],
        "train/gradient_norm": [line["gradient_norm"] for line in training],
        "tasks train/aster": [line["tasks"]["aster"] for line in training],
        "log_vars train/biome": [line["log_vars"]["biome"] for line in training],
        "tasks val/sentinel2": [line["tasks"]["sentinel2"] for line in validation],
        "constant val/biome": [line["constant"]["biome"] for line in validation],
        "val/score": [line["score"] for line in validation],
    }.items():
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(expected, rel=1e-6), tag
    assert [event.step for event in events.Scalars("train/images_per_second")] == list(range(1, STEPS + 1))
    assert all(line["gradient_norm"] > 0 for line in training)


def test_pictures_show_input_prediction_and_target(events: EventAccumulator) -> None:
    assert sorted(events.Tags()["images"]) == ["reconstructions/aster", "reconstructions/sentinel2"]
    last = events.Images("reconstructions/sentinel2")[-1]
    assert last.step == STEPS
    picture = np.asarray(Image.open(io.BytesIO(last.encoded_image_string)).convert("RGB")).astype(int)
    assert picture.shape[0] == 3 * 56
    given, predicted, target = np.split(picture, 3)
    grey = [(part == 127).all(-1) | (part == 128).all(-1) for part in (given, predicted)]
    assert (grey[0] ^ grey[1]).mean() > 0.99
    assert (np.abs(given - target).max(-1) == 0)[~grey[0]].all()
    assert grey[0].mean() == pytest.approx(30 / 49, abs=0.01)


def test_without_the_package_one_line_says_what_to_install(run: Path, tmp_path: Path) -> None:
    config = configure(run.parent / "store", tmp_path / "run", model="mini", tensorboard=True)
    without = (
        "import sys; sys.modules['tensorboard'] = None; import tests.pretraining; from flows.cli import main; main()"
    )
    arguments = [sys.executable, "-c", without, *command(config)[3:]]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == [
        "mmearth pretrain: --tensorboard needs the package tensorboard; install it with: pip install tensorboard"
    ]
