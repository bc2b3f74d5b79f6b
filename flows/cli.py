"""The command ``mmearth``: one verb per step, each importing only what it needs.

Exit codes: 0 done, 1 stopped or failed on the way (the same command continues), 2 bad input.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

OURS = frozenset({"flows", "mmearth_data", "mmearth_train", "sampling"})


@dataclass(frozen=True)
class Verb:
    """One verb: what it does in a line, its settings and its function as "module:name", whether it is a Prefect flow.

    The function takes the settings and returns the exit code, or None for 0. ``extra`` is what to install for it.
    """

    summary: str
    settings: str
    function: str
    is_flow: bool = False
    extra: str = "all"


VERBS: dict[str, Verb] = {
    "sample": Verb(
        "choose locations, balanced over biomes and years",
        "flows.settings:SampleSettings",
        "flows.sample:run",
        is_flow=True,
    ),
    "estimate": Verb("say what a collection will ask for", "flows.estimate:EstimateSettings", "flows.estimate:run"),
    "collect": Verb(
        "resolve and fetch every modality of every location into a store",
        "flows.settings:CollectSettings",
        "flows.collect:run",
        is_flow=True,
    ),
    "status": Verb("say how far a store is", "flows.settings:StatusSettings", "flows.status:run"),
    "verify": Verb("recompute a store's checksums", "flows.verify:VerifySettings", "flows.verify:run"),
    "finalize": Verb(
        "consolidate a store's tables and compute its statistics",
        "flows.settings:FinalizeSettings",
        "flows.finalize:run",
        is_flow=True,
    ),
    "convert": Verb(
        "convert a store from, or to, the layouts of others", "flows.convert:ConvertSettings", "flows.convert:run"
    ),
    "pretrain": Verb(
        "pretrain an MP-MAE on a store",
        "mmearth_train.config:PretrainConfig",
        "mmearth_train.pretrain:pretrain",
        extra="train",
    ),
    "evaluate": Verb(
        "probe frozen encoders", "mmearth_train.evaluate:EvaluateConfig", "flows.evaluate:run", is_flow=True
    ),
    "report": Verb("write one HTML page about a store and its runs", "flows.report:ReportConfig", "flows.report:run"),
    "emulator": Verb(
        "serve an Earth Engine to run against offline",
        "mmearth_data.emulator.run:EmulatorConfig",
        "mmearth_data.emulator.run:serve",
    ),
}


def _load(reference: str) -> Any:
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(["usage: mmearth VERB [options]", "", *lines, "", "mmearth VERB --help lists a verb's options."])


def _run(name: str, arguments: Sequence[str]) -> int:
    import tyro

    verb = VERBS[name]
    try:
        settings_type = _load(verb.settings)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in OURS:
            raise
        print(
            f"mmearth {name}: needs the package {error.name}; install with: pip install 'mmearth[{verb.extra}]'",
            file=sys.stderr,
        )
        return 2
    settings: object = tyro.cli(settings_type, prog=f"mmearth {name}", args=arguments, description=verb.summary)
    if verb.is_flow:
        from flows.server import prefect_server

        with prefect_server():
            return _call(verb, settings)
    return _call(verb, settings)


def _call(verb: Verb, settings: object) -> int:
    code = _load(verb.function)(settings)
    return code if isinstance(code, int) else 0


def _exit_code(error: Exception) -> int:
    """1 for what failed on the way and may succeed next time, 2 for what must be mended first."""
    from mmearth_data.source import Rejected, SourceError
    from mmearth_data.store.buckets import Unreachable
    from mmearth_data.store.leases import LeaseLost
    from mmearth_data.store.locking import ShardLocked

    if isinstance(error, Rejected):
        return 2
    out_of_room = isinstance(error.__cause__, OSError) and error.__cause__.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
    )
    passes = isinstance(error, SourceError | RuntimeError | Unreachable | ShardLocked | LeaseLost)
    return 1 if out_of_room or passes else 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        sys.exit(0 if given else 2)
    name, *rest = given
    if name not in VERBS:
        print(f"mmearth: no verb {name!r}; choose from: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    exit_with(f"mmearth {name}", lambda: _run(name, rest), "INFO" if name == "emulator" else "WARNING")


def exit_with(command: str, work: Callable[[], int], log_level: str = "WARNING") -> NoReturn:
    """Exit with what ``work`` returns; our own errors become one line, anything else keeps its traceback."""
    handler = logging.StreamHandler()
    # On the handler, for Prefect's loggers set levels of their own. A server says where it listens.
    handler.setLevel(os.environ.get("MMEARTH_LOG", log_level))
    # Prefect tells its server what happens in a flow; the terminal gets our own lines.
    handler.addFilter(lambda record: record.name.split(".")[0] in OURS)
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    try:
        code = work()
    except KeyboardInterrupt as stop:
        _say(f"{command}: stopped; {str(stop) or 'the same command carries on from here'}")
        code = 1
    except Exception as error:
        if type(error).__module__.split(".")[0] not in OURS:
            raise
        _say(f"{command}: {error}")
        code = _exit_code(error)
    sys.exit(code)


def _say(line: str) -> None:
    """At once with its end, for several processes of a run may say something at the same time."""
    sys.stderr.write(f"{line}\n")
