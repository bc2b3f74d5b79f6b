"""The trainer itself on a GPU, where mmearth[train,sample] is installed: from a store, resumed, beside a CPU."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from mmearth_train.config import PretrainConfig

NEEDED = "zarr", "numba", "pyproj", "shapely", "rich", "jaxtyping", "safetensors"
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="mmearth[train,sample] is not installed"),
]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 training tiles: four steps of five or six make an epoch."""
    from tests.synthetic import make_store

    return make_store(tmp_path_factory.mktemp("gpu") / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)


def configuration(tiles: Path, out: Path, **changes: object) -> PretrainConfig:
    from mmearth_train.config import PretrainConfig

    config = PretrainConfig(tiles, out, preset="demo", epochs=4, batch_size=6, save_every=1, keep=16, log_every=1)
    return dataclasses.replace(config, **{"device": "cuda", "processes": 1, **changes})  # type: ignore[arg-type]


def losses(out: Path) -> list[float]:
    """Of each step, and of each validation its score."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] if line["split"] == "train" else line["score"] for line in lines]


def test_a_run_takes_the_losses_that_a_cpu_takes_also_in_parts_and_resumed(tiles: Path, tmp_path: Path) -> None:
    from mmearth_train import checkpoint
    from mmearth_train.pretrain import pretrain

    on_cpu = configuration(tiles, tmp_path / "cpu", device="cpu")
    pretrain(on_cpu)
    for parts in (None, 2):
        config = configuration(tiles, tmp_path / f"gpu-{parts}", micro_batch=parts)
        pretrain(config)
        assert losses(config.out) == pytest.approx(losses(on_cpu.out), rel=2e-2)
        before = losses(config.out)
        for path in checkpoint.found(config.out)[6:]:
            path.unlink()
        pretrain(dataclasses.replace(config, resume=True))
        assert losses(config.out) == pytest.approx(before, rel=2e-2)


def test_batches_lie_in_pinned_memory_and_are_the_same(tiles: Path) -> None:
    from mmearth_data.store import open_store
    from mmearth_train.loader import Loader

    store = open_store(tiles)
    rows = store.select("train")
    pinned, plain = (
        list(Loader(store, rows, ("sentinel2", "biome"), batch_size=6, crop=56, seed=0, pinned=p).epoch(1))
        for p in (True, False)
    )
    for ours, theirs in zip(pinned, plain, strict=True):
        assert all(values.is_pinned() for values in ours.values())
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_epoch_after_epoch_no_more_memory_is_held(tiles: Path, tmp_path: Path) -> None:
    """Training, validating and saving: nothing of an epoch stays."""
    from mmearth_train.pretrain import Run, pretrain

    pretrain(configuration(tiles, tmp_path / "first", epochs=1))
    config = configuration(tiles, tmp_path / "run", epochs=5, validate_every=1)
    config.out.mkdir()
    run = Run(config)
    held = []
    validate = run.validate

    def watched(*arguments: object) -> object:
        held.append(torch.cuda.memory_reserved())
        return validate(*arguments)  # type: ignore[arg-type]

    run.validate = watched  # type: ignore[assignment]
    run.train()
    assert held[-1] <= held[2] + 64 * 2**20
