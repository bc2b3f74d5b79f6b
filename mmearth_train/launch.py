"""Several processes on one machine, one for each GPU, as one command: one bar, one error line, one exit code.

Training on several machines is torchrun's: it starts the same command everywhere, which then finds itself started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from rich.console import Console

from mmearth_train.config import PretrainConfig
from mmearth_train.interruption import ASKING, Stop, ended_by, held_back

Train = Callable[[PretrainConfig], Path]

EXPLANATION_SECONDS = 3.0
"""When a process has failed, the others' last words are awaited so long: one of them may know the cause."""
GRACE_SECONDS = 5.0
"""Then those that wait for one that is gone are killed."""
PACKAGE = __name__.split(".", maxsplit=1)[0]


class ProcessError(RuntimeError):
    """A process ended without a word; the message says which and what to do."""


def count(config: PretrainConfig) -> int:
    """How many processes ``config`` asks for: as many as there are GPUs, or one, unless it says otherwise."""
    if config.processes is not None:
        return config.processes
    return max(1, torch.cuda.device_count()) if config.device != "cpu" else 1


def launch(train: Train, config: PretrainConfig, processes: int, stop: Stop | None = None) -> Path:
    """Run ``train(config)`` in ``processes`` processes and return what the first returns.

    SIGTERM and SIGINT are handed on to them; they get it when ``train`` listens (``Stop.listening``). Where one comes
    before all are started, or ``stop`` has heard one until now, they are ended at once, for nothing is trained yet.
    Whatever one raises is raised here, and the others are ended; ProcessError where one was killed.
    """
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    workers: list[SpawnProcess] = []
    outcomes: list[Connection] = []
    found: dict[int, Path | BaseException] = {}
    try:
        with _handing_on(workers) as asked:
            if stop is not None and stop.signal:
                asked.append(stop.signal)
            resource_tracker.ensure_running()  # else the first start does that, and lets signals through again
            for rank in range(processes):
                if asked:
                    break
                receiver, sender = context.Pipe(duplex=False)
                worker = context.Process(target=_work, args=(train, config, rank, processes, port, sender))
                with held_back():
                    worker.start()
                sender.close()
                workers.append(worker)
                outcomes.append(receiver)
            if asked:
                Console(stderr=True).print("stopped before training began; continue with --resume")
                raise ended_by(asked[0])
            return _outcome(workers, outcomes, found)
    finally:
        for rank, worker in enumerate(workers):
            if rank not in found:  # else it is ending by itself, and has things to put away
                worker.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            worker.kill()
            worker.join()


def _work(train: Train, config: PretrainConfig, rank: int, world: int, port: int, outcome: Connection) -> None:
    """One process, in a session of its own so that Ctrl-C reaches it once, from the process that started it."""
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    if config.threads is None:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    try:
        outcome.send(train(config))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised by the process that started this one
        if not _explains(error):
            error.add_note(f"in process {rank} of {world}:\n{''.join(traceback.format_exception(error))}")
        outcome.send(error)


def _end_with_parent() -> None:
    """Nobody would collect what a process does whose parent was killed, and it would hold the run's folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcome(
    workers: Sequence[SpawnProcess], outcomes: Sequence[Connection], found: dict[int, Path | BaseException]
) -> Path:
    """What the first process returned; raises what explains best why one did not. All go into ``found``."""
    waiting = {connection: rank for rank, connection in enumerate(outcomes)}
    while waiting:
        failed = any(isinstance(outcome, Exception) for outcome in found.values())
        ready = wait(list(waiting), EXPLANATION_SECONDS if failed else None)
        if not ready:
            break
        for connection in ready:
            rank = waiting.pop(connection)  # type: ignore[call-overload]
            found[rank] = _received(connection, rank, workers)  # type: ignore[arg-type]
    errors = [found[rank] for rank in sorted(found) if isinstance(found[rank], BaseException)]
    for error in sorted(errors, key=_explains, reverse=True):
        raise error  # type: ignore[misc]
    first = found[0]
    assert isinstance(first, Path)
    return first


def _received(connection: Connection, rank: int, workers: Sequence[SpawnProcess]) -> Path | BaseException:
    try:
        outcome: Path | BaseException = connection.recv()
    except EOFError:
        workers[rank].join()
        return ProcessError(
            f"process {rank} of {len(workers)} was ended (exit code {workers[rank].exitcode}), by the system's memory "
            "limit or by hand; carry on with --resume"
        )
    return outcome


def _explains(error: object) -> bool:
    """Whether an error says what to do; those of torch only say that another process is gone."""
    return type(error).__module__.split(".")[0] == PACKAGE


@contextmanager
def _handing_on(workers: Sequence[SpawnProcess]) -> Iterator[list[int]]:
    """Send SIGTERM and SIGINT to the workers instead, and give those that came; only the main thread can."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def hand_on(number: int, _: object) -> None:
        asked.append(number)
        _hand_on(workers, number)

    before = {number: signal.signal(number, hand_on) for number in ASKING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hand_on(workers: Sequence[SpawnProcess], number: int) -> None:
    for worker in workers:
        if worker.pid is not None and worker.is_alive():
            os.kill(worker.pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
