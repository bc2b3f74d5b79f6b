"""The request log: one JSON object per line, written as requests are answered."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from mmearth_data.emulator.errors import EmulatorError


@dataclass(frozen=True)
class Entry:
    """One answered request: when (ISO 8601, UTC), what, how it ended, how long it took, how much was sent back.

    ``kind`` is the verb ("computePixels", "discovery", …), ``fault`` the injected failure if there was one, ``client``
    what the client calls itself, ``tag`` the request's workload tag.
    """

    time: str
    method: str
    path: str
    kind: str
    status: int
    ms: float
    bytes: int
    client: str
    tag: str
    fault: str


class RequestLog:
    """Appends entries to a file, or drops them if there is none."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        try:
            self._file = None if path is None else path.open("a", encoding="utf-8")
        except OSError as error:
            raise EmulatorError(f"--log: cannot write {path} ({error.strerror}); name a writable file") from None

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        with self._lock:
            if self._file is not None and not self._file.closed:
                self._file.write(json.dumps(asdict(entry)) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
