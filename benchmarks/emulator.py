"""The emulator itself: CPU per tile of our own export, requests per second, and memory after many requests.

    python benchmarks/emulator.py [--tiles 40] [--calls 400] [--requests 10000] [--places 400]
                                   [--minutes 8]

CPU per tile is a thread's clock around the service alone, for the request that collection sends, on the procedural
Earth and on the flat world by turns: the flat world's figure is what graphs and resampling cost, the rest is the
world's. Rates are those of forty clients that keep their connections alive, beside those of a constant from the same
server, which lets any number in per second; every answer is compared with the service's own, and the server process's
CPU is divided by the answers. Memory is that of a process of its own in the procedural Earth, asked through eight
connections: after a fifth, a half and all of the requests, which are for 32 px of the same tiles again and again, so
that it is what requests leave behind that grows; then, in another process, after as many parts of tiles of 128 px that
all lie elsewhere, so that it is what is kept of places that grows. Either must come to rest, and ends early after
``--minutes``, with what is held by then.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collection import emulator
from mmearth_data import grid
from mmearth_data.earthengine import pixels, session
from mmearth_data.emulator import process, world
from mmearth_data.emulator.service import Service
from mmearth_data.source import Acquisition, Location

PLACES = ((-100.0, 40.0), (10.0, 50.0), (25.0, -20.0), (100.0, 60.0), (140.0, -25.0), (-60.0, -10.0), (30.0, 5.0))
CLIENTS, CONNECTIONS = 40, 8


def acquisitions(url: str, count: int) -> list[Acquisition]:
    """The first products of cells around the world."""
    source = session.connect(None, url)
    found: list[Acquisition] = []
    spread = np.random.default_rng(1)
    while len(found) < count:
        places = [PLACES[k % len(PLACES)] for k in range(count)]
        lon, lat = (np.array(values) + spread.uniform(-4, 4, count) for values in zip(*places, strict=True))
        ids = [int(cell) for cell in grid.cells_at(lon, lat)]
        locations = [Location(cell, 2017 + k % 4) for k, cell in enumerate(ids)]
        for batch in (locations[k : k + 50] for k in range(0, count, 50)):
            found += [entry.acquisitions[0] for entry in source.resolve(batch) if entry.acquisitions]
    return found[:count]


def cpu_per_tile(bodies: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    """Milliseconds of CPU per tile in each world, the worlds by turns."""
    services = {name: Service(world.build(name, 0)) for name in bodies}
    for name, requests in bodies.items():
        services[name].answer("image:computePixels", requests[0])
    process.settle()  # as the server does
    spent: dict[str, list[float]] = {name: [] for name in bodies}
    for k in range(min(map(len, bodies.values()))):
        for name, requests in bodies.items():
            began = time.thread_time()
            services[name].answer("image:computePixels", requests[k])
            spent[name].append(1000 * (time.thread_time() - began))
    return spent


@contextmanager
def connection(url: str) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(url)
    client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=300)
    try:
        yield client
    finally:
        client.close()


def post(client: http.client.HTTPConnection, verb: str, content: bytes) -> tuple[int, bytes]:
    client.request("POST", f"/v1/projects/bench/{verb}", content, {"Content-Type": "application/json"})
    answer = client.getresponse()
    return answer.status, answer.read()


def rate(url: str, verb: str, contents: list[bytes], expected: list[bytes], calls: int) -> tuple[float, float, int]:
    """Requests per second of forty clients that keep their connections, milliseconds of the server's CPU for each, and
    how many answers were right.
    """
    pid = listening_process(url)

    def client(number: int) -> int:
        with connection(url) as kept:
            right = 0
            for k in range(number, calls, CLIENTS):
                which = k % len(contents)
                right += post(kept, verb, contents[which]) == (200, expected[which])
            return right

    with ThreadPoolExecutor(CLIENTS) as pool:
        began, spent = time.perf_counter(), cpu_seconds(pid)
        right = sum(pool.map(client, range(CLIENTS)))
        return calls / (time.perf_counter() - began), 1000 * (cpu_seconds(pid) - spent) / calls, right


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has spent, in itself and for the system on its behalf."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(url: str, contents: list[bytes], requests: int, minutes: float) -> dict[int, float]:
    """MB by the number of requests answered: a fifth, a half and all of them, or as many as there is time for."""
    pid, held, end = listening_process(url), {}, time.monotonic() + 60 * minutes
    with ExitStack() as stack:
        kept = [stack.enter_context(connection(url)) for _ in range(CONNECTIONS)]
        for k in range(requests):
            status, answer = post(kept[k % CONNECTIONS], "image:computePixels", contents[k % len(contents)])
            if status != 200:
                raise SystemExit(f"request {k} was answered {status}: {answer[:200]!r}")
            late = time.monotonic() > end
            if late or k + 1 in (requests // 5, requests // 2, requests):
                held[k + 1] = resident(pid)
            if late:
                break
    return held


def smaller(body: dict[str, Any], side: int = 32) -> dict[str, Any]:
    """The request for the first pixels of its tile."""
    return {**body, "grid": {**body["grid"], "dimensions": {"width": side, "height": side}}}


def listening_process(url: str) -> int:
    """The process of the emulator that ``emulator`` started: the one child of ours."""
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    port = str(urlsplit(url).port)
    return next(int(line.split()[0]) for line in children if "emulator" in line and port in line)


def throughput(tiles: list[dict[str, Any]], calls: int) -> None:
    """Print requests per second for tiles and for a constant."""
    service = Service(world.build("flat", 0))
    constant = {"expression": {"result": "0", "values": {"0": {"constantValue": 1}}}}
    with emulator("flat", 0, Path(os.devnull), "--requests-per-second", "0") as url:
        for verb, requests in (("image:computePixels", tiles), ("value:compute", [constant])):
            contents = [json.dumps(request).encode() for request in requests]
            expected = [service.answer(verb, request).body for request in requests]
            speed, cost, right = rate(url, verb, contents, expected, calls)
            print(f"{verb:19}: {speed:.0f} requests/s, {cost:.1f} ms of CPU each, {right} of {calls} right")


def remembered(title: str, requests: list[dict[str, Any]], count: int, minutes: float) -> None:
    """Print what memory the Earth's process holds early and late."""
    contents = [json.dumps(request).encode() for request in requests]
    with emulator("earth", 0, Path(os.devnull), "--requests-per-second", "0") as url:
        held = memory(url, contents, count, minutes)
    print(f"memory, {title}: " + ", ".join(f"{size:.0f} MB after {answered}" for answered, size in held.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=40)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--places", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    bodies: dict[str, list[dict[str, Any]]] = {}
    for name in ("earth", "flat"):
        with emulator(name, 0, Path(os.devnull)) as url:
            count = max(options.tiles, options.places if name == "earth" else 0)
            bodies[name] = [pixels.request_body(acquisition) for acquisition in acquisitions(url, count)]
    elsewhere, bodies["earth"] = bodies["earth"][: options.places], bodies["earth"][: options.tiles]
    for name, spent in cpu_per_tile(bodies).items():
        quartiles = statistics.quantiles(spent, n=4)
        print(
            f"CPU per tile, {name:5}: median {quartiles[1]:.1f} ms, quartiles {quartiles[0]:.1f} to {quartiles[2]:.1f}"
        )
    if options.calls:
        throughput(bodies["flat"], options.calls)
    if options.requests:
        small = [smaller(body) for body in bodies["earth"]]
        remembered("32 px of the same tiles", small, options.requests, options.minutes)
    if options.places:
        remembered("128 px of other places", elsewhere, options.places, options.minutes)


if __name__ == "__main__":
    sys.exit(main())
