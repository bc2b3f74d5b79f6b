"""What two stores must have in common to be the same one."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content(store: Path) -> dict[str, str]:
    """Digest of every file of a store; locks and the account, which tells when it was collected, are left out."""
    files = (file for file in sorted(store.rglob("*")) if file.is_file())
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.suffix != ".lock" and file.name != "lock" and file.parent != store / "_plan" / "account"
    }
