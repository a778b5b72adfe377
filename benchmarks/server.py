# SPDX-License-Identifier: MIT
"""The function behind real HTTP with a real Redis, measured from outside."""

import ast
import base64
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2_tracker.models import ModelFiles
from sam2_tracker.settings import Settings
from tools.function_process import FunctionError, FunctionProcess
from tools.redis_server import RedisServer

Wire = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer to one request, how long it took, and the fields of its line in the log."""

    body: Wire
    seconds: float
    log: dict[str, Any]


class RunningFunction:
    """A function with one worker."""

    def __init__(self, process: FunctionProcess) -> None:
        self._process = process

    @property
    def worker_status(self) -> Path:
        """The file in which the kernel tells of the worker's process."""
        return Path(f"/proc/{self._process.worker_pids[0]}/status")

    def info(self) -> Wire:
        answer: Wire = self._process.get()
        return answer

    def post(self, image: bytes, shapes: Sequence[Wire | None], states: Sequence[Any]) -> Answered:
        """Sends one request. The time that building its body takes does not count.

        Raises FunctionError if the request or one of its objects fails.
        """
        body = json.dumps(
            {
                "image": base64.b64encode(image).decode(),
                "shapes": list(shapes),
                "states": list(states),
            }
        ).encode()
        begin = time.perf_counter()
        status, _, content = self._process.request(
            "POST", body, headers={"Content-Type": "application/json"}
        )
        if status != 200:
            raise FunctionError(f"The function answered {status}: {content[:500]!r}")
        answer: Wire = json.loads(content)
        seconds = time.perf_counter() - begin
        for error in answer["errors"]:
            if error:
                raise FunctionError(f"The function answered: {error['message']}")
        return Answered(body=answer, seconds=seconds, log=self._last_log())

    def _last_log(self) -> dict[str, Any]:
        # The worker writes this line before it answers.
        line = self._process.log.rpartition("] request: ")[2].splitlines()[0]
        fields: dict[str, Any] = ast.literal_eval(line)
        return fields


@contextmanager
def running_function(
    files: ModelFiles,
    *,
    precision: str,
    device: str,
    redis: RedisServer,
    cache_mib: int = Settings().memory_cache_mib,
) -> Iterator[RunningFunction]:
    """Starts the function with one worker, and ends it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SAM2_")
    }
    environment |= {
        "SAM2_CONFIG": str(files.config),
        "SAM2_CHECKPOINT": str(files.checkpoint),
        "SAM2_PRECISION": precision,
        "SAM2_DEVICE": device,
        "SAM2_MEMORY_CACHE_MIB": str(cache_mib),
        # Generous, because a slow machine is to be measured and must not fail.
        "SAM2_TIME_BUDGET_SECONDS": "600",
        "SAM2_REDIS_TIMEOUT_SECONDS": "20",
        "CVAT_FUNCTIONS_REDIS_HOST": redis.host,
        "CVAT_FUNCTIONS_REDIS_PORT": str(redis.port),
    }
    with FunctionProcess(environment) as process:
        yield RunningFunction(process)
