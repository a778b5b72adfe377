# SPDX-License-Identifier: MIT
"""Workers behind real HTTP that share one Redis."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.worker import KILL_FILE
from tools.redis_server import RedisServer, free_port

ROOT = Path(__file__).resolve().parents[2]
CLIENT_TIMEOUT_SECONDS = 60
START_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    """0: the connection broke, as it does when a worker dies."""
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def memory_mib(pid: str, what: str) -> float:
    """what: VmRSS, or VmHWM for the most that it was."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


class Fleet:
    def __init__(self, *, workers: int, redis: RedisServer | None = None) -> None:
        """redis: a server that is running; None: one of its own."""
        self._own = None if redis else RedisServer().start()
        self.redis = redis or self._own
        self.control = Path(tempfile.mkdtemp(prefix="faults-control-"))
        self.ports = [free_port() for _ in range(workers)]
        self.log = self.control / "log"
        arguments = [f"--port={port}" for port in self.ports] + [f"--control={self.control}"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.worker", *arguments],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stderr=log,
                stdout=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._own:
            self._own.close()
        shutil.rmtree(self.control, ignore_errors=True)

    def post(self, body: Any, *, worker: int = 0) -> Reply:
        """body: JSON-like, or bytes that are sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", data, worker=worker)

    def send(
        self,
        method: str,
        data: bytes = b"",
        *,
        worker: int = 0,
        content_type: str = "application/json",
    ) -> Reply:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports[worker], timeout=CLIENT_TIMEOUT_SECONDS
        )
        with contextlib.closing(connection):
            try:
                connection.request(method, "/", data, {"Content-Type": content_type})
                response = connection.getresponse()
                text = response.read()
            except (http.client.HTTPException, ConnectionError):
                return Reply(status=0)
            return Reply(
                status=response.status,
                body=json.loads(text),
                headers=dict(response.headers.items()),
            )

    def order_kill(self, point: str) -> None:
        """The next worker that comes to this point dies there."""
        draft = self.control / "draft"
        draft.write_text(point)
        draft.rename(self.control / KILL_FILE)

    def withdraw_kill(self) -> None:
        (self.control / KILL_FILE).unlink(missing_ok=True)

    def kills(self) -> int:
        return len(list(self.control.glob("killed.*")))

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SAM2_", "CVAT_"))
        }
        return kept | {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
            "CVAT_FUNCTIONS_REDIS_HOST": "127.0.0.1",
            "CVAT_FUNCTIONS_REDIS_PORT": str(self.redis.port),
            "SAM2_MODEL": "sam2.1_hiera_micro",
            "SAM2_THREADS": "1",
            "SAM2_REDIS_TIMEOUT_SECONDS": "20",  # the most: a busy machine is no fault of the store
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        for worker in range(len(self.ports)):
            while self.send("GET", worker=worker).status != 200:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the workers do not start:\n{self.log.read_text()}")
                time.sleep(0.05)
