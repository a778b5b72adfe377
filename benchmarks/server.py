# SPDX-License-Identifier: MIT
"""The function behind real HTTP, with a real Redis, as a process of its own."""

import ast
import base64
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2_tracker.models import ModelFiles
from sam2_tracker.settings import Settings
from tools.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_SECONDS = 300
REQUEST_TIMEOUT_SECONDS = 600
Wire = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One request: what came back, how long it took, and what the function's log says of it."""

    body: Wire
    seconds: float
    log: dict[str, Any]


class RunningFunction:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._read_to = 0
        self.host, self.port = "", 0

    @property
    def worker_pid(self) -> int:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0])

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            text = self._log.read_text()
            address = re.search(r"listening on http://([^:\s]+):(\d+)", text)
            if address and "is ready" in text:
                self.host, self.port = address[1], int(address[2])
                return
            time.sleep(0.02)
        raise RuntimeError(f"The function did not start:\n{self._log.read_text()[-2000:]}")

    def info(self) -> Wire:
        return self._call("GET", None)

    def post(self, image: bytes, shapes: Sequence[Wire | None], states: Sequence[Any]) -> Answered:
        """Sends one request; building its body does not count."""
        body = json.dumps(
            {
                "image": base64.b64encode(image).decode(),
                "shapes": list(shapes),
                "states": list(states),
            }
        ).encode()
        begin = time.perf_counter()
        answer = self._call("POST", body)
        seconds = time.perf_counter() - begin
        for error in answer["errors"]:
            if error:
                raise RuntimeError(f"The function answered: {error['message']}")
        return Answered(body=answer, seconds=seconds, log=self._last_log())

    def _call(self, method: str, body: bytes | None) -> Wire:
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout=REQUEST_TIMEOUT_SECONDS
        )
        try:
            connection.request(method, "/", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"The function answered {response.status}: {content[:500]!r}")
        answer: Wire = json.loads(content)
        return answer

    def _last_log(self) -> dict[str, Any]:
        with self._log.open() as file:
            file.seek(self._read_to)
            lines = [line for line in file.read().splitlines() if "] request: {" in line]
            self._read_to = file.tell()
        fields: dict[str, Any] = ast.literal_eval(lines[-1].split("] request: ", 1)[1])
        return fields


@contextmanager
def running_function(
    files: ModelFiles,
    folder: Path,
    *,
    precision: str,
    device: str,
    redis: RedisServer,
    cache_mib: int = Settings().attention_cache_mib,
) -> Iterator[RunningFunction]:
    """Starts serve.py with one worker on a free port, and stops it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SAM2_")
    }
    environment |= {
        "SAM2_CONFIG": str(files.config),
        "SAM2_CHECKPOINT": str(files.checkpoint),
        "SAM2_PRECISION": precision,
        "SAM2_DEVICE": device,
        "SAM2_ATTENTION_CACHE_MIB": str(cache_mib),
        "SAM2_TIME_BUDGET_SECONDS": "600",
        # A slow machine must not fail here; what it takes is what is measured.
        "SAM2_REDIS_TIMEOUT_SECONDS": "20",
        "CVAT_FUNCTIONS_REDIS_HOST": redis.host,
        "CVAT_FUNCTIONS_REDIS_PORT": str(redis.port),
    }
    log = folder / f"function-{time.monotonic_ns()}.log"
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own server
            [sys.executable, "-m", "tools.serve", "--port", "0"],
            stdout=output,
            stderr=output,
            env=environment,
            cwd=ROOT,
        )
    function = RunningFunction(process, log)
    try:
        function.wait_until_ready()
        yield function
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
