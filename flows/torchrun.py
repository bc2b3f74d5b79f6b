"""``mmearth pretrain`` in processes of torchrun, one for each GPU or one: ``python -m flows.torchrun OPTIONS``.

torchrun alone answers whatever happens with code 1, a traceback and a list of its processes. Here it adds nothing to
what the trainer says, and passes its code on. One that was stopped ends with 128 and the signal's number, for torchrun
does not tell whether all of it was saved. Who started it stops it by closing its standard input, as the system does
where that one is killed: a second SIGTERM, as process groups get them, ends the trainer before it has saved.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Sequence

import tyro
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from flows.cli import exit_with
from mmearth_train import launch
from mmearth_train.config import PretrainConfig, recipe_of
from mmearth_train.launch import ProcessError

COMMAND = "mmearth pretrain"
SAVING_SECONDS = 300
"""How long processes that were asked to stop have for their step and the checkpoint; torch < 2.12 gives them 30."""


def torchrun(options: Sequence[str]) -> int:
    """Train as ``options`` say, and give the exit code; RunError or ProcessError where no process says why."""
    config = tyro.cli(PretrainConfig, prog=COMMAND, args=options)
    recipe_of(config)
    processes = launch.count(config)
    _prepare(config, processes)
    threading.Thread(target=_stop_with_input, daemon=True).start()
    place = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}", f"--log-dir={os.devnull}"]
    try:
        run.main([*place, "-m", "flows", "pretrain", *options])
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        return _exit_code(failed.failures.values(), processes)
    return 0


def _prepare(config: PretrainConfig, processes: int) -> None:
    """What torchrun takes from the environment of this process alone: of other torchruns nothing, threads as asked."""
    for name in [name for name in os.environ if name.startswith("PET_")]:
        del os.environ[name]
    if processes > 1:
        os.environ["OMP_NUM_THREADS"] = str(config.threads or max(1, (os.cpu_count() or 1) // processes))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVING_SECONDS))
    logging.disable(logging.ERROR)  # its own tale of what becomes of the others


def _stop_with_input() -> None:
    # Not through sys.stdin, whose lock a reader must not hold when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(failures: Collection[ProcessFailure], processes: int) -> int:
    """That of the first process that ended by itself; ProcessError if one was killed, for that may be the cause."""
    for failure in failures:
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
            raise ProcessError(
                f"process {failure.local_rank} of {processes} was ended (exit code {failure.exitcode}), by the "
                "system's memory limit, by hand, or by torchrun after another had failed; carry on with --resume"
            )
    return next((failure.exitcode for failure in failures if failure.exitcode > 0), 128 + signal.SIGTERM)


if __name__ == "__main__":
    exit_with(COMMAND, lambda: torchrun(sys.argv[1:]))
