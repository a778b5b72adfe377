# SPDX-License-Identifier: MIT
"""A tracker, or the whole function, in this process: the stand-in model, any store."""

import io
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import nuclio_sdk

import main
from faults.fleet import Reply
from faults.standin_model import CONDITIONING_FRAMES, StandinModel
from sam2_tracker.memory_bank import MemoryLayout
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.metrics import Metrics
from sam2_tracker.records import Records
from sam2_tracker.settings import Settings
from tracker import Tracker
from tracker_state import StateStore

PREFIX = "cvat-sam2"
BY_NO_CLOCK = 3600.0
"""Seconds of a wait that must not end by itself: a busy machine may leave a thread out for long."""


class DictRecords:
    """Records in a dict that a test may change behind the function's back."""

    name = "dict"

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        """clock: seconds, by which records expire."""
        self.values: dict[str, bytes] = {}
        self._expiry: dict[str, float] = {}
        self._clock = clock

    def probe(self, key: str) -> None:
        pass

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self._clock()
        return [
            self.values.get(key) if self._expiry.get(key, now + 1) > now else None for key in keys
        ]

    def get_and_check(
        self, keys: Sequence[str], check: Sequence[str]
    ) -> tuple[list[bytes | None], list[bool]]:
        return self.get(keys), [record is not None for record in self.get(check)]

    def put(
        self,
        records: Sequence[tuple[str, bytes]],
        *,
        ttl_seconds: int,
        extend: Sequence[str],
        remove: Sequence[str],
    ) -> None:
        now = self._clock()
        self.values.update(records)
        self._expiry |= {key: now + ttl_seconds for key, _ in records}
        for key in extend:
            if self._expiry.get(key, 0) > now:
                self._expiry[key] = now + ttl_seconds
        for key in remove:
            self.values.pop(key, None)

    def close(self) -> None:
        self.values.clear()


def make_store(
    records: Records,
    layout: MemoryLayout,
    *,
    ttl_seconds: int = 30_000,
    cache_bytes: int = 0,
    fingerprint: str = StandinModel.fingerprint,
    cache: MemoryCache | None = None,
    **clock: Callable[[], float],
) -> StateStore:
    return StateStore(
        records,
        layout=layout,
        fingerprint=fingerprint,
        prefix=PREFIX,
        ttl_seconds=ttl_seconds,
        device=StandinModel.device,
        cache=cache or MemoryCache(cache_bytes),
        **clock,
    )


def make_tracker(
    records: Records, *, model: Any = None, cache: MemoryCache | None = None, **settings: Any
) -> Tracker:
    """No cache of memory frames unless one is given."""
    model = model or StandinModel()
    defaults = {"conditioning_frames": CONDITIONING_FRAMES, "threads": 1}
    waits = dict.fromkeys(("redis_timeout_seconds", "time_budget_seconds"), BY_NO_CLOCK)
    settings = {**defaults, **waits, **settings}
    store = make_store(records, model.layout, cache=cache, fingerprint=model.fingerprint)
    return Tracker(model, store, Settings(**settings))


def local_function(tracker: Tracker, log: io.StringIO | None = None) -> Callable[[object], Reply]:
    """`main.handler` as a function of a body, which is JSON-like or bytes; errors go into `log`."""
    logger = nuclio_sdk.Logger(logging.ERROR, "worker")
    logger.set_handler("default", log or io.StringIO(), nuclio_sdk.logger.JSONFormatter())
    context = nuclio_sdk.Context(logger)
    context.user_data.settings = tracker.settings
    context.user_data.function = tracker
    context.user_data.metrics = Metrics(0, {})

    def ask(body: object) -> Reply:
        event = nuclio_sdk.Event(body=body, method="POST")
        response = main.handler(context, event)
        return Reply(status=response.status_code, body=json.loads(response.body))

    return ask
