"""From a store and exported encoders to evaluation.json, and back."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from mmearth_data.modalities import STORED
from mmearth_data.store import StoreError, open_store
from mmearth_train.checkpoint import CheckpointError
from mmearth_train.evaluate import EvaluateConfig, Evaluation, EvaluationError, evaluate, load_evaluation, table
from mmearth_train.evaluate.encoders import runs_in
from mmearth_train.evaluate.gather import BandMeans, centre_crop, gather
from mmearth_train.evaluate.targets import TARGETS, UnknownTargetError, choose
from mmearth_train.model import MPMAE
from mmearth_train.pretrained import FILE_NAME, export_encoder
from mmearth_train.specification import specify
from tests.synthetic import make_store

SEEDS = 2


def export(path: Path, store: Path, pretext: tuple[str, ...], input_size: int = 56) -> Path:
    opened = open_store(store)
    spec = specify(opened, opened.select("train"), "atto", input_size, pretext, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(pretext))
        export_encoder(path / FILE_NAME, spec, MPMAE(spec).encoder, "default")
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("evaluate") / "store", rows=84, tile_pixels=64, shard_rows=28)


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return export(folder / "all", store, ("sentinel2", "biome", "esa_worldcover")), export(
        folder / "held-out", store, ("sentinel2",)
    )


@pytest.fixture(scope="module")
def evaluation(store: Path, runs: tuple[Path, Path]) -> Evaluation:
    return evaluate(EvaluateConfig(store=store, checkpoint=runs, seeds=SEEDS))


def test_every_combination_has_its_rows(evaluation: Evaluation) -> None:
    scored = {(row.target, row.encoder, row.protocol, row.metric) for row in evaluation.rows}
    metrics = {"classification": ("macro_f1", "accuracy"), "regression": ("r2",)}
    assert scored == {
        (target.name, encoder, protocol, metric)
        for target in choose((), [modality.name for modality in STORED])
        for encoder in ("all", "held-out", "random", "band means")
        for protocol in ("linear", "knn")
        for metric in metrics[target.kind]
    }
    assert len(scored) == len(evaluation.rows)
    assert evaluation.skipped == ()
    assert [(encoder.name, encoder.kind) for encoder in evaluation.encoders] == [
        ("all", "pretrained"), ("held-out", "pretrained"), ("random", "random"), ("band means", "band_means"),
    ]  # fmt: skip


def test_all_complete_tiles_of_every_split_take_part(evaluation: Evaluation, store: Path) -> None:
    opened = open_store(store)
    complete = opened.select()
    assert len(np.unique(opened.split[complete])) > 1
    assert evaluation.tiles == len(complete) < opened.rows
    biome = next(target for target in evaluation.targets if target.name == "biome")
    assert biome.tiles == len(complete)
    assert evaluation.folds == 5
    assert evaluation.crop == 56


def test_targets_that_the_pretext_tasks_held_are_marked_seen(evaluation: Evaluation) -> None:
    seen = {(row.encoder, row.target) for row in evaluation.rows if row.seen}
    assert seen == {("all", "biome"), ("all", "worldcover_class"), ("all", "worldcover_fractions")}


def test_the_file_holds_the_whole_evaluation(evaluation: Evaluation, runs: tuple[Path, Path]) -> None:
    file = runs[0] / "evaluation.json"
    assert load_evaluation(file) == evaluation == load_evaluation(runs[0])
    document = json.loads(file.read_text(encoding="utf-8"))
    assert set(document["rows"][0]) == {
        "target", "encoder", "protocol", "metric", "mean", "std", "low", "high", "seen", "seeds",
    }  # fmt: skip
    assert all(len(row["seeds"]) == SEEDS for row in document["rows"])
    assert [path.name for path in runs[0].iterdir() if "evaluation" in path.name] == ["evaluation.json"]


def test_the_table_shows_the_main_metric_once_per_target_protocol_and_encoder(evaluation: Evaluation) -> None:
    header, *lines = table(evaluation)
    assert all(len(line) == len(header) for line in lines)
    assert len(lines) == 4 * 2 * 4
    by_column = [dict(zip(header, line, strict=True)) for line in lines]
    assert {(line["target"], line["metric"]) for line in by_column} == {
        ("worldcover_class", "macro_f1"), ("worldcover_fractions", "r2"), ("biome", "macro_f1"),
        ("canopy_height", "r2"),
    }  # fmt: skip
    assert sum(line["seen"] == "seen" for line in by_column) == 3 * 2


def test_running_again_gives_the_same_and_a_choice_of_tasks_gives_a_part(
    evaluation: Evaluation, store: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "some" / "probe.json"
    config = EvaluateConfig(
        store=store, checkpoint=(runs[1] / FILE_NAME,), out=out, task=("canopy_height",), protocol=("knn",), seeds=SEEDS
    )
    part = evaluate(config)
    assert load_evaluation(out) == part
    expected = [
        row for row in evaluation.rows
        if row.target == "canopy_height" and row.protocol == "knn" and row.encoder != "all"
    ]  # fmt: skip
    assert list(part.rows) == expected


def test_gathered_features_and_values_are_those_of_each_row(store: Path) -> None:
    opened = open_store(store)
    encoder, targets = BandMeans.of_store(opened), (TARGETS["biome"], TARGETS["canopy_height"])
    told: list[int] = []
    found = gather(opened, [encoder], targets, 40, told.append)
    np.testing.assert_array_equal(found.rows, opened.select())
    assert sum(told) == len(found.rows)
    bands = [*range(10), 11, 12]
    for at in (0, 30, len(found.rows) - 1):
        row = int(found.rows[at])
        image = opened.read("sentinel2", row, row + 1)[:, bands, 12:52, 12:52]
        expected = encoder.features(torch.from_numpy(image), torch.from_numpy(opened.level[row : row + 1]))
        np.testing.assert_allclose(found.features[0][at], expected[0].numpy(), rtol=1e-5)
        assert found.values[0][0][at] == row % 14
        canopy = centre_crop(opened.read("canopy_height_eth", row, row + 1), 40)[0, 0]
        assert found.values[1][1][at] == ((canopy != 255).mean() >= 0.5)


def test_what_is_wrong_is_said_in_one_line(store: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    def message(error: type[Exception], **change: object) -> str:
        config = {"store": store, "checkpoint": runs[:1], **change}
        with pytest.raises(error) as raised:
            evaluate(EvaluateConfig(**config))  # type: ignore[arg-type]
        text = str(raised.value)
        assert "\n" not in text
        return text

    assert "nothing.safetensors" in message(CheckpointError, checkpoint=(tmp_path / "nothing.safetensors",))
    assert "mmearth pretrain" in message(CheckpointError, checkpoint=(tmp_path,))
    assert "worldcover_class" in message(UnknownTargetError, task=("soil",))
    assert "at least one checkpoint" in message(EvaluationError, checkpoint=())
    assert "at least one" in message(EvaluationError, seeds=0)
    assert str(tmp_path / "no-store") in message(StoreError, store=tmp_path / "no-store")
    unfinished = copytree(store, tmp_path / "unfinished")
    (unfinished / "statistics.json").unlink()
    assert "mmearth finalize" in message(StoreError, store=unfinished)
    few = make_store(tmp_path / "few", rows=4, tile_pixels=64, shard_rows=4)
    assert "cross-validation needs at least 5 blocks" in message(EvaluationError, store=few)
    large = export(tmp_path / "large", store, ("sentinel2",), input_size=112)
    assert "112 px but the tiles" in message(EvaluationError, checkpoint=(large,))
    assert "one by one" in message(EvaluationError, checkpoint=(runs[0], large))


def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="does not exist; make it with"):
        load_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(EvaluationError, match="is not an evaluation"):
        load_evaluation(tmp_path)


def test_runs_of_the_same_name_are_told_apart(store: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    twin = export(tmp_path / "held-out", store, ("sentinel2", "biome"))
    found = evaluate(
        EvaluateConfig(
            store=store, checkpoint=(runs[1], twin), out=tmp_path, task=("biome",), protocol=("knn",), seeds=1
        )
    )
    names = [encoder.name for encoder in found.encoders if encoder.kind == "pretrained"]
    assert names == [str(runs[1] / FILE_NAME), str(twin / FILE_NAME)]


def test_a_result_that_cannot_be_written_is_said_before_anything_is_computed(
    store: Path, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr("mmearth_train.evaluate.run.gather", None)
    with pytest.raises(EvaluationError, match=r"cannot be made .*; choose another --out"):
        evaluate(EvaluateConfig(store=store, checkpoint=runs, out=tmp_path / "file" / "evaluation.json"))


def test_runs_in_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for seed in (10, 2, 0):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "encoder.safetensors").touch()
    assert [run.name for run in runs_in(tmp_path)] == ["seed-0", "seed-2", "seed-10"]


def test_a_folder_of_runs_is_one_encoder_with_a_run_for_each_seed(store: Path, tmp_path: Path) -> None:
    group = tmp_path / "arm"
    for seed, pretext in enumerate((("sentinel2",), ("sentinel2",))):
        spec = specify(open_store(store), open_store(store).select("train"), "atto", 56, pretext, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            export_encoder(group / f"seed-{seed}" / FILE_NAME, spec, MPMAE(spec).encoder, "default")
    config = EvaluateConfig(
        store=store, checkpoint=(group,), out=tmp_path, task=("canopy_height",), protocol=("linear",), seeds=SEEDS
    )
    evaluation = evaluate(config)
    arm, random = ([row for row in evaluation.rows if row.encoder == name] for name in ("arm", "random"))
    # Nothing was trained, and a run starts from the weights that the seed's random encoder has.
    assert [row.seeds for row in arm] == [row.seeds for row in random]
    summary, start = evaluation.encoders[:2]
    assert summary.name == "arm"
    assert summary.effective_rank == start.effective_rank
    assert len(summary.effective_rank) == SEEDS
    with pytest.raises(EvaluationError, match="holds 2 runs and there are 3 seeds; give --seeds 2"):
        evaluate(EvaluateConfig(store=store, checkpoint=(group,), out=tmp_path, seeds=3))
    export(group / "seed-1", store, ("sentinel2", "biome"))
    with pytest.raises(EvaluationError, match="has other pretext tasks"):
        evaluate(EvaluateConfig(store=store, checkpoint=(group,), out=tmp_path, seeds=SEEDS))
