"""Vector files as feature tables."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
from pyogrio.errors import DataSourceError

from mmearth_data.emulator.assets import FeatureAsset
from mmearth_data.emulator.errors import EmulatorError

logger = logging.getLogger(__name__)


def read_table(asset_id: str, path: Path) -> FeatureAsset:
    """Every feature of a vector file that pyogrio reads, in degrees and in the file's order.

    A file without a CRS is taken to be in degrees if its coordinates could be. Raises EmulatorError otherwise, and for
    a file that cannot be read or has features without geometry.
    """
    try:
        frame = pyogrio.read_dataframe(path)
    except DataSourceError:
        raise EmulatorError(f"--mount: cannot read {path}; name a folder or a vector file") from None
    if "geometry" not in frame or frame.geometry.isna().any():
        raise EmulatorError(f"--mount: {path} has rows without geometry; leave them out of the file")
    if frame.crs is None:
        west, south, east, north = frame.total_bounds
        if west < -180 or east > 180 or south < -90 or north > 90:
            raise EmulatorError(f"--mount: {path} has no CRS and is not in degrees; assign its CRS")
        logger.info("%s has no CRS; its coordinates are taken as longitude and latitude", path)
    else:
        frame = frame.to_crs("EPSG:4326")
    columns = [name for name in frame.columns if name != "geometry"]
    rows = zip(*(frame[name].tolist() for name in columns), strict=True) if columns else [()] * len(frame)
    features = tuple(
        (shape, {name: _plain(value) for name, value in zip(columns, row, strict=True)})
        for shape, row in zip(frame.geometry, rows, strict=True)
    )
    return FeatureAsset(asset_id, features)


def _plain(value: Any) -> Any:
    """The value as Earth Engine keeps it: times as ms since 1970, no value as null."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if hasattr(value, "timestamp"):
        return None if value != value else round(value.timestamp() * 1000)  # NaT is not itself
    return value.item() if isinstance(value, np.generic) else value
