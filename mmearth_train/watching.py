"""Where a run's figures go: JSON lines always, boards where they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmearth_data.modalities import MODEL_INPUT_BANDS
from mmearth_data.store import Store
from mmearth_train import metrics
from mmearth_train.boards import Board
from mmearth_train.model import INPUT, MPMAE
from mmearth_train.reconstruct import reconstruct_with

_log = logging.getLogger(__name__)

SHOWN = 4
"""Tiles in a picture of reconstructions."""
_RGB = tuple(MODEL_INPUT_BANDS.index(band) for band in ("B4", "B3", "B2"))
_EMPTY = 0.5
"""Grey of what is not there: hidden pixels of an input, visible ones of a prediction, no data."""


class Watch:
    """Writes the metrics of a run into its folder and onto ``boards``; a context that leaves nothing unwritten.

    A board that fails, on a full disk or without its service, is told of once and left alone: the run goes on.
    """

    def __init__(self, out: Path, boards: Sequence[Board] = ()) -> None:
        self._out, self._boards = out, list(boards)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._show(lambda board: board.close(failed=error is not None))

    def line(self, line: dict[str, Any]) -> None:
        """Write one line of metrics: losses by task under ``tasks``, numbers, and ``split`` and ``step``."""
        metrics.append(self._out, line)
        shown = figures(line)
        self._show(lambda board: board.figures(line["step"], shown))

    def pictures(self, step: int, model: MPMAE, store: Store, rows: NDArray[np.int64]) -> None:
        """Reconstructions of the first of ``rows``: a tile's input, then prediction and target of each task."""
        if not self._boards or not len(rows):
            return
        found = reconstruct_with(model, store, rows[:SHOWN])
        names = [key.removesuffix(".prediction") for key in found if key.endswith(".prediction")]
        shown = {f"reconstructions/{name}": _strips(found, name) for name in names}
        self._show(lambda board: board.pictures(step, shown))

    def _show(self, write: Callable[[Board], None]) -> None:
        for board in tuple(self._boards):
            try:
                write(board)
            except Exception as error:  # noqa: BLE001 - each package has errors of its own, none worth a run
                self._boards.remove(board)
                said = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
                why = said or type(error).__name__
                _log.warning(
                    "%s of %s stops here (%s); %s goes on", type(board).__name__, self._out, why, metrics.FILE_NAME
                )


def figures(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics by the names that boards show: ``train/loss``, ``tasks val/aster`` and so on."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            found |= {f"{name} {line['split']}/{task}": number for task, number in value.items()}
        elif isinstance(value, float):
            found[f"{line['split']}/{name}"] = value
    return found


def _strips(found: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.float64]:
    """One task's picture: tiles side by side, the input where it is predicted, the prediction, and the target."""
    target = found[f"{name}.target"].astype(np.float64)
    low, high = _stretch(target)
    seen = [found[f"{INPUT}.input"].astype(np.float64)] if name == INPUT else []
    strips = [_shades(values, name, low, high) for values in (*seen, found[f"{name}.prediction"], target)]
    return np.concatenate([np.concatenate(list(strip), axis=1) for strip in strips], axis=0)


def _stretch(target: NDArray[np.float64]) -> tuple[float, float]:
    known = target[np.isfinite(target)]
    low, high = np.percentile(known, (2, 98)) if len(known) else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9))


def _shades(values: NDArray[Any], name: str, low: float, high: float) -> NDArray[np.float64]:
    """Images (n, bands, H, H) as (n, H, H, 3) between 0 and 1: true colour, or the first band in grey."""
    bands = values[:, _RGB if name == INPUT else (0, 0, 0)].astype(np.float64)
    scaled = np.clip((bands - low) / (high - low), 0, 1)
    return np.where(np.isfinite(bands), scaled, _EMPTY).transpose(0, 2, 3, 1)
