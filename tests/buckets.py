"""A real S3 server on this machine (moto's), for tests of stores in buckets."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from flows.loopback import comes_up, free_port
from mmearth_data.store import buckets
from tests.servers import running


@dataclass(frozen=True)
class S3Server:
    """A running server. ``environment`` is what its users set; any credentials will do until ``revoke``."""

    endpoint: str
    environment: dict[str, str]
    log: Path
    """One line for each request answered."""

    def _ask(self, method: str, path: str, body: bytes | None = None) -> None:
        headers = {"Content-Type": "text/plain"} if body else {}
        request = urllib.request.Request(self.endpoint + path, method=method, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30):
            pass

    def make_bucket(self, name: str) -> str:
        """The URL of a new bucket."""
        self._ask("PUT", f"/{name}")
        return f"s3://{name}"

    def make_folder(self, bucket: str, name: str) -> None:
        """An empty object called like a folder, as a storage's own pages make one."""
        self._ask("PUT", f"/{bucket}/{name}/", b"")

    def revoke(self) -> None:
        """Refuse every request from now on: its credentials are no longer known."""
        self._ask("POST", "/moto-api/reset-auth", b"0")

    def restore(self) -> None:
        """Accept every request again."""
        self._ask("POST", "/moto-api/reset-auth", b"inf")


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server that forgets everything at the end, and this process's environment set for it."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }
    before = {name: os.environ.get(name) for name in variables}
    log = folder / "s3.log"
    server = S3Server(endpoint, variables, log)

    def answers() -> bool:
        try:
            server._ask("GET", "/moto-api/data.json")
        except URLError:
            return False
        return True

    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, dict(os.environ), log) as process:
        assert comes_up(process, answers, 120), log.read_text()
        os.environ.update(variables)
        buckets.bucket.cache_clear()
        try:
            yield server
        finally:
            buckets.bucket.cache_clear()
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
