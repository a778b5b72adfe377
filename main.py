# SPDX-License-Identifier: MIT
"""Nuclio's two entry points. The only place that answers with status codes."""

import dataclasses
import json
import logging
import os
import sys
import threading
import traceback
from typing import Any

from interactor import Interactor, build_interactor
from sam2_tracker.click_protocol import (
    body_to_clicks,
    found_to_json,
    found_to_old_json,
    takes_shapes,
)
from sam2_tracker.errors import (
    AllObjectsFailed,
    BadMethod,
    ConfigurationError,
    DeviceFailed,
    NotFound,
    OutOfMemory,
    RequestError,
    StoreUnavailable,
    in_one_line,
)
from sam2_tracker.metrics import CONTENT_TYPE, Metrics
from sam2_tracker.protocol import answers_to_json, body_to_request, error_to_json
from sam2_tracker.settings import (
    Settings,
    check_workers,
    settings_from_environment,
    unknown_variables,
)
from sam2_tracker.stopwatch import Stopwatch
from tracker import Tracker, build_tracker

VERSION = "0.1.0"
Function = Tracker | Interactor
RUNNING = ("version", "model", "fingerprint", "device", "precision", "store")
"""What /metrics says of the running function."""


def init_context(context: Any) -> None:
    """Loads and warms up the model; Nuclio sends no request before this is over.

    Raises what stops the start, a ConfigurationError or something else. It is logged in one
    sentence first, because Nuclio does not log an exception that is raised here.
    """
    try:
        _start(context)
    except ConfigurationError as error:
        context.logger.error(f"The function cannot start: {error.message}")
        raise
    except Exception as error:
        causes = [each for each in (error, error.__cause__) if each is not None]
        text = " - ".join(f"{type(each).__name__}: {in_one_line(each)}" for each in causes)
        context.logger.error_with(
            f"The function cannot start: {text}", traceback=traceback.format_exc()
        )
        raise


def _start(context: Any) -> None:
    context.logger.info("Init context...  0%")
    logging.getLogger().setLevel(logging.WARNING)  # sam2 and hydra speak on the root logger
    settings = settings_from_environment(os.environ)
    for sentence in unknown_variables(os.environ):
        context.logger.warn(sentence)
    worker_id = int(context.worker_id or 0)
    check_workers(settings, worker_id)
    build = build_interactor if settings.function == "interactor" else build_tracker
    function: Function = build(settings)
    function.warm_up()
    context.user_data.function = function
    context.user_data.settings = settings
    running = _flat(function)
    context.user_data.metrics = Metrics(worker_id, {name: str(running[name]) for name in RUNNING})
    if hasattr(context.platform, "set_termination_callback"):  # nuclio_sdk.test's has none
        context.platform.set_termination_callback(lambda: _end(function))
    context.logger.info_with("running", **running)
    if settings.function == "tracker":
        _warn_of_the_store(context, settings, function)
    context.logger.info("Init context...100%")


def _warn_of_the_store(context: Any, settings: Settings, function: Function) -> None:
    if settings.redis_host is None:
        context.logger.warn(
            "CVAT_FUNCTIONS_REDIS_HOST is not set: tracks are kept in this process's memory. They "
            "end with it, and a second worker would not know them."
        )
    elif not function.store_answers():
        context.logger.warn("Redis does not answer yet: requests get 503 until it does.")


def _end(function: Function) -> None:
    """Nuclio calls this between two requests, and then waits until the process has ended."""
    function.close()
    sys.exit(0)


def _end_after_the_answer() -> None:
    """Nuclio starts a worker that ended anew; nothing that is stored is lost."""
    timer = threading.Timer(1.0, os._exit, (1,))
    timer.daemon = True
    timer.start()


def handler(context: Any, event: Any) -> Any:
    """POST takes CVAT's request and gives its response; GET tells of the function itself."""
    method = _text(event.method)
    watch = Stopwatch()
    try:
        if method == "GET":
            return _get(context, _text(event.path))
        if method not in (None, "POST"):
            raise BadMethod("Use GET or POST.")
        status, body = 200, _answer(context, event, watch)
        context.logger.info_with("request", status=status, **watch.fields())
    except RequestError as error:
        status = error.status
        body = error_to_json(error.code, error.message, error.indexes)
        if error.indexes:
            watch.failed = len(error.indexes)
            watch.failed_codes = watch.failed_codes or error.code
        context.logger.warn_with(
            "request failed", status=status, code=error.code, cause=_cause(error), **watch.fields()
        )
    except Exception:
        # Nuclio would answer with the traceback; it belongs into the log.
        status = 500
        body = error_to_json("internal", "Internal error; the function's log has the cause.", [])
        if context.user_data.function.device_failed():
            status = DeviceFailed.status
            body = error_to_json(DeviceFailed.code, DeviceFailed.MESSAGE, [])
            context.logger.error("The GPU takes no more work of this process, so it ends.")
            _end_after_the_answer()
        context.logger.error_with(
            "request failed", status=status, traceback=traceback.format_exc(), **watch.fields()
        )
    if method != "GET":
        context.user_data.metrics.count(status, watch)
    return context.Response(
        body=body, headers={}, content_type="application/json", status_code=status
    )


def _get(context: Any, path: str | None) -> Any:
    """/ready: 200, or 503 and the reason. /metrics: Prometheus text. /: what is running."""
    function: Function = context.user_data.function
    path = (path or "").partition("?")[0].rstrip("/")
    if path not in ("", "/ready", "/metrics"):
        raise NotFound("Ask for /, /ready or /metrics.")
    store_answers = function.store_answers()
    status, content_type = 200, "application/json"
    if path == "/metrics":
        body, content_type = context.user_data.metrics.text(store_answers), CONTENT_TYPE
    elif path == "/ready" and not store_answers:
        reason = "The store of the tracks does not answer; the function's log says why."
        status, body = 503, error_to_json(StoreUnavailable.code, reason, [])
    elif path == "/ready":
        body = json.dumps({"ready": True})
    else:
        body = _info(function, store_answers)
    return context.Response(body=body, headers={}, content_type=content_type, status_code=status)


def _text(value: str | bytes | None) -> str | None:
    """Nuclio's wrapper leaves strings as bytes unless it is told to decode them."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _answer(context: Any, event: Any, watch: Stopwatch) -> str:
    function: Function = context.user_data.function
    settings: Settings = context.user_data.settings
    if isinstance(function, Interactor):
        return _click(function, settings, event, watch)
    return _track(function, settings, event.body, watch)


def _track(tracker: Tracker, settings: Settings, body: object, watch: Stopwatch) -> str:
    with watch.phase("read"):
        request = body_to_request(
            body, max_objects=settings.max_objects, max_points=settings.max_points
        )
    answers = tracker.track(request, watch)
    with watch.phase("write"):
        return answers_to_json(answers)


def _click(interactor: Interactor, settings: Settings, event: Any, watch: Stopwatch) -> str:
    with watch.phase("read"):
        request = body_to_clicks(event.body, max_objects=settings.max_objects)
    if request.everything:
        found, message = interactor.find_all(request.image, request.everything, watch)
        with watch.phase("write"):
            return found_to_json(found, message)
    found = interactor.click(request, watch)
    headers = {
        str(_text(name)).lower(): _text(value) for name, value in (event.headers or {}).items()
    }
    with watch.phase("write"):
        if takes_shapes(headers.get("user-agent")):
            return found_to_json(found, boxes=len(request.boxes))
        return found_to_old_json(found, tolerance=settings.polygon_tolerance)


def _cause(error: RequestError) -> str:
    """The cause for the log, without content of the request.

    An object's message can quote its points, and a decoder's exception can quote the image.
    """
    if isinstance(error, AllObjectsFailed):
        return "every object failed"
    if isinstance(error, StoreUnavailable | OutOfMemory) and error.__cause__ is not None:
        return f"{type(error.__cause__).__name__}: {error.__cause__}"
    return error.message


def _info(function: Function, store_answers: bool) -> str:
    info = dataclasses.asdict(function.info())
    info["store"] = {"kind": info["store"], "answers": store_answers}
    return json.dumps({"version": VERSION, **info})


def _flat(function: Function) -> dict[str, object]:
    info = dataclasses.asdict(function.info())
    return {"version": VERSION, **info.pop("limits"), **info}
