# SPDX-License-Identifier: MIT
"""Nuclio's two entry points. The only place that answers with status codes."""

import dataclasses
import json
import logging
import os
import sys
import traceback
from typing import Any

from sam2_tracker.errors import (
    AllObjectsFailed,
    BadMethod,
    ConfigurationError,
    RequestError,
    StoreUnavailable,
)
from sam2_tracker.metrics import CONTENT_TYPE, Metrics
from sam2_tracker.protocol import answers_to_json, body_to_request, error_to_json
from sam2_tracker.settings import Settings, check_workers, settings_from_environment
from sam2_tracker.stopwatch import Stopwatch
from tracker import Tracker, build_tracker

VERSION = "0.1.0"
RUNNING = ("version", "model", "fingerprint", "device", "precision", "store")
"""What /metrics says of the running function."""


def init_context(context: Any) -> None:
    """Loads and warms up the model; Nuclio sends no request before this is over.

    Raises ConfigurationError after logging its sentence: of what is raised here, Nuclio's own log
    keeps nothing.
    """
    try:
        _start(context)
    except ConfigurationError as error:
        context.logger.error(f"The function cannot start: {error.message}")
        raise


def _start(context: Any) -> None:
    context.logger.info("Init context...  0%")
    logging.getLogger().setLevel(logging.WARNING)  # sam2 and hydra speak on the root logger
    settings = settings_from_environment(os.environ)
    worker_id = int(context.worker_id or 0)
    check_workers(settings, worker_id)
    tracker = build_tracker(settings)
    tracker.warm_up()
    context.user_data.tracker = tracker
    context.user_data.settings = settings
    running = {name: str(value) for name, value in _flat(tracker).items() if name in RUNNING}
    context.user_data.metrics = Metrics(worker_id, running)
    if hasattr(context.platform, "set_termination_callback"):  # nuclio_sdk.test's has none
        context.platform.set_termination_callback(lambda: _end(tracker))
    context.logger.info_with("running", **_flat(tracker))
    if settings.redis_host is None:
        context.logger.warn(
            "CVAT_FUNCTIONS_REDIS_HOST is not set: tracks are kept in this process's memory. They "
            "end with it, and a second worker would not know them."
        )
    elif not tracker.store_answers():
        context.logger.warn("Redis does not answer yet: requests get 503 until it does.")
    context.logger.info("Init context...100%")


def _end(tracker: Tracker) -> None:
    """Nuclio calls this between two requests, and then waits until the process has ended."""
    tracker.close()
    sys.exit(0)


def handler(context: Any, event: Any) -> Any:
    """POST takes CVAT's request and gives its response; GET tells of the function itself."""
    method = _text(event.method)
    if method == "GET":
        return _get(context, _text(event.path))
    watch = Stopwatch()
    try:
        if method not in (None, "POST"):
            raise BadMethod("Use GET or POST.")
        status, body = 200, _track(context, event.body, watch)
        context.logger.info_with("request", status=status, **watch.fields())
    except RequestError as error:
        status = error.status
        body = error_to_json(error.code, error.message, error.indexes)
        context.logger.warn_with(
            "request failed", status=status, code=error.code, cause=_cause(error), **watch.fields()
        )
    except Exception:
        # Nuclio would answer with the traceback; it belongs into the log.
        status = 500
        body = error_to_json("internal", "Internal error; the function's log has the cause.", [])
        context.logger.error_with(
            "request failed", status=status, traceback=traceback.format_exc(), **watch.fields()
        )
    context.user_data.metrics.count(status, watch)
    return context.Response(
        body=body, headers={}, content_type="application/json", status_code=status
    )


def _get(context: Any, path: str | None) -> Any:
    """/ready: 200, or 503 and the reason. /metrics: Prometheus text. Else: what is running."""
    tracker: Tracker = context.user_data.tracker
    store_answers = tracker.store_answers()
    status, content_type = 200, "application/json"
    if path == "/metrics":
        body, content_type = context.user_data.metrics.text(store_answers), CONTENT_TYPE
    elif path == "/ready" and not store_answers:
        reason = "The store of the tracks does not answer; the function's log says why."
        status, body = 503, error_to_json(StoreUnavailable.code, reason, [])
    elif path == "/ready":
        body = json.dumps({"ready": True})
    else:
        body = _info(tracker, store_answers)
    return context.Response(body=body, headers={}, content_type=content_type, status_code=status)


def _text(value: str | bytes | None) -> str | None:
    """Nuclio's wrapper leaves strings as bytes unless it is told to decode them."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _track(context: Any, body: object, watch: Stopwatch) -> str:
    tracker: Tracker = context.user_data.tracker
    settings: Settings = context.user_data.settings
    with watch.phase("read"):
        request = body_to_request(
            body, max_objects=settings.max_objects, max_points=settings.max_points
        )
    answers = tracker.track(request, watch)
    with watch.phase("write"):
        return answers_to_json(answers)


def _cause(error: RequestError) -> str:
    """For the log. What is wrong with an object can quote its points: its code must do there; and
    what a decoder says can quote the image."""
    if isinstance(error, AllObjectsFailed):
        return "every object failed"
    if isinstance(error, StoreUnavailable) and error.__cause__ is not None:
        return f"{type(error.__cause__).__name__}: {error.__cause__}"
    return error.message


def _info(tracker: Tracker, store_answers: bool) -> str:
    info = dataclasses.asdict(tracker.info())
    info["store"] = {"kind": info["store"], "answers": store_answers}
    return json.dumps({"version": VERSION, **info})


def _flat(tracker: Tracker) -> dict[str, object]:
    info = dataclasses.asdict(tracker.info())
    return {"version": VERSION, **info.pop("limits"), **info}
