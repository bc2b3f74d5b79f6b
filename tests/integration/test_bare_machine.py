"""A machine with a GPU has torch, numpy and pytest alone: what is meant for it runs there, here on its processor."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def requirements(names: tuple[str, ...]) -> set[importlib.metadata.Distribution]:
    """The distributions called so and all that they cannot do without."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        needed = [line for line in found[name].requires or () if "extra ==" not in line]
        waiting += [match[0] for line in needed if (match := re.match(r"[\w.-]+", line))]
    return set(found.values())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which Python finds those packages and no others."""
    folder = tmp_path_factory.mktemp("bare")
    for distribution in requirements(("torch", "numpy", "pytest")):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_the_tests_of_a_gpu_are_found_and_wait_for_one(environment: dict[str, str]) -> None:
    result = run(environment, "-m", "pytest", "-p", "no:cacheprovider", "tests/gpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ (passed|skipped)", result.stdout)


def test_without_a_gpu_one_line_says_so(environment: dict[str, str]) -> None:
    result = run({**environment, "CUDA_VISIBLE_DEVICES": ""}, "benchmarks/gpu_training.py")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("gpu_training.py: torch sees no GPU")
    assert "--sizes atto:56:4" in line


def test_training_is_measured_from_memory(environment: dict[str, str]) -> None:
    result = run(
        environment, "benchmarks/gpu_training.py", "--sizes", "atto:56:1", "--steps", "1", "--ways", "eager", "dense"
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"atto 56/8 eager +1 images: +\d+ images/s", result.stdout)
    assert re.search(r"atto 56/8 speed beside eager: eager 1.00, dense 0\.\d+", result.stdout)
    assert "from a store: not measured" in result.stdout
