"""What features hold is found and what they do not hold is not; scores, intervals and marks are in the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mmearth_train.evaluate.blocks import assign_folds
from mmearth_train.evaluate.crossfit import CrossFit
from mmearth_train.evaluate.results import EncoderSummary, Row
from mmearth_train.evaluate.scoring import Contestant, Protocol, Truth, UnscorableError, score, truth_of
from mmearth_train.evaluate.targets import TARGETS

TILES = 300


@dataclass(frozen=True)
class World:
    block: np.ndarray
    contestants: tuple[Contestant, ...]
    truths: tuple[Truth, ...]

    def score(self, protocols: tuple[Protocol, ...] = ("linear", "knn"), seeds: int = 2) -> dict[tuple[str, ...], Row]:
        rows = score(self.contestants, self.truths, self.block, protocols, seeds, lambda: None)
        return {(row.target, row.encoder, row.protocol, row.metric): row for row in rows}


def contestant(name: str, pretext: tuple[str, ...], *features: np.ndarray) -> Contestant:
    arrays = tuple(array.astype(np.float32) for array in features)
    return Contestant(EncoderSummary(name, "pretrained", "", pretext, arrays[0].shape[1]), arrays)


@pytest.fixture(scope="module")
def world() -> World:
    """Canopy height and biome follow from what 'knows' sees; 'blind' sees noise, another for each seed."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(TILES, 5))
    features = latent @ rng.normal(size=(5, 30)) + 1e-3 * rng.normal(size=(TILES, 30))
    height = 20 + latent[:, :1] * 3 - latent[:, 1:2]
    biome = latent[:, :4].argmax(axis=1)
    block = np.arange(TILES) // 3
    valid = rng.random(TILES) < 0.9
    everywhere = np.ones(TILES, dtype=bool)
    return World(
        block,
        (
            contestant("knows", ("canopy_height_eth",), features, features),
            contestant("blind", (), rng.normal(size=(TILES, 30)), rng.normal(size=(TILES, 30))),
        ),
        (
            truth_of(TARGETS["canopy_height"], height, valid, block),
            truth_of(TARGETS["biome"], biome, everywhere, block),
        ),
    )


@pytest.fixture(scope="module")
def rows(world: World) -> dict[tuple[str, ...], Row]:
    return world.score()


def test_a_linear_function_of_the_features_is_recovered(rows: dict[tuple[str, ...], Row]) -> None:
    assert rows["canopy_height", "knows", "linear", "r2"].mean > 0.999
    assert rows["biome", "knows", "linear", "macro_f1"].mean > 0.9
    assert rows["biome", "knows", "knn", "macro_f1"].mean > 0.7


def test_nothing_is_found_in_noise(world: World, rows: dict[tuple[str, ...], Row]) -> None:
    assert -0.2 < rows["canopy_height", "blind", "linear", "r2"].mean < 0.05
    assert rows["canopy_height", "blind", "knn", "r2"].mean < 0.05
    row = rows["biome", "blind", "linear", "accuracy"]
    share = max(world.truths[1].summary.means)
    assert row.low < share + 0.02
    assert row.mean < share + 0.05


def test_scores_are_sklearns_on_the_same_predictions(world: World, rows: dict[tuple[str, ...], Row]) -> None:
    truth = world.truths[1]
    labels = truth.values.astype(np.int64)
    for seed in (0, 1):
        fit = CrossFit(world.contestants[1].features[seed], assign_folds(world.block, seed))
        predicted = fit.classify(labels, len(truth.target.outputs))
        for metric, expected in (
            ("accuracy", accuracy_score(labels, predicted)),
            ("macro_f1", f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
        ):
            row = rows["biome", "blind", "linear", metric]
            assert row.seeds[seed] == pytest.approx(expected)
            assert row.mean == pytest.approx(np.mean(row.seeds))
            assert row.std == pytest.approx(np.std(row.seeds))


def test_intervals_hold_the_mean_and_are_as_wide_as_the_blocks_say(rows: dict[tuple[str, ...], Row]) -> None:
    for row in rows.values():
        assert row.low <= row.mean <= row.high
    accuracy = rows["biome", "blind", "linear", "accuracy"]
    # Independent tiles in blocks of three: about a binomial's interval, whatever the seeds.
    half = 1.96 * np.sqrt(accuracy.mean * (1 - accuracy.mean) / TILES)
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(half, rel=0.35)


def test_seen_targets_are_marked(rows: dict[tuple[str, ...], Row]) -> None:
    seen = {(row.target, row.encoder) for row in rows.values() if row.seen}
    assert seen == {("canopy_height", "knows")}


def test_the_same_input_gives_the_same_rows_and_other_seeds_other_folds(
    world: World, rows: dict[tuple[str, ...], Row]
) -> None:
    assert world.score() == rows
    assert len(set(rows["canopy_height", "knows", "linear", "r2"].seeds)) == 2


def test_only_tiles_with_data_take_part(world: World) -> None:
    height = world.truths[0]
    assert height.summary.tiles == len(height.rows) < TILES
    assert height.summary.means == pytest.approx((float(np.mean(height.values)),))


def test_a_target_that_cannot_be_scored_says_why() -> None:
    block = np.arange(20)
    canopy, biome, fractions = (TARGETS[name] for name in ("canopy_height", "biome", "worldcover_fractions"))
    everywhere = np.ones(20, dtype=bool)
    with pytest.raises(UnscorableError, match="4 blocks have data, cross-validation needs 5"):
        truth_of(canopy, np.arange(20.0)[:, None], block < 4, block)
    with pytest.raises(UnscorableError, match="one class"):
        truth_of(biome, np.full(20, 3), everywhere, block)
    with pytest.raises(UnscorableError, match="the same everywhere"):
        truth_of(canopy, np.full((20, 1), 7.0), everywhere, block)
    rare = np.zeros((20, 11))
    rare[:, 0], rare[:9, 1] = 1.0, 0.5
    with pytest.raises(UnscorableError, match="no class occurs in 10 blocks"):
        truth_of(fractions, rare, everywhere, block)
