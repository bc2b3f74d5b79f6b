"""Where a run's figures go: JSON lines always, TensorBoard where it is asked for."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import MODEL_INPUT_BANDS
from mmearth_data.store import Store
from mmearth_train import metrics
from mmearth_train.config import RunError
from mmearth_train.model import INPUT, MPMAE
from mmearth_train.reconstruct import reconstruct_with

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
SHOWN = 4
"""Tiles in a picture of reconstructions."""
_RGB = tuple(MODEL_INPUT_BANDS.index(band) for band in ("B4", "B3", "B2"))
_EMPTY = 0.5
"""Grey of what is not there: hidden pixels of an input, visible ones of a prediction, no data."""


class Watch:
    """Writes the metrics of a run from ``step`` on; a context that leaves nothing unwritten."""

    def __init__(self, out: Path, tensorboard: bool, step: int) -> None:
        self._out = out
        self._writer = _writer(out / FOLDER, step) if tensorboard else None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def line(self, line: dict[str, Any]) -> None:
        """Write one line of metrics: losses by task under ``tasks``, numbers, and ``split`` and ``step``."""
        metrics.append(self._out, line)
        if self._writer is None:
            return
        for name, value in line.items():
            if isinstance(value, dict):
                for task, number in value.items():
                    self._writer.add_scalar(f"{name} {line['split']}/{task}", number, line["step"])
            elif isinstance(value, float):
                self._writer.add_scalar(f"{line['split']}/{name}", value, line["step"])

    def pictures(self, step: int, model: MPMAE, store: Store, rows: NDArray[np.int64]) -> None:
        """Reconstructions of the first of ``rows``: a tile's input, then prediction and target of each task."""
        if self._writer is None or not len(rows):
            return
        found = reconstruct_with(model, store, rows[:SHOWN])
        names = [key.removesuffix(".prediction") for key in found if key.endswith(".prediction")]
        for name in names:
            target = found[f"{name}.target"].astype(np.float64)
            low, high = _stretch(target)
            seen = [found[f"{INPUT}.input"].astype(np.float64)] if name == INPUT else []
            strips = [_shades(values, name, low, high) for values in (*seen, found[f"{name}.prediction"], target)]
            picture = np.concatenate([np.concatenate(list(strip), axis=1) for strip in strips], axis=0)
            self._writer.add_image(f"reconstructions/{name}", picture, step, dataformats="HWC")
        self._writer.flush()


def _writer(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError(
            "--tensorboard needs the package tensorboard; install it with: pip install tensorboard"
        ) from error
    # What an earlier process wrote after the step that it is resumed from is written again.
    return SummaryWriter(str(folder), purge_step=step + 1)


def _stretch(target: NDArray[np.float64]) -> tuple[float, float]:
    known = target[np.isfinite(target)]
    low, high = np.percentile(known, (2, 98)) if len(known) else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9))


def _shades(values: NDArray[Any], name: str, low: float, high: float) -> NDArray[np.float64]:
    """Images (n, bands, H, H) as (n, H, H, 3) between 0 and 1: true colour, or the first band in grey."""
    bands = values[:, _RGB if name == INPUT else (0, 0, 0)].astype(np.float64)
    scaled = np.clip((bands - low) / (high - low), 0, 1)
    return np.where(np.isfinite(bands), scaled, _EMPTY).transpose(0, 2, 3, 1)
