# SPDX-License-Identifier: MIT
"""The tracking function, called through CVAT's server."""

import math
from typing import Any

from cvat_action.calls import Answer, CallFailed, Cure
from cvat_action.job import Job, Wire
from cvat_action.server import Function, HttpFailure, Server


class ServerTracker:
    """The `Tracker` behind `POST /api/lambda/functions/<id>`."""

    def __init__(self, server: Server, job: Job, function: Function) -> None:
        self._server = server
        self._job = job
        self._function = function

    def start(self, frame: int, shapes: list[dict[str, Any]]) -> Answer:
        answer = self._call({"type": "init_tracking", "frame": frame, "shapes": shapes})
        return _answer(answer, len(shapes), shapes_needed=False)

    def step(self, frame: int, states: list[Any]) -> Answer:
        answer = self._call({"type": "track", "frame": frame, "states": states})
        return _answer(answer, len(states), shapes_needed=True)

    @property
    def joins(self) -> bool:
        """Another function would take the state and never look at the shape."""
        return self._function.is_ours

    def correct(self, frame: int, shapes: list[dict[str, Any]], states: list[Any]) -> Answer:
        drawn = [{**shape, "correction": 1} for shape in shapes]
        answer = self._call({"type": "track", "frame": frame, "shapes": drawn, "states": states})
        return _answer(answer, len(states), shapes_needed=False)

    def adopt(
        self, frame: int, shape_type: str, state: Any, others: list[tuple[Any, int]]
    ) -> Answer:
        named = [{"index": n, "distance": far} for n, (_, far) in enumerate(others, 1)]
        shapes = [{"type": shape_type, "points": [], "adopt": named}, *[None] * len(others)]
        states = [state, *(each for each, _ in others)]
        body = {"type": "track", "frame": frame, "shapes": shapes, "states": states}
        whole = _answer(self._call(body), len(states), shapes_needed=False)
        return Answer(whole.shapes[:1], whole.states[:1], whole.scores[:1], whole.errors[:1])

    def _call(self, body: Wire) -> Any:
        whole = {"job": self._job.id, "task": self._job.task_id, **body}
        try:
            return self._server.call_function(self._function.id, whole)
        except HttpFailure as failure:
            raise call_failure(failure, self._function.id) from failure


def call_failure(failure: HttpFailure, function: str) -> CallFailed:
    """What a failed call means, and what helps, by its status and body."""
    status, body = failure.status, failure.body
    from_function = " for url: " in body
    if status is None:
        return CallFailed(Cure.REPEAT, str(failure))
    if status == 400 and "Invalid or expired tracker state" in body:
        return CallFailed(Cure.START_AGAIN, "CVAT says that the tracker states are expired.")
    if status == 410:
        return CallFailed(Cure.START_AGAIN, "The function no longer knows these objects.")
    if status == 413 or (status == 400 and from_function):
        why = (
            "The function refused it: too many objects for one call, an image larger than it "
            "takes, or a shape that it cannot read"
            if status == 413
            else "The function refused it: the request is larger than its maxRequestBodySize, or "
            "every object of it is malformed, empty, or of another image size"
        )
        return CallFailed(Cure.FEWER_FOR_GOOD, f"{why} ({status}).")
    if status in (408, 504):
        return CallFailed(
            Cure.FEWER,
            f"The call took too long ({status}): too many objects for one call, or a slow device.",
        )
    if status == 404:
        return CallFailed(
            Cure.NONE,
            f"This server has no function {function!r}; `functions` lists those it has.",
        )
    if status == 429 or status >= 500:
        return _service_failure(status, body, function)
    return CallFailed(Cure.NONE, str(failure))


def _service_failure(status: int, body: str, function: str) -> CallFailed:
    """Something on the way to the function, or the function itself, does not work."""
    html = body.lstrip()[:1] == "<"
    if "Failed to resolve 'host.docker.internal'" in body:
        return CallFailed(
            Cure.NONE,
            "CVAT cannot reach any function: it was started without "
            f"components/serverless/docker-compose.serverless.yml ({status}).",
        )
    if status == 503 and "with url: /api/function" in body:
        return CallFailed(
            Cure.REPEAT,
            "CVAT does not reach Nuclio's dashboard (503), which it asks before every call: is the "
            "nuclio container running?",
        )
    if status == 503 and "refused" in body:
        return CallFailed(
            Cure.REPEAT,
            "Nothing listens on the function's port (503): its container is not running, is "
            f"restarting, or got another port. See: docker ps -a --filter name={function}.",
        )
    if status == 502 or (status == 503 and html):
        return CallFailed(Cure.REPEAT, f"CVAT itself does not answer, only its proxy ({status}).")
    if status in (429, 503):
        return CallFailed(
            Cure.REPEAT,
            f"The function is busy, or its store (Redis) is away ({status}); its log says which: "
            f"docker logs nuclio-nuclio-{function}.",
        )
    if status == 500 and "host.docker.internal:None" in body:
        return CallFailed(
            Cure.REPEAT,
            "The function has no port (500): it is still being built, or is unhealthy. Nuclio's "
            "dashboard shows its state.",
        )
    if status == 500 and html:
        return CallFailed(
            Cure.REPEAT, "CVAT failed on this call (500), as it does while it loads frames."
        )
    return CallFailed(
        Cure.REPEAT,
        f"The function failed ({status}); its log says why: docker logs nuclio-nuclio-{function}.",
    )


def _answer(data: Any, count: int, *, shapes_needed: bool) -> Answer:
    """Checks that the lists are there and as long as the request: clients index by position."""

    def column(name: str, *, needed: bool) -> list[Any]:
        values = data.get(name) if isinstance(data, dict) else None
        if values is None and not needed:
            return [None] * count
        if not isinstance(values, list) or len(values) != count:
            found = len(values) if isinstance(values, list) else "no"
            raise CallFailed(
                Cure.NONE, f"The function answered {found} {name} for {count} objects."
            )
        return values

    return Answer(
        shapes=column("shapes", needed=shapes_needed),
        states=[None if _is_void(s) else s for s in column("states", needed=True)],
        scores=[_score(s) for s in column("scores", needed=False)],
        errors=[_fault(e) for e in column("errors", needed=False)],
    )


def _score(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _is_void(state: Any) -> bool:
    """CVAT signs every state, also a function's `null`: it arrives as `null:<time>:<signature>`."""
    return state is None or (isinstance(state, str) and state.startswith("null:"))


def _fault(error: Any) -> dict[str, str] | None:
    if error is None:
        return None
    found = error if isinstance(error, dict) else {"message": str(error)}
    return {
        "code": str(found.get("code", "unknown")),
        "message": str(found.get("message", "the function gave no reason")),
    }
