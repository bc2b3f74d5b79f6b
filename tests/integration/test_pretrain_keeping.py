"""What a run leaves behind: the last checkpoints and the best, whole files only, and one line when it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmearth_train import checkpoint, resume
from mmearth_train.checkpoint import ASIDE, BEST, FOLDER, Best, CheckpointError
from mmearth_train.config import PretrainConfig, RunError
from mmearth_train.distributed import ALONE
from mmearth_train.failures import DivergedError, GpuMemoryError
from mmearth_train.loader import Loader
from mmearth_train.pretrain import Run, pretrain
from mmearth_train.pretrained import load_encoder
from mmearth_train.step import Step
from mmearth_train.validation import Validation, Validator
from tests.pretraining import ONLY_AT_THE_END, ROOT, STEPS, command, configure
from tests.synthetic import make_store
from tests.train_batches import random_spec

FEW = {"model": "mini", "pretext": "sentinel2,biome"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("keeping") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run with a checkpoint of every step, validated after the fourth and the last."""
    out = tmp_path_factory.mktemp("keeping") / "whole"
    pretrain(configure(store, out, **FEW))
    return out


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


def test_a_finished_run_without_its_checkpoints_is_not_trained_over(store: Path, whole: Path, tmp_path: Path) -> None:
    """As where they were deleted for their size: whatever model is asked for, what is left stays as it was."""
    out = tmp_path / "run"
    out.mkdir()
    left = ("encoder.safetensors", "metrics.jsonl")
    for name in left:
        shutil.copyfile(whole / name, out / name)
    config = configure(store, out, **(FEW | {"model": "atto"}), resume=True)
    with pytest.raises(
        RunError, match=r" holds the encoder of a run whose checkpoints are gone; choose another --out$"
    ):
        pretrain(config)
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in left)


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


def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(
    store: Path, whole: Path, tmp_path: Path
) -> None:
    config = configure(store, tmp_path / "run", **FEW)
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
    ours, theirs = (checkpoint.load(checkpoint.found(out)[-1]) for out in (config.out, whole))
    assert ours.step == STEPS
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in theirs.tensors)
    assert not list(config.out.glob(f"{FOLDER}/*.tmp"))


def names(out: Path) -> list[str]:
    """The files among a run's checkpoints, without what all names have; the best one's is followed by a star."""
    best = (out / FOLDER / BEST).resolve()
    paths = [path for path in (out / FOLDER).iterdir() if path.name != BEST]
    return sorted(path.name.replace(".safetensors", "*" if path == best else "").lstrip("step-0") for path in paths)


def left_with(whole: Path, out: Path, intact: tuple[int, ...], damaged: tuple[int, ...], best: int) -> Path:
    """A run that lost its power as it saved: some checkpoints, of which some have lost their ends."""
    (out / FOLDER).mkdir(parents=True)
    for step in (*intact, *damaged):
        path = Path(shutil.copy(checkpoint.found(whole)[step - 1], out / FOLDER))
        os.truncate(path, path.stat().st_size // (2 if step in damaged else 1))
    (out / FOLDER / BEST).symlink_to(f"step-{best:08d}.safetensors")
    lines = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
    until = max(intact + damaged)
    (out / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= until))
    return out


def resumed_for(steps: int, config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume a run, which is asked to stop as it begins the last of so many steps."""
    asks, taken = (Step, "__call__") if steps else (resume, "begin"), 0

    def asked(*given: object, **named: object) -> object:
        nonlocal taken
        taken += 1
        if taken >= steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return work(*given, **named)

    work = getattr(*asks)
    with monkeypatch.context() as patch:
        patch.setattr(*asks, asked)
        with pytest.raises(SystemExit, match=r"^0$"):
            pretrain(dataclasses.replace(config, resume=True))


def assert_ends_as(config: PretrainConfig, whole: Path) -> None:
    """Once more resumed a run comes to the weights, the moments, the best and the figures of the undisturbed one."""
    pretrain(dataclasses.replace(config, resume=True))
    ours, theirs = (checkpoint.load(checkpoint.found(out)[-1]) for out in (config.out, whole))
    assert (ours.step, ours.best) == (STEPS, theirs.best)
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())
    assert scores(config.out) == scores(whole)
    assert theirs.best is not None
    assert f"{theirs.best.step}*" in names(config.out)
    assert not [name for name in names(config.out) if name.endswith(ASIDE)]


@pytest.mark.parametrize("keep", [1, 2])
def test_stopped_again_and_again_before_what_was_damaged_it_still_goes_on(
    store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    """Every stop saves a step earlier than those of the damaged checkpoints, which must not count for it."""
    out = left_with(whole, tmp_path / "run", intact=(4,), damaged=(7, 8), best=4)
    damaged = {path.name: path.read_bytes() for path in checkpoint.found(out)[-2:]}
    config = configure(store, out, **FEW, keep=keep, save_every=ONLY_AT_THE_END)
    resumed_for(1, config, monkeypatch)
    assert names(out) == ["4*", "5", f"7{ASIDE}", f"8{ASIDE}"]
    assert damaged == {name: (out / FOLDER / (name + ASIDE)).read_bytes() for name in damaged}
    resumed_for(1, config, monkeypatch)
    assert names(out) == ["4*", *"56"[-keep:], f"7{ASIDE}", f"8{ASIDE}"]
    resumed_for(1, config, monkeypatch)
    assert names(out) == ["4*", *"67"[-keep:], f"8{ASIDE}"]
    assert_ends_as(config, whole)


def test_a_damaged_checkpoint_that_was_the_best_is_so_no_longer(
    store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link to it goes, and is there again when the step is."""
    out = left_with(whole, tmp_path / "run", intact=(2, 3), damaged=(4,), best=4)
    config = configure(store, out, **FEW, keep=2)
    resumed_for(0, config, monkeypatch)
    assert names(out) == ["2", "3", f"4{ASIDE}"]
    assert not (out / FOLDER / BEST).is_symlink()
    resumed_for(2, config, monkeypatch)
    assert names(out) == ["4*", "5"]
    assert_ends_as(config, whole)


def contents(out: Path) -> dict[str, bytes]:
    """What every file of a run holds that can be read, and where links lead."""
    paths = [path for path in out.rglob("*") if path.name != ".lock" and not path.is_dir()]
    return {path.name: bytes(path.readlink()) if path.is_symlink() else path.read_bytes() for path in paths}


def test_a_checkpoint_that_cannot_be_read_now_is_waited_for(store: Path, whole: Path, tmp_path: Path) -> None:
    """Nothing says that it is damaged. Linux lets nobody read the first page of a process: an error of the disk's."""
    out = left_with(whole, tmp_path / "run", intact=(4, 5), damaged=(6,), best=4)
    unreadable = out / FOLDER / "step-00000007.safetensors"
    unreadable.symlink_to("/proc/self/mem")
    before = contents(out)
    config = configure(store, out, **FEW, resume=True)
    with pytest.raises(CheckpointError, match=r"7.safetensors cannot be read \(Input/output error\); make it readable"):
        pretrain(config)
    assert contents(out) == before
    unreadable.unlink()
    shutil.copy(checkpoint.found(whole)[6], unreadable)
    assert_ends_as(config, whole)


def test_where_checkpoints_cannot_be_looked_for_nothing_starts_anew(store: Path, whole: Path, tmp_path: Path) -> None:
    out = left_with(whole, tmp_path / "run", intact=(4,), damaged=(), best=4)
    shutil.rmtree(out / FOLDER)
    (out / FOLDER).write_text("")
    before = contents(out)
    with pytest.raises(CheckpointError, match=r"checkpoints cannot be read \(Not a directory\); make it readable"):
        pretrain(configure(store, out, **FEW, resume=True))
    assert contents(out) == before


def test_a_checkpoint_that_finds_no_room_leaves_nothing_behind_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.safetensors"
    (tmp_path / f"{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left .*\); make room, then use --resume$"):
        checkpoint.write(path, {"a": torch.zeros(3)}, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_kept_in_order_is_said_in_a_line(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    (folder / f"{BEST}.{os.getpid()}.tmp").mkdir(parents=True)
    (folder / "step-00000001.safetensors").touch()
    for act in (lambda: checkpoint.link_best(tmp_path, Best(1, 0.5)), lambda: checkpoint.clear_unfinished(tmp_path)):
        with pytest.raises(CheckpointError, match=r"checkpoints cannot be kept in order \(.+\); mend that, then use"):
            act()


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
