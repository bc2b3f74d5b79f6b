"""A machine that only trains needs no Earth Engine, no GeoPandas, no Prefect, and nothing of evaluation or reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.synthetic import make_store

ABSENT = (
    *("ee", "geopandas", "pyogrio", "pyproj", "shapely", "rasterio", "prefect", "stamina"),
    *("jinja2", "matplotlib", "scipy", "sklearn", "h5py"),
)
WITHOUT = "import sys; sys.modules.update(dict.fromkeys({})); from flows.cli import main; main()"
"""A module that is None in sys.modules cannot be imported, as if it were not installed."""


def _mmearth(*arguments: object, absent: tuple[str, ...] = ABSENT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT.format(absent), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("training") / "store.zarr", rows=56, tile_pixels=64)


def test_pretraining_runs_without_the_collecting_packages(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = _mmearth(
        *("pretrain", "--store", store, "--out", run, "--preset", "demo", "--epochs", 1, "--pretext", "sentinel2"),
        *("--threads", 1, "--tensorboard"),
    )
    assert result.returncode == 0, result.stderr
    assert (run / "encoder.safetensors").is_file()
    assert list((run / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(("verb", "absent", "extra"), [("collect", ABSENT, "all"), ("pretrain", ("torch",), "train")])
def test_a_verb_that_needs_more_says_what_to_install(verb: str, absent: tuple[str, ...], extra: str) -> None:
    result = _mmearth(verb, "--help", absent=absent)
    assert result.returncode == 2
    assert f"pip install 'mmearth[{extra}]'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
