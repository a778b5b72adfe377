# SPDX-License-Identifier: MIT
"""Nuclio's two entry points. The only place that answers with status codes."""

import dataclasses
import json
import logging
import os
import traceback
from typing import Any

from sam2_tracker.errors import AllObjectsFailed, ConfigurationError, RequestError, StoreUnavailable
from sam2_tracker.protocol import answers_to_json, body_to_request, error_to_json
from sam2_tracker.settings import Settings, settings_from_environment
from sam2_tracker.stopwatch import Stopwatch
from tracker import Tracker, build_tracker

VERSION = "0.1.0"


def init_context(context: Any) -> None:
    """Loads and warms up the model; Nuclio sends no request before this is over."""
    context.logger.info("Init context...  0%")
    logging.getLogger().setLevel(logging.WARNING)  # sam2 and hydra speak on the root logger
    settings = settings_from_environment(os.environ)
    _check_workers(settings, context)
    tracker = build_tracker(settings)
    tracker.warm_up()
    context.user_data.tracker = tracker
    context.user_data.settings = settings
    if hasattr(context.platform, "set_termination_callback"):  # nuclio_sdk.test's has none
        context.platform.set_termination_callback(tracker.close)
    context.logger.info_with("running", **_flat(tracker))
    if settings.redis_host is None:
        context.logger.warn(
            "CVAT_FUNCTIONS_REDIS_HOST is not set: tracks are kept in this process's memory. They "
            "end with it, and a second worker would not know them."
        )
    elif not tracker.store_answers():
        context.logger.warn("Redis does not answer yet: requests get 503 until it does.")
    context.logger.info("Init context...100%")


def handler(context: Any, event: Any) -> Any:
    """GET tells what is running; POST takes CVAT's request and gives its response."""
    watch = Stopwatch()
    # Nuclio's wrapper leaves strings as bytes unless it is told to decode them.
    method = event.method.decode() if isinstance(event.method, bytes) else event.method
    try:
        if method == "GET":
            status, body = 200, _info(context.user_data.tracker)
        elif method in (None, "POST"):
            status, body = 200, _track(context, event.body, watch)
        else:
            status, body = 405, error_to_json("bad_method", "Use GET or POST.", [])
        if method != "GET":
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
    return context.Response(
        body=body, headers={}, content_type="application/json", status_code=status
    )


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


def _info(tracker: Tracker) -> str:
    info = dataclasses.asdict(tracker.info())
    info["store"] = {"kind": info["store"], "answers": tracker.store_answers()}
    return json.dumps({"version": VERSION, **info})


def _flat(tracker: Tracker) -> dict[str, object]:
    info = dataclasses.asdict(tracker.info())
    return {"version": VERSION, **info.pop("limits"), **info}


def _check_workers(settings: Settings, context: Any) -> None:
    if settings.redis_host is None and (settings.workers > 1 or int(context.worker_id or 0) > 0):
        raise ConfigurationError(
            "Several workers need a Redis: set CVAT_FUNCTIONS_REDIS_HOST, or use one worker."
        )
