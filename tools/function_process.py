# SPDX-License-Identifier: MIT
"""Starts the function behind HTTP (tools/serve.py) as a process of its own, and calls it."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 300.0
ANSWER_SECONDS = 600.0
STOP_SECONDS = 90.0


class FunctionError(Exception):
    """The function did not start, or answered a request with an error."""


class FunctionProcess:
    """Runs inside a `with`, on a free port.

    It ends with the process that started it, even if that is killed.
    """

    def __init__(
        self, environment: Mapping[str, str], *, workers: int = 1, wait: bool = True
    ) -> None:
        """environment: all variables of the process. wait: until every worker has its model."""
        self._wait_until_ready = wait
        self._workers = workers
        self.port = 0
        self._folder = Path(tempfile.mkdtemp(prefix="function-"))
        self._log_path = self._folder / "log"
        command = [sys.executable, "-m", "tools.serve", "--port", "0", "--workers", str(workers)]
        command += ["--parent", str(os.getpid())]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "FunctionProcess":
        try:
            self.port = int(self.wait_for(r"listening on http://[\d.]+:(\d+)")[0])
            if self._wait_until_ready:
                self.wait_for(r"worker \d+ is ready", times=self._workers)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """What the function has written so far, all workers together."""
        return self._log_path.read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that starts the workers."""
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in children.split()]

    def wait_for(self, pattern: str, *, times: int = 1) -> list[str]:
        """Returns when the log has that many matches of the pattern, with the matches.

        Raises FunctionError if the function ends before, or after START_SECONDS.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            has_ended = self._process.poll() is not None
            found: list[str] = re.findall(pattern, self.log)
            if len(found) >= times:
                return found
            if has_ended or time.monotonic() > deadline:
                reason = re.search(r"The function cannot start: .*", self.log)
                raise FunctionError(
                    reason[0] if reason else f"{pattern!r} is not in the log:\n{self.log[-2000:]}"
                )
            time.sleep(0.05)

    def stop(self) -> int:
        """Asks the function to end, as a container's stop does; returns its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits until the function ends by itself; returns its exit status."""
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Ends the function and its workers at once, and removes the log."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def request(
        self,
        method: str,
        body: bytes | str | None = None,
        *,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends one request; returns status, headers with lower-case names, and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return (
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def post(self, content: object) -> tuple[int, Any]:
        """Sends JSON as CVAT does; returns the status and the decoded answer."""
        status, _, body = self.request(
            "POST", json.dumps(content), headers={"Content-Type": "application/json"}
        )
        return status, json.loads(body)

    def get(self) -> Any:
        """What the function says about itself, decoded. Raises FunctionError."""
        status, _, body = self.request("GET")
        if status != 200:
            raise FunctionError(f"The function answered {status}: {body[:500]!r}")
        return json.loads(body)
