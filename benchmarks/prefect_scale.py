"""What 1.2 million tiles ask of the Prefect server: every shard a task that fetches nothing, through a real server.

    python benchmarks/prefect_scale.py [SHARDS] [--per-second N] [--home DIR]

5,400 shards of 224 rows are 1.2 million tiles. Everything is as in a collection (one task per shard, retries, the
throttled progress artifact) but the fetching, which takes no time but what keeps the rate at N shards a second; a
collection at 40 requests at once commits about one in ten seconds. Much faster than by default the server does not
follow: its queue of events is full after a while, and it forgets how tasks ended. Prints the time, the server's memory,
the size of its database, and how long the answers take that the run's page shows. With --home the database stays, and
`PREFECT_HOME=DIR make ui` shows the run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from flows.server import prefect_server

ROWS = 224


def measure(shards: int, per_second: float, api: str, home: Path) -> None:
    import httpx
    from prefect import flow
    from prefect.context import get_run_context

    import flows.shards
    from flows.artifacts import run_progress
    from flows.settings import CollectSettings
    from mmearth_data.collection import ShardReport
    from mmearth_data.cost.account import Session

    def nothing(store: Path, spec: int, *_: object, **__: object) -> ShardReport:
        time.sleep(flows.shards.SHARDS_AT_ONCE / per_second)
        return ShardReport(shard=spec, stored=ROWS)

    flows.shards.collect_shard = nothing  # type: ignore[assignment]
    plan: Any = SimpleNamespace(store=home, spec=lambda shard: shard, tiles=lambda shards: ROWS)
    source: Any = None
    session = Session(home, dict)

    @flow(name="collect")
    def simulated() -> str:
        settings = CollectSettings(locations=home, store=home)
        with run_progress("collect", shards * ROWS, "collect-progress", "tiles tried") as progress:
            run = flows.shards.Run(settings, plan, source, session, progress, threading.Event())
            with flows.shards.shard_runner(settings) as runner:
                failures = flows.shards.collect_round(
                    run, tuple(range(shards)), runner, lambda report: progress.advance(report.stored)
                )
        assert not failures, failures[0]
        return str(get_run_context().flow_run.id)  # type: ignore[union-attr]

    server = max(psutil.Process().children(recursive=True), key=lambda child: child.memory_info().rss)
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.5):
            peak = max(peak, server.memory_info().rss)

    before = server.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    run_id = simulated()
    ended = time.perf_counter()
    seconds = ended - began
    stop.set()
    watcher.join()
    print(f"{shards} shards ({shards * ROWS:,} tiles) in {seconds:.0f} s: {shards / seconds:.1f} shards/s")
    print(f"server memory {before / 2**20:.0f} MB before, {peak / 2**20:.0f} MB at most")
    print(f"client memory {psutil.Process().memory_info().rss / 2**20:.0f} MB")
    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    with httpx.Client(base_url=api, timeout=120, trust_env=False) as client:
        deadline = time.monotonic() + 120
        completed = {**of_run, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        while (
            known := client.post("/task_runs/count", json=completed).json()
        ) < shards and time.monotonic() < deadline:
            time.sleep(1)
        print(f"tasks that the server knows as completed: {known}, {time.perf_counter() - ended:.0f} s after the end")
        for what, method, path, body in (
            ("the run", "GET", f"/flow_runs/{run_id}", None),
            ("its graph", "GET", f"/flow_runs/{run_id}/graph-v2", None),
            ("200 of its tasks", "POST", "/task_runs/filter", {**of_run, "limit": 200}),
            ("its artifacts", "POST", "/artifacts/filter", {**of_run, "limit": 200}),
            (
                "200 lines of its log",
                "POST",
                "/logs/filter",
                {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200},
            ),
        ):
            began = time.perf_counter()
            answer = client.request(method, path.removeprefix("/"), json=body)
            took = time.perf_counter() - began
            print(f"{what:<22}{1000 * took:6.0f} ms  {len(answer.content) / 1e3:8.0f} kB  {answer.status_code}")
    size = sum(file.stat().st_size for file in home.glob("prefect.db*"))
    print(f"database {size / 2**20:.1f} MB, {size / shards / 1e3:.1f} kB per shard; run {run_id}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=int, nargs="?", default=5400)
    parser.add_argument("--per-second", type=float, default=15.0)
    parser.add_argument("--home", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = (asked.home or Path(folder)).absolute()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
        os.environ.pop("PREFECT_API_URL", None)
        with prefect_server() as api:
            measure(asked.shards, asked.per_second, api, home)


if __name__ == "__main__":
    main()
