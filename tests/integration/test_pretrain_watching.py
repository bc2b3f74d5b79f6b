"""A run's figures and pictures in TensorBoard and Weights & Biases are those of its metrics."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from mmearth_train import run_lock
from mmearth_train.boards import boards_of
from mmearth_train.config import RunError
from mmearth_train.pretrain import pretrain
from mmearth_train.watching import Watch
from tests.pretraining import ONLY_AT_THE_END, ROOT, STEPS, command, configure
from tests.synthetic import make_store

KEPT = 5
"""Steps of the run whose checkpoints are there when it is resumed."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was resumed after it had logged more than it had saved."""
    folder = tmp_path_factory.mktemp("watching")
    store = make_store(folder / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)
    config = configure(store, folder / "run", model="mini", pretext="sentinel2,aster,biome")
    config = dataclasses.replace(config, tensorboard=True, wandb=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        pretrain(config)
        for path in sorted((config.out / "checkpoints").glob("step-*"))[KEPT:]:
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


def records(path: Path) -> Iterator[Record]:
    """What a file of an offline run holds: protobuf messages in LevelDB's log format, blocks of 32 KiB."""
    content, at, message = path.read_bytes(), 7, b""
    while at < len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(message)
            message = b""


def test_weights_and_biases_has_the_figures_and_pictures_as_one_run(run: Path) -> None:
    """Twice the same run: what a resumed one did again is there a second time, with the same values."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    begun, rows = [], []
    for record in (record for path in files for record in records(path)):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            begun.append((record.run.project, record.run.display_name, record.run.run_id))
        if kind == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert set(begun) == {("mmearth", "run", (run / "wandb" / "id").read_text())}
    for line in lines:
        name = f"tasks {line['split']}/aster"
        found = [row for row in rows if row["step"] == line["step"] and name in row]
        assert len(found) == (2 if line["step"] > KEPT else 1)
        for row in found:
            assert row[name] == pytest.approx(line["tasks"]["aster"])
    pictures = run.glob("wandb/offline-run-*/files/media/images/reconstructions/sentinel2_*.png")
    assert {np.asarray(Image.open(path)).shape[0] for path in pictures} == {3 * 56}


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


def test_without_wandb_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    message = r"^--wandb needs the package wandb; install it with: pip install 'mmearth\[wandb\]'$"
    with pytest.raises(RunError, match=message):
        boards_of(configure(tmp_path, tmp_path / "run", wandb=True), {}, 0)


def test_a_board_that_does_not_start_leaves_none_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases knows of the run as one that failed; without the other's package it knows of none."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = configure(tmp_path, tmp_path / "run", wandb=True, tensorboard=True)
    config.out.mkdir()
    (config.out / "tensorboard").write_text("no folder")
    with pytest.raises(
        RunError, match=r"/tensorboard cannot be written \(.+\); mend that, or leave out --tensorboard$"
    ):
        boards_of(config, {}, 0)
    assert wandb.run is None
    wandb.teardown()  # waits for the process that writes the file
    (file,) = config.out.glob("wandb/offline-run-*/run-*.wandb")
    assert [record.exit.exit_code for record in records(file) if record.WhichOneof("record_type") == "exit"] == [1]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = dataclasses.replace(config, out=tmp_path / "other")
    config.out.mkdir()
    with pytest.raises(RunError, match=r"^--tensorboard needs the package tensorboard"):
        boards_of(config, {}, 0)
    assert not list(config.out.iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_board_that_fails_is_told_of_once_and_the_figures_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No file may become longer than the metrics will be, and TensorBoard's takes more room."""
    config = configure(tmp_path, tmp_path / "run", tensorboard=True)
    config.out.mkdir()
    tasks = dict.fromkeys("abcdefghijklm", 0.5)
    lines = [{"split": "train", "step": step, "tasks": tasks} for step in range(1, 101)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = sum(len(json.dumps(line)) + 1 for line in lines)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with Watch(config.out, boards_of(config, {}, 0)) as watch:
            for line in lines:
                watch.line(line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (config.out / "metrics.jsonl").read_text() == "".join(f"{json.dumps(line)}\n" for line in lines)
    told = [record.getMessage() for record in caplog.records if "stops here" in record.getMessage()]
    assert told == [f"TensorBoard of {config.out} stops here (File too large); metrics.jsonl goes on"]


def test_an_error_without_words_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.CommError("")

    monkeypatch.setattr(wandb, "init", refuse)
    message = r"^Weights & Biases does not start \(CommError\); mend that, or set WANDB_MODE=offline$"
    with pytest.raises(RunError, match=message):
        boards_of(configure(tmp_path, tmp_path / "run", wandb=True), {}, 0)


def test_without_a_key_one_line_says_what_to_do_and_the_folder_stays_unused(run: Path, tmp_path: Path) -> None:
    config = configure(run.parent / "store", tmp_path / "run", model="mini", wandb=True)
    changes = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "NETRC": str(tmp_path / "netrc")}
    environment = {**os.environ, **changes}
    result = subprocess.run(
        command(config), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("mmearth")]
    assert line.startswith("mmearth pretrain: Weights & Biases does not start (No API key configured")
    assert line.endswith("; mend that, or set WANDB_MODE=offline")
    assert not run_lock.used(config.out)
