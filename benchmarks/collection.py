"""Collection against a service whose pixels cost nothing: slots busy, requests per tile, and where our CPU time goes.

    python benchmarks/collection.py [--tiles 1120] [--latency 1000] [--slots 40] [--world flat] [--pixels 128]

An emulator in a process of its own holds each request for ``--latency`` milliseconds; its log says how many requests
were sent and how busy the slots were. Our CPU time is that of this process; a thread's clock tells compressing and
writing shards from all the rest, and the rest by what its threads did. Building and encoding every tile's image anew
is measured beside it, as a baseline that the machine's load slows down as much. In the flat world every location has a
product and every tile is clear; in ``--world earth`` locations are sampled from all of the emulated Earth.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from flows.shards import SHARDS_AT_ONCE, SPARE_THREADS
from mmearth_data import checks
from mmearth_data.collection import ShardReport, collect_shard, resolve_plan
from mmearth_data.earthengine import images, pixels, session, transport
from mmearth_data.plan import Plan, ShardSpec
from mmearth_data.store import shards
from tests.collecting import location_table

PLACES = ((-100.0, 40.0), (10.0, 50.0), (25.0, -20.0), (100.0, 60.0), (140.0, -25.0), (-60.0, -10.0))
STRATA = 14 * 4


@contextmanager
def emulator(world: str, latency: int, log: Path, *more: str) -> Iterator[str]:
    """The URL of an emulator in a process of its own; ``more`` are further options of its command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--world", world, "--latency", str(latency), "--log", str(log), *more]
    process = subprocess.Popen([sys.executable, "-m", "flows", "emulator", *options], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class CpuTimes:
    """CPU seconds of threads inside chosen functions, those of inner ones not counted twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock, self._inner = threading.Lock(), threading.local()

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Measure ``owner.name`` from now on."""
        function: Callable[..., Any] = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            outer, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - began
                with self._lock:
                    self.seconds[label] += spent - self._inner.seconds
                self._inner.seconds = outer + spent

        setattr(owner, name, measured)


def collect(store: Path, locations: Path, url: str, slots: int) -> tuple[list[ShardReport], float, float]:
    """Collect everything as the flow does, without Prefect: the reports, and CPU seconds of resolving and of rounds."""
    started = time.process_time()
    source = session.connect(None, url, slots=slots)
    plan = Plan.prepare(store, locations)
    resolve_plan(plan, source)
    reports: list[ShardReport] = []
    threads = slots + math.ceil(SPARE_THREADS * slots)
    resolved = time.process_time()
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        while todo := plan.pending() or plan.next_round():
            reports += pool.map(lambda shard: collect_shard(store, plan.spec(shard), source, threads), todo)
    return reports, resolved - started, time.process_time() - resolved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=1120)
    parser.add_argument("--latency", type=int, default=1000, help="milliseconds")
    parser.add_argument("--slots", type=int, default=40)
    parser.add_argument("--world", choices=("flat", "earth"), default="flat")
    parser.add_argument("--pixels", type=int, default=128)
    options = parser.parse_args()
    cpu = CpuTimes()
    cpu.watch(shards, "commit_shard", "compress, hash, write")
    cpu.watch(transport.Transport, "_exchange", "send, receive")
    cpu.watch(pixels, "request_body", "make the expression")
    cpu.watch(pixels, "parse", "read the answer")
    cpu.watch(session.EarthEngineSource, "compute_pixels", "the client's way to the transport")
    for name in ("check_content", "refusal", "statuses", "clear_fraction", "suspicions", "fingerprint"):
        cpu.watch(checks, name, "check")
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder), Path(folder) / "requests.jsonl"
        with emulator(options.world, options.latency, log) as url:
            locate(path / "l.parquet", options, url)
            before = log.stat().st_size
            reports, resolving, total = collect(path / "store.zarr", path / "l.parquet", url, options.slots)
            plan = Plan.open(path / "store.zarr")
            anew = encoding_anew([plan.spec(report.shard) for report in reports[:1]])
        entries = [json.loads(line) for line in log.read_bytes()[before:].splitlines()]
    report(options, reports, resolving, entries, total, cpu.seconds, anew)


def locate(file: Path, options: argparse.Namespace, url: str) -> None:
    """Write the location table: places of the flat world, or a sample of the emulated Earth's land."""
    if options.world == "earth":
        asked = ["--locations", str(options.tiles), "--tile-size", str(options.pixels), "--out", str(file)]
        command = [sys.executable, "-m", "flows", "sample", "--ecoregions", "ee", "--emulator", url, *asked]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return
    per_stratum = -(-options.tiles // STRATA)
    spare, years = max(4, per_stratum // 5), (2017, 2018, 2019, 2020)
    location_table(file, per_stratum, spare, biomes=14, years=years, around=PLACES, pixels=options.pixels)


def encoding_anew(specs: list[ShardSpec]) -> float:
    """CPU seconds per tile of building the image of each tile and encoding it, as the client would."""
    tiles = [slot.acquisitions[0] for spec in specs for slot in spec.slots if slot.acquisitions]
    cells = [pixels.cell_of(tile) for tile in tiles]
    began = time.thread_time()
    for tile, cell in zip(tiles, cells, strict=True):
        session.ee.serializer.encode(images.tile_image(tile, cell, pixels.requested(tile)))
    return (time.thread_time() - began) / len(tiles)


def report(
    options: argparse.Namespace,
    reports: list[ShardReport],
    resolving: float,
    entries: list[dict[str, Any]],
    total: float,
    cpu: dict[str, float],
    anew: float,
) -> None:
    """Print the figures."""
    fetches = [entry for entry in entries if entry["kind"] == "computePixels"]
    stored, attempts = sum(r.stored for r in reports), sum(entry["status"] == 200 for entry in fetches)
    begins = [datetime.fromisoformat(entry["time"]).timestamp() for entry in fetches]
    ends = [begin + entry["ms"] / 1000 for begin, entry in zip(begins, fetches, strict=True)]
    span = max(ends) - min(begins)
    held = sum(entry["ms"] for entry in fetches) / 1000
    print(f"{stored} tiles of {options.pixels} px stored in {span:.1f} s; load {os.getloadavg()[0]:.1f}")
    print(f"slots busy from the first request to the last: {held / (options.slots * span):.1%} of {options.slots}")
    print(f"requests per attempted tile: {len(entries) / attempts:.3f} ({len(entries)} / {attempts})")
    refused = sum(entry["status"] == 429 for entry in fetches)
    print(f"attempts per stored tile: {attempts / stored:.3f}; refused with 429: {refused}")
    per_tile = {label: 1000 * spent / attempts for label, spent in cpu.items()}
    written = per_tile.pop("compress, hash, write", 0.0)
    ours = 1000 * total / attempts - written
    print(f"CPU of connecting and resolving: {1000 * resolving / attempts:.2f} ms per tile")
    print(f"CPU before compression: {ours:.2f} ms per tile; compressing, hashing, writing: {written:.2f} ms per tile")
    for label, spent in sorted(per_tile.items(), key=lambda item: -item[1]):
        print(f"  {label:<34}{spent:7.2f} ms")
    print(f"  {'all the rest':<34}{ours - sum(per_tile.values()):7.2f} ms (threads, queues, planning, garbage)")
    print(f"baseline: the client builds and encodes a tile's image in {1000 * anew:.2f} ms")


if __name__ == "__main__":
    main()
