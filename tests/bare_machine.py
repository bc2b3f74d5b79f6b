"""What stands in for packages on a machine with a GPU that has torch, numpy and pytest alone."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


def stand_in() -> None:
    """Let modules with shapes in their annotations be imported without jaxtyping: here nothing evaluates them."""
    names = ModuleType("jaxtyping")
    names.__spec__ = ModuleSpec("jaxtyping", loader=None)
    names.Bool = names.Float = names.Integer = None  # type: ignore[attr-defined]
    sys.modules["jaxtyping"] = names
