# SPDX-License-Identifier: MIT
"""A fleet without processes and HTTP: `main.handler` on trackers of this process, each with its own
connection and caches, which share a real Redis behind the proxy. For the thousands of runs."""

import io
import json
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import nuclio_sdk

import main
from faults.fleet import Reply
from faults.local import make_store
from faults.proxy import Proxy
from faults.standin_model import StandinModel
from sam2_tracker.records import RedisRecords
from sam2_tracker.settings import MIB, Settings
from tools.redis_server import RedisServer
from tracker import Tracker


class LocalFleet:
    """As Fleet, but for the death of workers."""

    def __init__(self, *, workers: int, models: Sequence[Any] = (StandinModel(),)) -> None:
        """The workers take turns with the models."""
        self._models = models
        self.redis = RedisServer(persist=True).start()
        self.proxy = Proxy(self.redis.port)
        self.ports = list(range(workers))
        self._contexts = [self._context(worker) for worker in self.ports]
        self._busy = [threading.Lock() for _ in self.ports]

    def __enter__(self) -> "LocalFleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for context in self._contexts:
            context.user_data.tracker.close()
        self.proxy.close()
        self.redis.close()

    def post(self, body: Any, *, worker: int = 0) -> Reply:
        begin = time.monotonic()
        # What goes over the wire is JSON.
        event = nuclio_sdk.Event(body=json.loads(json.dumps(body)), method="POST")
        with self._busy[worker]:
            response = main.handler(self._contexts[worker], event)
        return Reply(
            status=response.status_code,
            body=json.loads(response.body),
            begin=begin,
            end=time.monotonic(),
        )

    def kills(self) -> int:
        return 0

    def _context(self, worker: int) -> Any:
        settings = Settings(
            redis_host="127.0.0.1",
            redis_port=self.proxy.port,
            threads=1,
            frame_cache_mib=0 if worker % 2 else 512,
        )
        model = self._models[worker % len(self._models)]
        store = make_store(
            RedisRecords(settings),
            model.layout,
            cache_bytes=0 if worker % 2 else 64 * MIB,
            fingerprint=model.fingerprint,
        )
        logger = nuclio_sdk.Logger(logging.ERROR, f"worker-{worker}")
        logger.set_handler("default", io.StringIO(), nuclio_sdk.logger.JSONFormatter())
        context = nuclio_sdk.Context(logger, worker_id=worker)
        context.user_data.settings = settings
        context.user_data.tracker = Tracker(model, store, settings)
        return context
