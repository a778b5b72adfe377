# SPDX-License-Identifier: MIT
"""CVAT's REST API as this action needs it (contract sections 5 and 11), on cvat-sdk's client.

cvat-sdk's typed calls are left aside on purpose: they send `frame: 2` as `2.0`, are slow for long
point lists, and refuse answers of servers older or newer than themselves. Its raw call does
authentication, organisation, certificates and proxies.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
from cvat_sdk.core.client import Client

from cvat_action.errors import ActionError
from cvat_action.job import Annotations, Job, Wire, job_from_wire
from cvat_action.tracking import Answer, CallFailed, Cure

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
READ_SECONDS = 130.0
"""CVAT itself waits 120 s for a function (contract 5.3)"""


@dataclass(frozen=True)
class Function:
    id: str
    name: str
    kind: str
    shape_types: tuple[str, ...]

    @property
    def usable_types(self) -> tuple[str, ...]:
        return tuple(t for t in self.shape_types if t in ("mask", "polygon", "rectangle"))


class HttpFailure(ActionError):
    """An answer of CVAT that is not 200, or none at all (status None)."""

    def __init__(self, status: int | None, body: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class Server:
    def __init__(self, client: Client, *, read_seconds: float = READ_SECONDS) -> None:
        self._client = client
        self._timeout = (CONNECT_SECONDS, read_seconds)

    @property
    def host(self) -> str:
        return str(self._client.api_map.host)

    def version(self) -> tuple[int, int] | None:
        """(major, minor) of the server, or None where it does not say."""
        try:
            text = str(self._get("/api/server/about").get("version", ""))
        except HttpFailure as failure:
            if failure.status is None:
                raise
            return None
        found = re.match(r"(\d+)\.(\d+)", text)
        return (int(found[1]), int(found[2])) if found else None

    def functions(self) -> list[Function]:
        try:
            listed = self._get("/api/lambda/functions")
        except HttpFailure as failure:
            if failure.status == 404:
                raise ActionError(
                    f"{self.host} runs without serverless functions (it has no /api/lambda); start "
                    "CVAT with components/serverless/docker-compose.serverless.yml."
                ) from None
            if failure.status in (500, 503):
                raise ActionError(
                    f"CVAT could not list its functions ({failure.status}): is the nuclio "
                    "container running?"
                ) from None
            raise
        return [
            Function(
                id=f["id"],
                name=f.get("name") or f["id"],
                kind=f.get("kind", ""),
                shape_types=tuple(f.get("supported_shape_types") or ()),
            )
            for f in listed
        ]

    def job(self, number: int) -> Job:
        try:
            job = self._get(f"/api/jobs/{number}")
        except HttpFailure as failure:
            if failure.status == 404:
                raise ActionError(
                    f"There is no job {number} on {self.host}, or it belongs to an organisation: "
                    "name it with --org."
                ) from None
            raise
        meta = self._get(f"/api/jobs/{number}/data/meta")
        return job_from_wire(job, meta, self._labels(number))

    def annotations(self, job: int) -> Annotations:
        data = self._get(f"/api/jobs/{job}/annotations/")
        return Annotations(tuple(data.get("shapes") or ()), tuple(data.get("tracks") or ()))

    def takes_tracks(self, job: Job) -> bool:
        """False for tasks with a ground truth pool, which refuse tracks (contract 7)."""
        try:
            return self._get(f"/api/tasks/{job.task_id}").get("validation_mode") != "gt_pool"
        except HttpFailure:
            # A worker of one job may not see the task. Then CVAT itself refuses when we write.
            return True

    def frame(self, job: int, frame: int) -> bytes:
        """The encoded picture of a frame, as CVAT's page shows it."""
        query = [("type", "frame"), ("quality", "compressed"), ("number", frame)]
        return self._call("GET", f"/api/jobs/{job}/data", query=query)

    def call_function(self, function: str, body: Wire) -> Any:
        """Raises HttpFailure."""
        return _parsed(self._call("POST", f"/api/lambda/functions/{function}", body=body))

    def patch(self, job: int, action: str, body: Wire) -> Wire:
        """Writes annotations; returns them as stored, with ids. Raises HttpFailure."""
        query = [("action", action)]
        answer = _parsed(
            self._call("PATCH", f"/api/jobs/{job}/annotations/", query=query, body=body)
        )
        if not isinstance(answer, dict):
            raise HttpFailure(None, "", "CVAT did not say what it stored.")
        return answer

    def _labels(self, job: int) -> list[Wire]:
        labels: list[Wire] = []
        page = 1
        while True:
            query = [("job_id", job), ("page", page), ("page_size", 500)]
            answer = _parsed(self._call("GET", "/api/labels", query=query))
            labels += answer["results"]
            if not answer.get("next"):
                return labels
            page += 1

    def _get(self, path: str) -> Any:
        return _parsed(self._call("GET", path))

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, Any]] = (),
        body: Wire | None = None,
    ) -> bytes:
        try:
            _, response = self._client.api_client.call_api(
                path,
                method,
                query_params=list(query),
                body=body,
                _request_timeout=self._timeout,
                _check_status=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise HttpFailure(None, "", f"{self.host} did not answer: {_reason(error)}.") from error
        if response.status != 200:
            text = bytes(response.data).decode("utf-8", "replace")
            raise HttpFailure(
                response.status, text, f"{_explain(response.status, text)} [{method} {path}]"
            )
        return bytes(response.data)


class ServerTracker:
    """The `Tracker` behind `POST /api/lambda/functions/<id>` (contract 5.1)."""

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

    def _call(self, body: Wire) -> Any:
        whole = {"job": self._job.id, "task": self._job.task_id, **body}
        try:
            return self._server.call_function(self._function.id, whole)
        except HttpFailure as failure:
            raise call_failure(failure, self._function.id) from failure


def call_failure(failure: HttpFailure, function: str) -> CallFailed:
    """What a failed call means and what helps: contract section 5.2's table, in plain words."""
    status, body = failure.status, failure.body
    html = body.lstrip()[:1] == "<"
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
    if status in (429, 502, 503):
        return CallFailed(
            Cure.REPEAT, f"The function is busy or restarting, or its store is away ({status})."
        )
    if status == 500 and "host.docker.internal:None" in body:
        return CallFailed(Cure.REPEAT, "The function is still being built or is unhealthy (500).")
    if status == 500 and html:
        return CallFailed(
            Cure.REPEAT, "CVAT failed on this call (500), as it does while it loads frames."
        )
    if status >= 500:
        return CallFailed(
            Cure.REPEAT,
            f"The function failed ({status}); its log says why: docker logs "
            f"nuclio-nuclio-{function}.",
        )
    if status == 404:
        return CallFailed(
            Cure.NONE,
            f"This server has no function {function!r}; `functions` lists those it has.",
        )
    return CallFailed(Cure.NONE, str(failure))


def _explain(status: int, body: str) -> str:
    """Any other failed call to CVAT, in plain words."""
    detail = _detail(body)
    if status == 401:
        return f"CVAT does not accept the login (401){detail}: check --auth or CVAT_ACCESS_TOKEN."
    if status == 403:
        return (
            f"CVAT does not allow it (403){detail}. Access tokens are read-only unless made "
            "otherwise: make one that may write, or log in as an annotator of this job."
        )
    if status == 404:
        return f"CVAT does not know it (404){detail}"
    if status == 413:
        return f"The request is too large for CVAT (413){detail}"
    return f"CVAT answered {status}{detail}"


def _detail(body: str) -> str:
    """CVAT's own words, shortened, where there are any; HTML pages have none."""
    text = body.strip()
    if text[:1] == "<" or not text:
        return ""
    try:
        data = json.loads(text)
    except ValueError:
        data = text
    if isinstance(data, dict) and isinstance(data.get("detail"), str):
        data = data["detail"]
    said = data if isinstance(data, str) else json.dumps(data)
    return f": {said[:300]}"


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
        scores=[
            float(s) if isinstance(s, int | float) else None for s in column("scores", needed=False)
        ],
        errors=[_fault(e) for e in column("errors", needed=False)],
    )


def _is_void(state: Any) -> bool:
    """A function's `null` comes signed: `null:<time>:<signature>` (contract 4.3)."""
    return state is None or (isinstance(state, str) and state.startswith("null:"))


def _fault(error: Any) -> dict[str, str] | None:
    if error is None:
        return None
    found = error if isinstance(error, dict) else {"message": str(error)}
    return {
        "code": str(found.get("code", "unknown")),
        "message": str(found.get("message", "the function gave no reason")),
    }


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise HttpFailure(
            None, "", "The server did not answer in JSON; is this really a CVAT server?"
        ) from None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return re.sub(r"<[^>]*>(: )?", "", str(cause)).strip(". ") or type(cause).__name__
