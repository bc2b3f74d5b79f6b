"""The report's training sections say what the run's files say, and draw what the model was given and predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows.report import ReportConfig, write_report
from mmearth_data.modalities import MODALITIES
from mmearth_data.report.pictures import PALETTES
from mmearth_data.store import open_store
from mmearth_train import checkpoint
from mmearth_train.evaluate.results import EncoderSummary, Evaluation, EvaluationError, Row, TargetSummary, save
from mmearth_train.model import MPMAE
from mmearth_train.report.curves import MetricsError, pretraining, read_metrics, standings
from mmearth_train.report.probes import gains, probes
from mmearth_train.specification import specify
from tests.synthetic import make_store
from tests.unit.report_page import Page

TASKS = ("sentinel2", "aster", "biome")


def line(split: str, step: int, **values: Any) -> str:
    return json.dumps({"split": split, "step": step, "epoch": step / 10, **values}) + "\n"


def train_line(step: int, loss: float) -> str:
    return line("train", step, loss=loss, tasks=dict.fromkeys(TASKS, loss), images_per_second=50.0)


def write_metrics(run: Path) -> None:
    """Ten steps, of which a resumed run wrote 5 to 10 again; two validations; a torn last line."""
    run.mkdir(parents=True, exist_ok=True)
    constant = {"sentinel2": 1.0, "aster": 0.8, "biome": 2.5}
    (run / "metrics.jsonl").write_text(
        "".join(train_line(step, 9.0) for step in range(1, 11))
        + line("val", 5, tasks={"sentinel2": 3.0, "aster": 3.0, "biome": 3.0}, constant=constant)
        + "".join(train_line(step, 4.0) for step in range(5, 11))
        + line("val", 10, tasks={"sentinel2": 0.75, "aster": 0.8, "biome": 1.0}, constant=constant)
        + '{"split": "train", "st'
    )


def row(target: str, encoder: str, mean: float, *, seen: bool = False, protocol: str = "linear") -> Row:
    metric = "r2" if target == "canopy_height" else "macro_f1"
    return Row(target, encoder, protocol, metric, mean, 0.01, mean - 0.05, mean + 0.05, seen, (mean, mean))


def evaluation() -> Evaluation:
    kinds = {"held-out": "pretrained", "all": "pretrained", "random": "random", "band means": "band_means"}
    scores = {
        "biome": {"held-out": 0.60, "all": 0.90, "random": 0.40, "band means": 0.55},
        "canopy_height": {"held-out": 0.30, "all": 0.80, "random": 0.45, "band means": 0.10},
    }
    rows = [
        row(target, encoder, mean, seen=encoder == "all")
        for target, means in scores.items()
        for encoder, mean in means.items()
    ]
    return Evaluation(
        store="store",
        tiles=321,
        blocks=45,
        folds=5,
        crop=56,
        encoders=tuple(EncoderSummary(name, which, "", (), 320) for name, which in kinds.items()),
        targets=(
            TargetSummary("biome", "classification", "biome", "1", 321, ("x",), (0.5,)),
            TargetSummary("canopy_height", "regression", "canopy_height_eth", "m", 321, ("x",), (0.5,)),
        ),
        skipped=(),
        rows=(*rows, row("biome", "held-out", 0.11, protocol="knn")),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with metrics, an evaluation and a checkpoint of weights that were never trained."""
    folder = tmp_path_factory.mktemp("training")
    store = open_store(make_store(folder / "store.zarr", rows=56))
    out = folder / "first run"
    write_metrics(out)
    save(evaluation(), out / "evaluation.json")
    names = ("sentinel2", "aster", "esa_worldcover")
    spec = specify(store, store.select("train"), "atto", 56, names, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MPMAE(spec)
    checkpoint.save_run(out, model, torch.optim.AdamW(model.parameters()), spec, 0, {}, 1)
    return out


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    store = run.parent / "store.zarr"
    return Page.of(write_report(ReportConfig(store=store, out=run.parent / "report.html", run=(run,))))


def test_a_step_written_again_counts_once_and_a_torn_line_not_at_all(run: Path) -> None:
    metrics = read_metrics(run)
    assert metrics is not None
    assert [(entry["step"], entry["loss"]) for entry in metrics.training] == [
        *((step, 9.0) for step in range(1, 5)),
        *((step, 4.0) for step in range(5, 11)),
    ]
    assert [entry["step"] for entry in metrics.validation] == [5, 10]
    assert metrics.tasks == TASKS


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(train_line(1, 1.0) + "nonsense\n")
    with pytest.raises(MetricsError, match=r"metrics.jsonl line 2 is not a metrics line"):
        read_metrics(tmp_path)


def test_tasks_are_judged_by_the_last_validation(page: Page) -> None:
    assert page.table("tasks-first-run")[1:] == [
        ["sentinel2", "0.75", "1", "−25.0 %", "beats"],
        ["aster", "0.8", "0.8", "+0.0 %", "fails"],
        ["biome", "1", "2.5", "−60.0 %", "beats"],
    ]
    assert page.facts["Pretext tasks (first run)"] == ("bad", "2 of 3", "no better than a constant: aster")


def test_charts_draw_the_validation_losses_and_the_constant(run: Path) -> None:
    metrics = read_metrics(run)
    assert metrics is not None
    charts = next(block for block in pretraining(run, run.parent).blocks if isinstance(block, list))
    assert len(charts) == len(TASKS) == len(standings(metrics))
    for chart, losses, constant in zip(charts, ((3, 0.75), (3, 0.8), (3, 1)), (1, 0.8, 2.5), strict=True):
        training, validation, level = chart.axes[0].get_lines()
        assert np.allclose(training.get_ydata(), [9] * 4 + [4] * 6)
        assert np.allclose(validation.get_xdata(), [0.5, 1.0])
        assert np.allclose(validation.get_ydata(), losses)
        assert np.allclose(level.get_ydata(), constant)
        low, high = chart.axes[0].get_ylim()
        assert low < min(*losses, constant) <= max(*losses, constant) < high


def test_reconstructions_show_what_was_given_and_predict_only_what_was_hidden(page: Page) -> None:
    rows = page.tables["reconstructions-first-run"]
    assert [cells[0].text for cells in rows] == ["task", "given", "sentinel2", "aster", "esa_worldcover"]
    given = rows[1]
    assert len(given) == 1 + 2 * 3
    for at in range(1, len(given), 2):
        hidden = given[at + 1].pixels("mask (dark is hidden)") < 128
        assert hidden.shape == (56, 56)
        assert hidden.sum() == 30 * 8 * 8, "19 of 49 patches of 8 pixels are visible"
        patches = hidden.reshape(7, 8, 7, 8).transpose(0, 2, 1, 3).reshape(49, 64)
        assert (patches.all(axis=1) | ~patches.any(axis=1)).all()
        seen = given[at].pixels("input")
        assert ((seen[..., 3] == 0) == hidden).all()
        prediction, target = (rows[2][at + offset].pixels(word) for offset, word in enumerate(("prediction", "target")))
        assert ((prediction[..., 3] == 255) == hidden).all()
        assert (target[~hidden] == seen[~hidden]).all(), "what was given is the target where it was not hidden"


def test_target_pictures_are_the_central_crop_of_stored_validation_tiles(page: Page, run: Path) -> None:
    store = open_store(run.parent / "store.zarr")
    rows = page.tables["reconstructions-first-run"]
    validation = store.select("val")
    crops = [store.read("esa_worldcover", int(row), int(row) + 1)[0, 0, 4:60, 4:60] for row in validation]
    colours = np.array([[int(c[at : at + 2], 16) for at in (1, 3, 5)] for c in PALETTES["esa_worldcover"]])
    order = np.searchsorted(MODALITIES["esa_worldcover"].class_values, crops)
    drawn = [rows[-1][at].pixels("target")[..., :3] for at in (2, 4, 6)]
    assert all(any((picture == colours[classes]).all() for classes in order) for picture in drawn)


def test_probe_table_shows_scores_with_intervals_and_marks_what_was_seen(page: Page) -> None:
    header, *lines = page.table("probes-scores")
    assert header == ["target", "protocol", "metric", "held-out", "all", "random", "band means"]
    assert lines[0] == [
        "biome", "linear", "macro_f1", "0.600 (0.550 to 0.650)", "0.900 (0.850 to 0.950) seen",
        "0.400 (0.350 to 0.450)", "0.550 (0.500 to 0.600)",
    ]  # fmt: skip
    assert ["biome", "knn", "macro_f1", "0.110 (0.060 to 0.160)", "", "", ""] in lines
    assert "321 tiles in 45 blocks" in page.sections["probes"]


def test_gains_are_differences_that_are_clear_where_intervals_do_not_overlap(page: Page) -> None:
    found = gains(evaluation()).set_index(["encoder", "target", "baseline"])
    gain, verdict, seen = found.loc[("held-out", "biome", "random")]
    assert (round(gain, 6), verdict, seen) == (0.2, "gains", "")
    assert found.loc[("held-out", "biome", "band means"), "verdict"] == "unclear"
    assert found.loc[("held-out", "canopy_height", "random"), "verdict"] == "loses"
    assert len(found) == 2 * 2 * 2
    assert page.table("probes-gains")[1][:2] == ["biome", "+0.200 gains"]
    assert page.table("probes-gains")[1][3] == "+0.500 gains seen"


def test_header_judges_gains_on_targets_that_were_not_seen(page: Page) -> None:
    over_random = page.facts["Probes: held-out over random"]
    assert over_random[:2] == ("bad", "1 of 2")
    assert "not on canopy_height" in over_random[2]
    assert page.facts["Probes: held-out over band means"][:2] == ("good", "2 of 2")
    assert "all seen" in page.facts["Probes: all over random"][2]


def test_a_run_that_was_not_evaluated_or_logged_says_what_to_do(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    store = run.parent / "store.zarr"
    page = Page.of(write_report(ReportConfig(store=store, out=tmp_path / "report.html", run=(empty,))))
    assert page.facts["Pretext tasks (empty)"][0] == "missing"
    assert f"mmearth pretrain --store {store} --out {empty}" in page.sections["pretraining-empty"]
    assert "No reconstruction" in page.sections["pretraining-empty"]
    assert "mmearth evaluate" in page.sections["probes"]
    assert page.facts["Probe gains"][0] == "missing"


def test_a_damaged_evaluation_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"^[^\n]*make it again with mmearth evaluate$"):
        probes([tmp_path])


def test_the_same_evaluation_in_two_runs_is_shown_once(run: Path, tmp_path: Path) -> None:
    save(evaluation(), tmp_path / "evaluation.json")
    assert len(probes([run, tmp_path])) == 1
