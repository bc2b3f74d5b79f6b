"""What a run shows in Prefect: progress while its flow waits, tables in order, pictures, our own warnings."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FLOW = """
import logging, time
import numpy as np
from PIL import Image
from prefect import flow
from flows.artifacts import keep_picture, publish_table, run_progress

@flow(name="watched", flow_run_name="{place}")
def watched(place):
    with run_progress("resolve", 3, "resolve-progress", "batches", lambda: "7 requests") as progress:
        progress.advance(2)
        logging.getLogger("mmearth_data.checks").warning("two tiles look odd")
        input()
    publish_table("balance", "Tiles", [{"biome": "Tundra", "2017": "3/4", "2018": "4/4", "gave way": 1}])
    keep_picture("fresh", "Fresh tiles", Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)))

watched("here")
"""


def asked(environment: dict[str, str], what: str, wanted: dict[str, Any]) -> Any:
    """The server's answer to a filter."""
    answer = requests.post(f"{environment['PREFECT_API_URL']}/{what}/filter", json=wanted, timeout=60)
    answer.raise_for_status()
    return answer.json()


def artifact(environment: dict[str, str], key: str) -> Any:
    found = asked(environment, "artifacts", {"artifacts": {"key": {"any_": [key]}}})
    return found[0] if found else None


@pytest.fixture(scope="module")
def shown(environment: dict[str, str]) -> dict[str, Any]:
    """The progress artifact while the flow waited, and what there was at its end."""
    command = [sys.executable, "-c", FLOW]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while (meanwhile := artifact(environment, "resolve-progress")) is None or "2 of 3" not in meanwhile["description"]:
        assert process.poll() is None
        assert time.monotonic() < deadline, meanwhile
        time.sleep(0.2)
    _, said = process.communicate("\n", timeout=120)
    assert process.returncode == 0, said
    return {"meanwhile": meanwhile, "said": said}


def test_progress_is_told_while_the_flow_waits(shown: dict[str, Any]) -> None:
    assert shown["meanwhile"]["description"].startswith("resolve: 2 of 3 batches, ")
    assert shown["meanwhile"]["description"].endswith("left, 7 requests")
    assert shown["meanwhile"]["data"] == pytest.approx(200 / 3)


def test_a_table_keeps_its_columns_in_order_in_a_browser(shown: dict[str, Any], environment: dict[str, str]) -> None:
    """JavaScript puts keys that are integers first (ECMA-262, OrdinaryOwnPropertyKeys)."""
    (row,) = json.loads(artifact(environment, "balance")["data"])
    integers = [name for name in row if name.isdigit()]
    assert [name.strip() for name in [*integers, *(n for n in row if n not in integers)]] == [
        "biome", "2017", "2018", "gave way",
    ]  # fmt: skip
    assert list(row.values()) == ["Tundra", "3/4", "4/4", "1"]


def test_a_picture_travels_within_its_artifact(shown: dict[str, Any], environment: dict[str, str]) -> None:
    kept = artifact(environment, "fresh")
    assert kept["type"] == "markdown"
    png = kept["data"].partition("data:image/png;base64,")[2].removesuffix(")")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png, validate=True))))
    assert picture.tolist() == np.arange(48).reshape(6, 8).tolist()


def test_our_warnings_are_on_the_page_of_the_run(shown: dict[str, Any], environment: dict[str, str]) -> None:
    (run,) = asked(environment, "flow_runs", {"flow_runs": {"name": {"any_": ["here"]}}})
    deadline = time.monotonic() + 60
    while True:
        logs = asked(environment, "logs", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
        if "two tiles look odd" in [line["message"] for line in logs]:
            break
        assert time.monotonic() < deadline, logs
        time.sleep(0.5)
