"""Compiled loops run where what is compiled cannot be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import caching

from mmearth_data.compiled import compiled

KEEPS_NOTHING = "from numba.core import caching; caching.CacheImpl._locator_classes = []; "


def test_a_loop_is_compiled_with_its_options_where_it_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    made = compiled(lambda x: x + 1, fastmath={"contract"})
    assert made(6) == 7
    assert made.targetoptions["fastmath"] == {"contract"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", ["loader.kernels", "depthwise_cpu"])
def test_nothing_of_training_needs_a_place_to_keep_it(module: str) -> None:
    """An installation that may not be written to, used by somebody who has no home."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", f"{KEEPS_NOTHING}import mmearth_train.{module}"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


ON_A_FULL_DISK = """
import logging, resource, signal, sys
from mmearth_data.compiled import compiled

def double(x):
    return 2 * x

def triple(x):
    return 3 * x

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, tuple(2 * [int(sys.argv[1])]))
logging.basicConfig(format="%(message)s")
print(compiled(double)(21), compiled(triple)(14))
"""


def test_a_full_disk_costs_no_more_than_compiling_again(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(ON_A_FULL_DISK)
    kept = tmp_path / "kept"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "NUMBA_CACHE_DIR": str(kept)}

    def run(room: int) -> tuple[str, str]:
        command = [sys.executable, str(tmp_path / "loop.py"), str(room)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return result.stdout.strip(), result.stderr.strip()

    found, said = run(0)
    assert found == "42 42"
    assert said.startswith(f"compiled loops cannot be kept in {kept}")
    assert said.endswith("make room or let NUMBA_CACHE_DIR name another folder, or else every process compiles anew")
    assert "\n" not in said
    assert run(1 << 20) == ("42 42", "")
    assert len(list(kept.rglob("*.nbc"))) == 2
    assert run(0) == ("42 42", "")  # what is kept is not written again
