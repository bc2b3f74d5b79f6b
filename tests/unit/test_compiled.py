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


@pytest.mark.parametrize("module", ["loader.kernels", "weight_gradient"])
def test_nothing_of_training_needs_a_place_to_keep_it(module: str) -> None:
    """An installation that may not be written to, used by somebody who has no home."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", f"{KEEPS_NOTHING}import mmearth_train.{module}"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
