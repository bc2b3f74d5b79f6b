"""Metrics are rewound to a step; what cannot be kept or read is said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmearth_train import metrics
from mmearth_train.metrics import FILE_NAME, MetricsWriteError


def lines(out: Path) -> list[tuple[str, int]]:
    return [(line["split"], line["step"]) for line in map(json.loads, (out / FILE_NAME).read_text().splitlines())]


def test_later_lines_a_torn_one_and_damaged_ones_are_dropped_the_last_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 4, 6, 8):
        metrics.append(tmp_path, {"split": "train", "step": step})
        metrics.append(tmp_path, {"split": "val", "step": step})
    path = tmp_path / FILE_NAME
    texts = path.read_bytes().splitlines(keepends=True)
    texts[1] = b"\0\0\xff\0\n"  # as a machine that lost its power may leave it
    path.write_bytes(b"".join(texts) + b'{"split": "train", "st')
    assert metrics.last(tmp_path, "val") == {"split": "val", "step": 8}
    metrics.rewind(tmp_path, 6)
    assert lines(tmp_path) == [("train", 2), ("train", 4), ("val", 4), ("train", 6), ("val", 6)]
    (message,) = caplog.messages
    assert f"{path} has a damaged line, which is left out" in message
    assert metrics.last(tmp_path, "val") == {"split": "val", "step": 6}
    with path.open("a") as file:
        file.write('{"split": "val", "step": Infinity}\n[1]\nxx\n')
    assert metrics.last(tmp_path, "val") == {"split": "val", "step": 6}
    metrics.rewind(tmp_path, 6)
    assert len(lines(tmp_path)) == 5
    assert len(caplog.messages) == 4


def test_a_full_disk_is_said_in_a_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    with pytest.raises(
        MetricsWriteError, match=r"metrics.jsonl cannot be kept \(No space left .*\); mend that, then use"
    ):
        metrics.append(tmp_path, {"split": "train", "step": 1})


def test_a_rewinding_that_fails_leaves_the_metrics_as_they_were(tmp_path: Path) -> None:
    for step in (1, 2):
        metrics.append(tmp_path, {"split": "train", "step": step})
    (tmp_path / f"{FILE_NAME}.tmp").symlink_to("/dev/full")
    with pytest.raises(MetricsWriteError, match="No space left"):
        metrics.rewind(tmp_path, 1)
    assert lines(tmp_path) == [("train", 1), ("train", 2)]
