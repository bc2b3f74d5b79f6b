"""Probing: every encoder's features against every target, over folds and seeds, with intervals over blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmearth_train.evaluate.blocks import FOLDS, assign_folds, interval, resample, sum_by_block
from mmearth_train.evaluate.crossfit import CrossFit
from mmearth_train.evaluate.metrics import R2, Accuracy, MacroF1, Metric
from mmearth_train.evaluate.results import EncoderSummary, Row, TargetSummary
from mmearth_train.evaluate.targets import MIN_BLOCKS, Target, scored_outputs
from mmearth_train.evaluate.threads import single_threaded_workers

Protocol = Literal["linear", "knn"]


@dataclass(frozen=True)
class Contestant:
    """An encoder's features of every tile, (n, features) per seed; the same array where no seed enters them."""

    summary: EncoderSummary
    features: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class Truth:
    """A target's values for the tiles ``rows`` (of all tiles) that have data: labels (m,) or outputs (m, k)."""

    target: Target
    summary: TargetSummary
    rows: NDArray[np.int64]
    values: NDArray[np.generic]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The scores of this kind of target."""
        if self.target.kind == "regression":
            return (R2(),)
        return (MacroF1(len(self.target.outputs)), Accuracy())


class UnscorableError(Exception):
    """The tiles at hand cannot score a target; the message says why."""


def truth_of(target: Target, values: NDArray[np.generic], valid: NDArray[np.bool_], block: NDArray[np.int64]) -> Truth:
    """The part of a target that can be scored; raises UnscorableError where that is nothing.

    ``values`` (n,) or (n, outputs), ``valid`` and ``block`` (n,) are those of all tiles.
    """
    rows = np.flatnonzero(valid)
    values, block = values[rows], block[rows]
    blocks = len(np.unique(block))
    if blocks < FOLDS:
        raise UnscorableError(f"{blocks} blocks have data, cross-validation needs {FOLDS}")
    if target.kind == "classification":
        share = np.bincount(values.astype(np.int64), minlength=len(target.outputs)) / len(values)
        used = share > 0
        if used.sum() < 2:
            raise UnscorableError("all tiles are of one class")
        means = share
    else:
        means = values.astype(np.float64).mean(axis=0)
        used = values.std(axis=0) > 0
        if target.composition:
            used &= scored_outputs(values.astype(np.float64), block)
        if not used.any():
            raise UnscorableError(
                f"no class occurs in {MIN_BLOCKS} blocks" if target.composition else "its value is the same everywhere"
            )
        values = values[:, used]
    summary = TargetSummary(
        name=target.name,
        kind=target.kind,
        modality=target.modality,
        units=target.units,
        tiles=len(rows),
        outputs=tuple(name for name, use in zip(target.outputs, used, strict=True) if use),
        means=tuple(float(mean) for mean in means[used]),
    )
    return Truth(target, summary, rows, values)


class _Key(NamedTuple):
    target: str
    encoder: str
    protocol: Protocol


def _predict(fit: CrossFit, truth: Truth, protocol: Protocol) -> NDArray[np.generic]:
    """The out-of-fold prediction of each tile of ``truth``."""
    classes = len(truth.target.outputs)
    if truth.target.kind == "regression":
        outputs = truth.values.astype(np.float64)
        return fit.regress(outputs) if protocol == "linear" else fit.average_neighbours(outputs)
    labels = truth.values.astype(np.int64)
    if protocol == "linear":
        return fit.classify(labels, classes)
    votes: NDArray[np.int64] = fit.average_neighbours(np.eye(classes)[labels]).argmax(axis=1)
    return votes


def _probe(
    contestant: Contestant,
    seed: int,
    truths: Sequence[Truth],
    block: NDArray[np.int64],
    protocols: Sequence[Protocol],
    advance: Callable[[], None],
) -> dict[_Key, NDArray[np.generic]]:
    """Predictions for every target and protocol from one encoder's features with one assignment of folds."""
    predictions: dict[_Key, NDArray[np.generic]] = {}
    fits: dict[bytes, CrossFit] = {}
    for truth in truths:
        tiles = truth.rows.tobytes()
        if tiles not in fits:
            fits[tiles] = CrossFit(contestant.features[seed][truth.rows], assign_folds(block[truth.rows], seed))
        for protocol in protocols:
            key = _Key(truth.target.name, contestant.summary.name, protocol)
            predictions[key] = _predict(fits[tiles], truth, protocol)
            advance()
    return predictions


def score(
    contestants: Sequence[Contestant],
    truths: Sequence[Truth],
    block: NDArray[np.int64],
    protocols: Sequence[Protocol],
    seeds: int,
    advance: Callable[[], None],
) -> tuple[Row, ...]:
    """Rows of every target, encoder, protocol and metric; ``advance`` is called once per prediction made."""
    jobs = [(contestant, seed) for contestant in contestants for seed in range(seeds)]
    with single_threaded_workers() as pool:
        futures = [pool.submit(_probe, one, seed, truths, block, protocols, advance) for one, seed in jobs]
        found = [future.result() for future in futures]
    by_key: dict[_Key, list[NDArray[np.generic]]] = {}
    for predictions in found:
        for key, prediction in predictions.items():
            by_key.setdefault(key, []).append(prediction)
    return tuple(
        _row(_Key(truth.target.name, contestant.summary.name, protocol), truth, contestant, metric, by_key, block)
        for truth in truths
        for protocol in protocols
        for contestant in contestants
        for metric in truth.metrics
    )


def _row(
    key: _Key,
    truth: Truth,
    contestant: Contestant,
    metric: Metric,
    by_key: dict[_Key, list[NDArray[np.generic]]],
    block: NDArray[np.int64],
) -> Row:
    sums = [
        sum_by_block(metric.contributions(truth.values, prediction), block[truth.rows]) for prediction in by_key[key]
    ]
    values = np.array([metric.value(one.sum(axis=0)) for one in sums])
    low, high = interval(np.mean([metric.value(resample(one)) for one in sums], axis=0))
    return Row(
        target=key.target,
        encoder=key.encoder,
        protocol=key.protocol,
        metric=metric.name,
        mean=float(values.mean()),
        std=float(values.std()),
        low=low,
        high=high,
        seen=truth.target.seen(contestant.summary.pretext),
        seeds=tuple(float(value) for value in values),
    )
