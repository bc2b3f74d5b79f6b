"""Layers kept: what Earth Engine once sent lies in a folder, and is asked for again only where it is damaged.

One GeoParquet file per request, and beside it its checksum as ``sha256sum --check`` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import geopandas as gpd
import platformdirs

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Raised whenever a layer kept before would be read as something else."""


@dataclass(frozen=True)
class LayerRequest:
    """What was asked for; another request is another file."""

    service: str
    """Base URL of the service."""
    asset: str
    max_error: float | None
    """Metres that borders may be off."""

    def file(self, folder: Path) -> Path:
        """Where the answer is kept: the asset's name, and a digest of everything that was asked."""
        asked = json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
        return folder / f"{self.asset.replace('/', '-')}-{digest}.parquet"


def default_folder() -> Path:
    """The user's cache folder for layers: ~/.cache/mmearth/layers on Linux, or below XDG_CACHE_HOME."""
    return platformdirs.user_cache_path("mmearth") / "layers"


def kept(folder: Path, request: LayerRequest, fetch: Callable[[], gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """The layer of ``request`` as the folder has it, or else as ``fetch`` returns it, which is then kept.

    A file that does not match its checksum is said and fetched again. A folder that cannot be written is said, and
    costs no more than the next run's fetching. Raises what ``fetch`` raises.
    """
    file = request.file(folder)
    content = _intact(file)
    if content is None:
        frame = fetch()
        content = _content(frame)
        try:
            _keep(file, content)
        except OSError as error:
            logger.warning("cannot keep %s (%s); it will be fetched again next time", file, error.strerror or error)
    return gpd.read_parquet(io.BytesIO(content))


def _sums(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _intact(file: Path) -> bytes | None:
    """The file's bytes where they match their checksum, None where there are none; says where they do not match."""
    try:
        content, line = file.read_bytes(), _sums(file).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read %s (%s); fetching it again", file, error.strerror or error)
        return None
    if line.split(maxsplit=1)[:1] != [hashlib.sha256(content).hexdigest()]:
        logger.warning("%s does not match its checksum; fetching it again", file)
        return None
    return content


def _content(frame: gpd.GeoDataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _keep(file: Path, content: bytes) -> None:
    """Write the layer, then its checksum, each whole: in between, the checksum tells that they do not belong."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = f"{hashlib.sha256(content).hexdigest()}  {file.name}\n"
    for target, written in ((file, content), (_sums(file), line.encode())):
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(written)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
