"""Tests of a GPU run on a bare machine: python3 -m pytest tests/gpu, with torch, numpy and pytest."""

from __future__ import annotations

from importlib.util import find_spec

from tests import bare_machine

if find_spec("jaxtyping") is None:
    bare_machine.stand_in()
