"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files to compare with; they lie beside the checkout and are never part of it."""
    if not SHARED_DATA.is_dir():
        reason = f"{SHARED_DATA} with the real test files is not here"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED_DATA


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands that report to one temporary Prefect server of the module's own."""
    from tests.commands import shared_server  # Prefect takes seconds to import, and few tests need it

    with shared_server(tmp_path_factory.mktemp("prefect")) as variables:
        yield variables
