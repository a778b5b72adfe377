# SPDX-License-Identifier: MIT
"""Requests to a tracker in this process, and its answers as they go over the wire."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from cvat_requests import image_to_base64
from faults.local import BY_NO_CLOCK
from PIL import Image

from model_handler import ModelHandler
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.protocol import TrackRequest, answers_to_json, body_to_request
from sam2_tracker.settings import Settings
from tools.redis_server import RedisServer
from tracker import Tracker, open_store

Open = Callable[..., Tracker]


@contextlib.contextmanager
def opener() -> Iterator[Open]:
    """Opens trackers, with the embedded store or on a Redis; they are closed at the end."""
    with contextlib.ExitStack() as opened:

        def new(model: ModelHandler, server: RedisServer | None = None, **changes: Any) -> Tracker:
            waits = dict.fromkeys(("redis_timeout_seconds", "time_budget_seconds"), BY_NO_CLOCK)
            settings = Settings(**{"threads": 1, **waits, **changes})
            if server is not None:
                settings = replace(settings, redis_host=server.host, redis_port=server.port)
            cache = MemoryCache(settings.memory_cache_mib << 20)
            tracker = Tracker(model, open_store(settings, model, cache), settings)
            return opened.enter_context(contextlib.closing(tracker))

        yield new


def request(
    frame: np.ndarray, shapes: Sequence[Any] = (), states: Sequence[Any] = ()
) -> TrackRequest:
    image = image_to_base64(Image.fromarray(frame))
    body = {"image": image, "shapes": list(shapes), "states": list(states)}
    return body_to_request(body, max_objects=100, max_points=1_000_000)


def track(
    tracker: Tracker, frame: np.ndarray, shapes: Sequence[Any] = (), states: Sequence[Any] = ()
) -> dict[str, list[Any]]:
    """The answer as it goes over the wire."""
    answer = json.loads(answers_to_json(tracker.track(request(frame, shapes, states))))
    assert len({len(each) for each in answer.values()}) == 1
    return answer
