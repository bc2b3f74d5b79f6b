"""How the card writes JSON and times."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def as_json(document: dict[str, Any]) -> bytes:
    """The document in UTF-8, keys in the order given, with a newline at its end."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def timestamp(milliseconds: int) -> str:
    """RFC 3339, UTC, of milliseconds since 1970."""
    return f"{np.datetime64(milliseconds, 'ms')}Z"
