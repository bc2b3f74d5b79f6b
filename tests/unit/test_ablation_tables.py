"""The ablation's tables: statistics over seeds are numpy's, gains are paired, marks follow the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ablation_tables import curves, markdown, pretext_losses, scores, spread
from mmearth_train.evaluate import Evaluation, Row
from mmearth_train.evaluate.results import EncoderSummary, TargetSummary

SEEDS = {
    "pixel": (0.5, 0.7, 0.6),
    "image": (0.2, 0.1, 0.9),
    "random": (0.3, 0.2, 0.4),
    "band means": (0.25, 0.25, 0.25),
}


def evaluation() -> Evaluation:
    rows = []
    for name, own in SEEDS.items():
        mean, std = float(np.mean(own)), float(np.std(own))
        rows += [
            Row("water_share", name, protocol, "r2", mean, std, 0.0, 1.0, name == "pixel", own)
            for protocol in ("linear", "knn")
        ]
    return Evaluation(
        store="store",
        tiles=40,
        blocks=20,
        folds=5,
        crop=56,
        encoders=tuple(EncoderSummary(name, "pretrained", "", (), 320, (2.0, 3.0, 4.0)) for name in SEEDS),
        targets=(TargetSummary("water_share", "regression", "jrc_surface_water", "1", 40, ("mean share",), (0.1,)),),
        skipped=(),
        rows=tuple(rows),
    )


def test_scores_and_gains_are_means_and_sample_deviations_over_seeds() -> None:
    found = scores(evaluation())["linear"]["water_share"]
    for name, own in SEEDS.items():
        assert found[name]["mean"] == pytest.approx(np.mean(own))
        assert found[name]["std"] == pytest.approx(np.std(own, ddof=1))
        gain = np.subtract(own, SEEDS["random"])
        assert found[name]["gain"]["mean"] == pytest.approx(gain.mean())
        assert found[name]["gain"]["std"] == pytest.approx(gain.std(ddof=1))
    assert found["pixel"]["seen"]
    assert not found["image"]["seen"]
    assert spread([0.4])["std"] == 0.0


def test_losses_are_the_last_ones_as_shares_of_the_constants(tmp_path: Path) -> None:
    for run, loss in (("a", 3.0), ("b", 5.0)):
        lines = [
            {"split": "val", "step": 0, "tasks": {"aster": 90.0}, "constant": {"aster": 10.0}},
            {"split": "val", "step": 9, "tasks": {"aster": loss}, "constant": {"aster": 10.0}},
        ]
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = pretext_losses([tmp_path / "a", tmp_path / "b"])
    assert found["aster"]["mean"] == pytest.approx(0.4)
    assert found["aster"]["seeds"] == [0.3, 0.5]


def test_curves_are_scores_by_epoch_and_what_the_last_epoch_lost_in_training(tmp_path: Path) -> None:
    for run, score in (("a", 0.4), ("b", 0.6)):
        training = [
            {"split": "train", "step": step, "epoch": step / 4, "tasks": {"aster": loss, "biome": 3.0}}
            for step, loss in ((3, 80.0), (6, 5.0), (8, 3.0))
        ]
        validation = [
            {"split": "val", "step": step, "epoch": step / 4, "score": value, "tasks": {}, "constant": constant}
            for step, value, constant in ((0, 1.5, {}), (8, score, {"aster": 10.0, "biome": 5.0}))
        ]
        (tmp_path / run).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in training + validation)
        (tmp_path / run / "metrics.jsonl").write_text(text)
    found = curves([tmp_path / "a", tmp_path / "b"])
    assert list(found) == ["0", "2", "training"]
    assert found["0"]["seeds"] == [1.5, 1.5]
    assert found["2"]["mean"] == pytest.approx(0.5)
    assert found["training"]["seeds"] == pytest.approx([(0.4 + 0.6) / 2] * 2)


def document() -> dict[str, Any]:
    return {
        "settings": {"world": 0, "tile_size": 64, "epochs": 2, "seeds": 3},
        "earth": "ea57",
        "code": {"trained_by": {"pixel": [["aaaa"]] * 3, "image": [["aaaa"]] * 3}, "probed_by": "bbbb"},
        "tiles": 40,
        "blocks": 20,
        "steps": [12],
        "scores": scores(evaluation()),
        "skipped": {"built_share": "all tiles are of one class"},
        "targets": {"water_share": {"tiles": 40, "present": 9, "blocks": 7, "present_in_train": 6}},
        "validation_loss_of_best_constant": {"pixel": {"aster": spread([0.3, 0.5])}, "image": {}},
        "score_by_epoch": {
            "pixel": {"0": spread([1.4, 1.6]), "2": spread([0.4, 0.5]), "training": spread([0.3, 0.3])},
            "image": {"0": spread([1.0, 1.0]), "2": spread([0.9, 0.9])},
        },
        "effective_rank": {name: {"of": 320, **spread([2.0, 3.0, 4.0])} for name in SEEDS},
    }


def test_the_page_has_every_number_and_marks_what_was_seen() -> None:
    page = markdown(document())
    lines = page.splitlines()
    assert "| target | pixel | image | untrained | band means |" in lines
    assert "| water_share (R²) | 0.600 ± 0.100* | 0.400 ± 0.436 | 0.300 ± 0.100 | 0.250 ± 0.000 |" in lines
    assert "| water_share (R²) | +0.300 ± 0.173 | +0.100 ± 0.346 |" in lines
    assert "| water_share | 40 | 9 | 7 | 6 |" in lines
    assert "| aster | 0.400 ± 0.141 |  |" in lines
    assert "| 2 | 0.450 ± 0.071 | 0.900 ± 0.000 |" in lines
    assert "| training | 0.300 ± 0.000 |  |" in lines
    assert "| untrained | 320 | 3.00 ± 1.00 |" in lines
    assert "built_share is not scored: all tiles are of one class." in lines


@pytest.mark.parametrize(
    ("image", "trained", "mixed"),
    [
        ([["aaaa"]] * 3, "aaaa (6 runs)", False),
        ([["aaaa"], ["aaaa"], ["cccc"]], "aaaa (5 runs), cccc (1 run)", True),
        ([["aaaa", "cccc"]] * 3, "aaaa (3 runs), aaaa then cccc (3 runs)", True),
    ],
)
def test_the_page_says_what_code_made_it_and_whether_that_is_one(
    image: list[list[str]], trained: str, mixed: bool
) -> None:
    found = document()
    found["code"]["trained_by"]["image"] = image
    (line,) = [line for line in markdown(found).splitlines() if line.startswith("Trained by")]
    assert f"mmearth_train {trained}, probed by bbbb, on the emulated Earth ea57 " in line
    assert ("Not by one version" in line) == mixed
