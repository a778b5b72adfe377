# SPDX-License-Identifier: MIT
"""The function as a test runs it: its environment, and its context in this process."""

import os
from collections.abc import Callable
from typing import Any

import nuclio_sdk
from PIL import Image

from sam2_tracker.models import ModelFiles
from tools.redis_server import RedisServer

FRAME = Image.effect_noise((96, 64), 80).convert("RGB")
POLYGON = {"type": "polygon", "points": [20, 10, 70, 12, 60, 50, 25, 45]}


def environment(
    files: ModelFiles, server: RedisServer | None = None, **more: str
) -> dict[str, str]:
    """All variables of a function's process."""
    found = {
        **os.environ,
        "SAM2_CONFIG": str(files.config),
        "SAM2_CHECKPOINT": str(files.checkpoint),
        "SAM2_DEVICE": "cpu",
        "SAM2_PRECISION": "float32",
        "SAM2_MEMORY_POLICY": "official",
        "SAM2_THREADS": "1",
        "SAM2_TIME_BUDGET_SECONDS": "3600",  # no answer depends on how busy the machine is
    }
    if server is not None:
        found["CVAT_FUNCTIONS_REDIS_HOST"] = server.host
        found["CVAT_FUNCTIONS_REDIS_PORT"] = str(server.port)
    return found | more


class Log:
    """Nuclio's logger as the function sees it; keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        """level, message, fields"""

    def __getattr__(self, name: str) -> Callable[..., None]:
        level = name.removesuffix("_with")
        return lambda message, *_, **fields: self.lines.append((level, message, fields))

    def messages(self, level: str) -> list[str]:
        return [message for of_level, message, _ in self.lines if of_level == level]


def new_context(worker_id: int = 0) -> Any:
    return nuclio_sdk.Context(Log(), nuclio_sdk.Platform("local"), worker_id=worker_id)
