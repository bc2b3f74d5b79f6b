"""A compiled model trains what the eager one does; where it cannot be compiled one line says so."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from mmearth_train.config import PretrainConfig
from mmearth_train.pretrain import pretrain
from mmearth_train.pretrained import load_encoder
from tests.pretraining import ROOT, command, configure
from tests.synthetic import make_store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """Three steps of seven tiles each: one shape to compile for."""
    folder = tmp_path_factory.mktemp("compiled")
    store = make_store(folder / "store", rows=28, tile_pixels=64, shard_rows=28, seed=1)
    small = {"model": "mini", "epochs": 1, "batch_size": 7, "pretext": "sentinel2,biome"}
    return dataclasses.replace(configure(store, folder / "eager", **small), compile=True)


def run(config: PretrainConfig, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config), cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_compiled_steps_end_at_the_weights_of_eager_ones_but_for_rounding(config: PretrainConfig) -> None:
    pretrain(dataclasses.replace(config, compile=False))
    compiled = dataclasses.replace(config, out=config.out.with_name("compiled"))
    result = run(compiled)
    assert result.returncode == 0, result.stderr
    expected, found = (load_encoder(out).state_dict() for out in (config.out, compiled.out))
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= 1e-3 * weight.abs().max(), name


def test_without_a_compiler_a_line_says_what_to_do(config: PretrainConfig, tmp_path: Path) -> None:
    result = run(
        dataclasses.replace(config, out=tmp_path / "run"),
        CXX="/nowhere",
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "kept"),
    )
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("mmearth pretrain: the model cannot be compiled here (")
    assert line.endswith("mend that, or leave out --compile")
