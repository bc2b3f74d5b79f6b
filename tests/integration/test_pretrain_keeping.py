"""What a run leaves behind: the last checkpoints and the best, whole files only, and one line when it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmearth_train import checkpoint
from mmearth_train.checkpoint import BEST, FOLDER
from mmearth_train.distributed import ALONE
from mmearth_train.failures import DivergedError, GpuMemoryError
from mmearth_train.loader import Loader
from mmearth_train.pretrain import Run, pretrain
from mmearth_train.pretrained import load_encoder
from mmearth_train.validation import Validation, Validator
from tests.pretraining import ONLY_AT_THE_END, ROOT, STEPS, command, configure
from tests.synthetic import make_store
from tests.train_batches import random_spec

FEW = {"model": "mini", "pretext": "sentinel2,biome"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("keeping") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


def scores(out: Path) -> dict[int, float]:
    """The score of each validation of a trained model, from its figures."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = {}
    for line in lines:
        if line["split"] == "val" and line["step"]:
            shares = [line["tasks"][name] / line["constant"][name] for name in line["tasks"]]
            found[line["step"]] = sum(shares) / len(shares)
    return found


def test_the_best_checkpoint_is_kept_beside_the_last(store: Path, tmp_path: Path) -> None:
    """A rate so high that losses rise again makes the best one an early one."""
    run = Run(configure(store, tmp_path, **FEW, epochs=6, keep=2, save_every=1))
    run.recipe = dataclasses.replace(run.recipe, base_rate=6.0, warmup_epochs=5.0)
    run.train()
    found = scores(tmp_path)
    best = min(found, key=found.__getitem__)
    assert best < run.steps - 1
    assert [checkpoint.load(path).step for path in checkpoint.found(tmp_path)] == [best, run.steps - 1, run.steps]
    link = tmp_path / FOLDER / BEST
    assert checkpoint.load(link).step == best
    last = checkpoint.load(checkpoint.found(tmp_path)[-1])
    assert last.best is not None
    assert (last.best.step, last.best.score) == (best, pytest.approx(found[best]))
    assert load_encoder(link).channels == load_encoder(tmp_path).channels


def test_what_was_best_is_known_after_resuming(store: Path, tmp_path: Path) -> None:
    config = configure(store, tmp_path / "run", **FEW, epochs=3, keep=1, save_every=ONLY_AT_THE_END)
    pretrain(config)
    whole = scores(config.out)
    half = dataclasses.replace(config, out=tmp_path / "half", keep=100, save_every=1)
    pretrain(half)
    for path in checkpoint.found(half.out)[5:]:
        path.unlink()
    pretrain(dataclasses.replace(half, resume=True, keep=1))
    assert scores(half.out) == pytest.approx(whole)
    expected = checkpoint.load(config.out / FOLDER / BEST)
    assert checkpoint.load(half.out / FOLDER / BEST).step == expected.step
    assert [p.name for p in checkpoint.found(half.out)] == [p.name for p in checkpoint.found(config.out)]


def test_a_score_compares_losses_with_those_of_the_constant() -> None:
    found = Validation({"a": 1.0, "b": 3.0, "c": 0.0}, {"a": 2.0, "b": 2.0, "c": 0.0})
    assert found.score == pytest.approx((0.5 + 1.5) / 2)


HANGING = """
import os, sys, time
sync = os.fsync
def hang(number):
    if "step-00000005" in os.readlink(f"/proc/self/fd/{number}"):
        os.truncate(number, os.fstat(number).st_size // 2)
        time.sleep(600)
    sync(number)
os.fsync = hang
import tests.pretraining
from flows.cli import main
main()
"""
"""A trainer whose disk has written half of its fifth checkpoint and then takes its time."""


def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(store: Path, tmp_path: Path) -> None:
    whole = configure(store, tmp_path / "whole", **FEW)
    pretrain(whole)
    config = dataclasses.replace(whole, out=tmp_path / "run")
    arguments = command(config)[3:]
    process = subprocess.Popen([sys.executable, "-c", HANGING, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not list(config.out.glob(f"{FOLDER}/step-00000005*.tmp")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [checkpoint.load(path).step for path in checkpoint.found(config.out)] == [1, 2, 3, 4]
    assert len(list(config.out.glob(f"{FOLDER}/*.tmp"))) == 1
    pretrain(dataclasses.replace(config, resume=True))
    ours, theirs = (checkpoint.load(checkpoint.found(out)[-1]) for out in (config.out, whole.out))
    assert ours.step == STEPS
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in theirs.tensors)
    assert not list(config.out.glob(f"{FOLDER}/*.tmp"))


def test_a_process_that_does_not_write_keeps_nothing_of_what_it_hands_over(tmp_path: Path) -> None:
    """Processes of one machine share its memory. Tensors on the meta device have no values: to copy one is an error."""
    layer = torch.nn.Linear(3, 2, device="meta")
    state = tmp_path, layer, torch.optim.AdamW(layer.parameters()), random_spec(), 1, {}, 1
    checkpoint.save_run(*state, writes=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotImplementedError, match="meta tensor"):
        checkpoint.save_run(*state)


def test_a_checkpoint_says_how_it_was_made(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(store, tmp_path, **FEW, save_every=ONLY_AT_THE_END)
    found = checkpoint.load(pretrain(config))
    assert found.origin["config"] == json.loads(json.dumps(dataclasses.asdict(config), default=str))
    assert (found.origin["torch"], found.origin["processes"]) == (torch.__version__, 1)
    other = {**found.origin, "code": "0123456789abcdef"}
    run = Run(config)
    checkpoint.restore(found, run.model, run.optimizer)
    checkpoint.save_run(tmp_path, run.model, run.optimizer, run.spec, STEPS, run.settings, 2, origin=other)
    capsys.readouterr()
    pretrain(dataclasses.replace(config, resume=True))
    assert "was last trained by other code or another torch" in " ".join(capsys.readouterr().err.split())


def test_a_diverged_run_exits_with_one_line_and_code_1(store: Path, tmp_path: Path) -> None:
    config = configure(store, tmp_path, **FEW, base_rate=1e42, epochs=8)
    result = subprocess.run(command(config), cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    ours = [line for line in result.stderr.splitlines() if line.startswith("mmearth")]
    assert len(ours) == 1
    assert "is not finite after step" in ours[0]
    assert "start again with another --out and a smaller --base-rate" in ours[0]


def test_a_gradient_that_is_not_finite_ends_the_run_though_the_loss_is(store: Path, tmp_path: Path) -> None:
    """A head so steep that the squares of what it passes back exceed float32."""
    run = Run(configure(store, tmp_path, model="mini", pretext="lat"))
    assert run.model.decoder.image_heads is not None
    with torch.no_grad():
        run.model.decoder.image_heads.weight.fill_(1e10)
        run.model.decoder.image_heads.bias.fill_(1e18)
    with pytest.raises(DivergedError, match=r"^the gradient is not finite after step 1; start again with another"):
        run.train()


def test_a_constant_that_is_never_wrong_leaves_nothing_to_compare_with(store: Path, tmp_path: Path) -> None:
    """Here the only tile to validate on: the model is trained and judged, but none of its checkpoints is the best."""
    run = Run(configure(store, tmp_path, model="mini", pretext="lat"))
    one = run.val[:1]
    only = Loader(run.store, one, ("sentinel2", "lat"), batch_size=1, crop=56, seed=0, augment=False)
    run.validate = Validator(only, run.device, ALONE)
    (target,) = run.model.task_targets
    (batch,) = only.epoch(0)
    target.task = dataclasses.replace(target.task, constant=tuple(batch["lat"][0].tolist()))
    last = checkpoint.load(run.train())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    judged = [(line["score"], line["constant"]) for line in lines if line["split"] == "val"]
    assert judged == 3 * [(None, {"lat": 0.0})]
    assert (last.step, last.best) == (STEPS, None)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"micro_batch": 4}, r"4 samples of model mini at once; continue with --resume --micro-batch 2"),
        ({}, r"6 samples of model mini at once; continue with --resume --micro-batch 3"),
        (
            {"preset": "reference"},
            r"6 samples of model mini at once; start again with another --out and --micro-batch 3$",
        ),
        ({"micro_batch": 1}, r"1 samples of model mini at once; start again with another --out and a smaller --model$"),
    ],
)
def test_a_gpu_without_room_names_the_remedy(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], remedy: str
) -> None:
    """No test machine has a full GPU: the error is torch's own, raised where torch raises it.

    A step of six samples is computed at once, however many more a micro-batch may have.
    """
    run = Run(configure(store, tmp_path, **{**FEW, **changes}))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has a total ...")

    monkeypatch.setattr(run.model.encoder, "forward", full)
    with pytest.raises(GpuMemoryError, match=rf"^the GPU's memory does not hold {remedy}"):
        run.train()
