# SPDX-License-Identifier: MIT
"""The calls of CVAT's REST API that this action makes, on cvat-sdk's client.

cvat-sdk's typed calls are left aside on purpose: they send `frame: 2` as `2.0`, are slow for long
point lists, and refuse answers of servers older or newer than themselves. Its raw call does
authentication, organisation, certificates and proxies.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import ijson
import urllib3
from cvat_sdk.core.client import Client

from cvat_action.calls import Pace, Patience
from cvat_action.errors import ActionError
from cvat_action.geometry import TRACKABLE
from cvat_action.job import Job, Wire, job_from_wire
from cvat_action.snapshot import Snapshot, Whole, take_snapshot

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 10.0
READ_SECONDS = 130.0
"""CVAT itself waits 120 s for a function"""
CHUNK = 1 << 16
AWAY = (429, 502, 503, 504)
"""statuses of a CVAT that is busy or starting"""


@dataclass(frozen=True)
class Function:
    id: str
    name: str
    kind: str
    shape_types: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """what a detector can find"""
    description: str = ""

    @property
    def usable_types(self) -> tuple[str, ...]:
        return tuple(t for t in self.shape_types if t in TRACKABLE)

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's tracker, also where a second one has another id."""
        return self.id == OURS or self.description == OUR_DESCRIPTION


OURS = "pth-facebookresearch-sam2-tracker"
"""the id under which this project's function.yaml deploys it"""
OUR_DESCRIPTION = "Tracks masks, polygons and rectangles through video with SAM 2"
"""what function.yaml says of it"""


def why_unusable(function: Function) -> str | None:
    if function.kind != "tracker":
        return f"a {function.kind or 'function of unknown kind'}, not a tracker"
    if not function.usable_types:
        return "tracks neither masks, polygons nor rectangles"
    return None


class HttpFailure(ActionError):
    """An answer of CVAT that is not 200, or none at all (status None)."""

    def __init__(
        self, status: int | None, body: str, message: str, *, retry_after: float = 0.0
    ) -> None:
        """retry_after: seconds that CVAT asks to wait, from its header `Retry-After`."""
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class Server:
    def __init__(
        self, client: Client, *, read_seconds: float = READ_SECONDS, pace: Pace | None = None
    ) -> None:
        self._client = client
        self._timeout = (CONNECT_SECONDS, read_seconds)
        self._pace = pace or Pace()
        self._answered = False
        # What is sent here is plain JSON; the SDK would copy it number by number.
        client.api_client.sanitize_for_serialization = _as_it_is
        # The SDK repeats GETs by itself, quickly and in silence, and hides the status at the end.
        pools = client.api_client.rest_client.pool_manager
        pools.connection_pool_kw["retries"] = urllib3.Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=3, raise_on_status=False
        )
        pools.clear()

    @property
    def host(self) -> str:
        return str(self._client.api_map.host)

    def patience(self) -> Patience:
        """For a request that may succeed later."""
        return Patience(self._pace)

    def version(self) -> tuple[int, int] | None:
        """(major, minor) of the server, or None where it does not say."""
        try:
            with self._as_cvat():
                text = str(self._get("/api/server/about").get("version", ""))
        except HttpFailure as failure:
            if failure.status is None:
                raise
            return None
        found = re.match(r"(\d+)\.(\d+)", text)
        return (int(found[1]), int(found[2])) if found else None

    def functions(self) -> list[Function]:
        try:
            # 503 is Nuclio's dashboard being down, which seldom mends itself.
            listed = self._get("/api/lambda/functions", away=(429, 502, 504))
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
        with self._as_cvat():
            return [
                Function(
                    id=f["id"],
                    name=f.get("name") or f["id"],
                    kind=f.get("kind", ""),
                    shape_types=tuple(f.get("supported_shape_types") or ()),
                    labels=tuple(label["name"] for label in f.get("labels_v2") or ()),
                    description=f.get("description") or "",
                )
                for f in listed
            ]

    def job(self, job_id: int) -> Job:
        try:
            job = self._get(f"/api/jobs/{job_id}")
        except HttpFailure as failure:
            if failure.status == 404:
                raise ActionError(
                    f"There is no job {job_id} on {self.host}, or it belongs to an organisation: "
                    "name it with --org."
                ) from None
            raise
        meta = self._get(f"/api/jobs/{job_id}/data/meta")
        labels = self._pages("/api/labels", [("job_id", job_id)])
        with self._as_cvat():
            return job_from_wire(job, meta, labels)

    def snapshot(self, job: int, whole: Whole) -> Snapshot:
        """What the job holds now. It is read as a stream, so its size in memory is the snapshot's.

        Raises HttpFailure at once: who writes has its own time to wait.
        """
        with self._as_cvat():
            return take_snapshot(self._annotations(job), whole)

    def first_snapshot(self, job: int, whole: Whole) -> Snapshot:
        """As `snapshot`, but a CVAT that is busy or restarting is waited for."""
        return self._patiently(lambda: self.snapshot(job, whole))

    def jobs_of_task(self, task: int, frame: int) -> dict[int, tuple[int, int]]:
        """First and last frame of each annotation job of the task that holds the frame."""
        jobs = self._pages("/api/jobs", [("task_id", task)])
        if not jobs:
            raise ActionError(f"There is no task {task} on {self.host}, or it has no jobs.")
        with self._as_cvat():
            annotated = (j for j in jobs if j.get("type", "annotation") == "annotation")
            ends = {j["id"]: (j["start_frame"], j["stop_frame"]) for j in annotated}
            holding = {n: ends[n] for n in sorted(ends) if ends[n][0] <= frame <= ends[n][1]}
        if not holding:
            raise ActionError(f"No job of task {task} holds frame {frame}.")
        return holding

    def takes_tracks(self, job: Job) -> bool:
        """False for tasks with a ground truth pool, which refuse tracks."""
        try:
            return self._get(f"/api/tasks/{job.task_id}").get("validation_mode") != "gt_pool"
        except HttpFailure:
            # A worker of one job may not see the task. Then CVAT itself refuses when we write.
            return True

    def frame(self, job: int, frame: int) -> bytes:
        """The encoded picture of a frame, as CVAT's page shows it.

        CVAT answers 429 while it makes the chunk that holds the frame.
        """
        query = [("type", "frame"), ("quality", "compressed"), ("number", frame)]
        path = f"/api/jobs/{job}/data"
        return self._patiently(partial(self._call, "GET", path, query=query))

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

    def _pages(self, path: str, query: Sequence[tuple[str, Any]]) -> list[Wire]:
        found: list[Wire] = []
        page = 1
        while True:
            more = [*query, ("page", page), ("page_size", 500)]
            answer = _parsed(self._patiently(partial(self._call, "GET", path, query=more)))
            if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
                raise no_cvat(self.host)
            found += answer["results"]
            if not answer.get("next"):
                return found
            page += 1

    @contextmanager
    def _as_cvat(self) -> Iterator[None]:
        """Turns what a surprising answer leads to into a sentence."""
        try:
            yield
        except (LookupError, TypeError, AttributeError, ValueError):
            raise no_cvat(self.host) from None

    def _get(self, path: str, away: Collection[int] = AWAY) -> Any:
        return _parsed(self._patiently(lambda: self._call("GET", path), away))

    def _patiently(self, call: Callable[[], T], away: Collection[int] = AWAY) -> T:
        """Waits for a CVAT that is restarting; nothing is changed by what is asked here."""
        patience = Patience(self._pace)
        while True:
            try:
                return call()
            except HttpFailure as failure:
                # A host that never answered is a wrong one rather than one that restarts.
                passes = self._answered if failure.status is None else failure.status in away
                if not passes or not patience.waits(failure, least=failure.retry_after):
                    raise

    def _annotations(self, job: int) -> Iterator[tuple[str, Wire]]:
        path = f"/api/jobs/{job}/annotations/"
        response = self._open("GET", path, stream=True)
        try:
            if response.status != 200:
                raise self._failure("GET", path, response, response.read())
            events: list[tuple[str, Wire]] = []
            parsers = [
                ijson.items_coro(_collector(events, where), f"{where}.item", use_float=True)
                for where in ("shapes", "tracks")
            ]
            for chunk in response.stream(CHUNK):
                for parser in parsers:
                    parser.send(chunk)
                yield from events
                events.clear()
            for parser in parsers:
                parser.close()
            yield from events
        except urllib3.exceptions.HTTPError as error:
            raise HttpFailure(
                None, "", f"{self.host} broke off its answer: {_reason(error)}. [GET {path}]"
            ) from error
        except ijson.JSONError:
            raise HttpFailure(
                None, "", f"{self.host} did not answer in JSON. [GET {path}]"
            ) from None
        finally:
            response.release_conn()
            response.close()

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, Any]] = (),
        body: Wire | None = None,
    ) -> bytes:
        response = self._open(method, path, query=query, body=body)
        data = bytes(response.data)
        if response.status != 200:
            raise self._failure(method, path, response, data)
        return data

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, Any]] = (),
        body: Wire | None = None,
        stream: bool = False,
    ) -> Any:
        began = time.monotonic()
        try:
            _, response = self._client.api_client.call_api(
                path,
                method,
                query_params=list(query),
                body=body,
                _request_timeout=self._timeout,
                _check_status=False,
                _parse_response=not stream,
            )
        except urllib3.exceptions.HTTPError as error:
            logger.debug("%s %s: no answer (%s)", method, path, _reason(error))
            raise HttpFailure(None, "", f"{self.host} did not answer: {_reason(error)}.") from error
        self._answered = True
        logger.debug(
            "%s %s: %d after %.3f s", method, path, response.status, time.monotonic() - began
        )
        return response

    def _failure(self, method: str, path: str, response: Any, data: bytes) -> HttpFailure:
        text = data.decode("utf-8", "replace")
        logger.debug("%s %s: %s", method, path, text[:200])
        status = response.status
        return HttpFailure(
            status,
            text,
            f"{_explain(status, text)} [{method} {path}]",
            retry_after=_seconds(response.headers.get("Retry-After")),
        )


def _seconds(retry_after: str | None) -> float:
    """The header can also be a date; then nothing is known."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0


def _as_it_is(content: Any, **_: Any) -> Any:
    return content


def _collector(events: list[tuple[str, Wire]], where: str) -> Any:
    class Collector:
        def send(self, value: Wire) -> None:
            events.append((where, value))

        def close(self) -> None:
            pass

        def throw(self, *_: Any) -> None:
            pass

    return Collector()


def no_cvat(host: str) -> HttpFailure:
    """The sentence for a server that answers in JSON and is something else."""
    return HttpFailure(
        None, "", f"{host} answers in JSON, but not as CVAT does; is this really a CVAT server?"
    )


def stored_ids(answer: Wire, where: str, count: int) -> list[int]:
    """The ids that CVAT gave to what it created, in order.

    where: `shapes` or `tracks`. Raises HttpFailure without a status, as after a lost answer, where
    not all are named: what the job holds must be looked at again.
    """
    stored = answer.get(where)
    objects = [o for o in stored if isinstance(o, dict)] if isinstance(stored, list) else []
    ids = [o["id"] for o in objects if isinstance(o.get("id"), int)]
    if len(ids) != count:
        raise HttpFailure(None, "", "CVAT did not name the ids of all that it stored.")
    return ids


def choose_function(server: Server, wanted: str | None) -> Function:
    """The named function, or the only usable tracker, or ours among several."""
    listed = server.functions()
    usable = [f for f in listed if why_unusable(f) is None]
    if wanted is not None:
        for f in listed:
            if f.id == wanted:
                reason = why_unusable(f)
                if reason:
                    raise ActionError(f"Function {wanted} cannot be used: {reason}.")
                return f
        known = ", ".join(f.id for f in usable) or "none"
        raise ActionError(f"{server.host} has no function {wanted!r}. Its trackers: {known}.")
    for f in usable:
        if f.id == OURS or len(usable) == 1:
            return f
    if not usable:
        raise ActionError(
            f"{server.host} has no tracker that can be used; deploy one, and see `functions`."
        )
    raise ActionError(
        f"Several trackers can be used: {', '.join(f.id for f in usable)}. Choose one with "
        "--function."
    )


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
    return ": " + said[:300].rstrip(".")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise HttpFailure(
            None, "", "The server did not answer in JSON; is this really a CVAT server?"
        ) from None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return re.sub(r"<[^>]*>(: )?", "", str(cause)).strip(". ") or type(cause).__name__
