"""Every benchmark starts with the command that it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOAD = """
import runpy, sys

packages = list(sys.path[1:])
for script in sys.argv[1:]:
    sys.path[:] = [script.rpartition("/")[0], *packages]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("benchmarks", "tests")]:
        del sys.modules[name]
    runpy.run_path(script, run_name="started")
"""


def test_every_script_finds_what_it_imports_where_nothing_says_where_to_look() -> None:
    """In one process, with the import path that ``python benchmarks/…`` has."""
    scripts = [
        str(path)
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if f" benchmarks/{path.name}" in path.read_text(encoding="utf-8").partition("from __future__")[0]
    ]
    assert len(scripts) > 5
    result = subprocess.run(
        [sys.executable, "-c", LOAD, *scripts],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
