"""Compiled loops are kept on disk where there is room for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mmearth_data.emulator.world.compiled import compiled


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
