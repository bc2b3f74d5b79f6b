"""Compiled loops are kept on disk where there is room for them, and made again when a number changes that they use."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmearth_data.emulator.world.compiled import compiled


def test_a_number_of_another_file_is_not_taken_from_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba looks at the source of a function alone, and an update need not touch that."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    numbers, loops = tmp_path / "numbers_of_loops.py", tmp_path / "loops_of_numbers.py"
    loops.write_text(
        "import numbers_of_loops\n"
        "from numbers_of_loops import KIND\n"
        f"from {compiled.__module__} import compiled\n\n\n"
        "@compiled\ndef loop(x):\n    return 100 * x + 10 * KIND + numbers_of_loops.OTHER\n"
    )
    found = []
    for kind, other in ((1, 1), (2, 1), (2, 3), (1, 1)):
        numbers.write_text(f"KIND = {kind}\nOTHER = {other}\n")
        for name in ("numbers_of_loops", "loops_of_numbers"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        made = importlib.import_module("loops_of_numbers").loop
        found.append((made(1), sum(made.stats.cache_hits.values())))
    for name in ("numbers_of_loops", "loops_of_numbers"):
        sys.modules.pop(name)
    assert found == [(111, 0), (121, 0), (123, 0), (111, 1)]


def test_loops_are_compiled_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """Neither beside the source nor in a home of the user's: a file stands where the folders would be made."""
    (tmp_path / "__pycache__").touch()
    (tmp_path / "home").touch()
    (tmp_path / "bare.py").write_text(
        f"from {compiled.__module__} import compiled\n\n\n"
        "@compiled\ndef loop(x):\n    return x + 1\n\n\nprint(loop(6))\n"
    )
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: text for name, text in os.environ.items() if name not in unset}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    command = [sys.executable, "-B", "-c", "import bare"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "7\n"), result.stderr
