# SPDX-License-Identifier: MIT
"""A stand-in for CVAT's REST API over real HTTP, as CVAT 2.73 behaves.

It reads frames, calls a real function by HTTP, signs and checks states as CVAT does, and
validates what is written as CVAT does: strictly where CVAT is strict, and not at all where it is
not, so that a mask track can be written here too.
"""

import base64
import json
import re
import socket
import struct
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.core.signing import BadSignature, TimestampSigner
from local_server import LocalServer
from standin_detector import detections_to_shapes, label_mapping

STATE_SECONDS = 8 * 3600
SHAPE_TYPES = (
    "rectangle", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton",
)  # fmt: skip
SOURCES = ("auto", "semi-auto", "manual", "file", "consensus")
POINTS_NEEDED = {"polygon": 6, "polyline": 4, "points": 2, "mask": 5}
POINTS_EXACT = {"rectangle": 4, "ellipse": 4, "cuboid": 16}


@dataclass
class StandinJob:
    """Frame numbers of a job count after the task's start frame and frame step."""

    source: list[bytes]
    """encoded pictures of the source video, before start frame and step"""
    sizes: list[tuple[int, int]]
    """(width, height) of each job frame, or of all"""
    labels: list[dict[str, Any]]
    id: int = 42
    task_id: int = 7
    start_frame: int = 0
    stop_frame: int = 0
    source_start: int = 0
    frame_step: int = 1
    deleted_frames: list[int] = field(default_factory=list)
    dimension: str = "2d"
    media_type: str = "video"
    type: str = "annotation"
    validation_mode: str | None = None
    shapes: list[dict[str, Any]] = field(default_factory=list)
    tracks: list[dict[str, Any]] = field(default_factory=list)
    page_pictures: list[bytes] | None = None
    """what the page shows, by frame, where it is another picture (of half the size, say)"""

    def picture(self, frame: int) -> bytes:
        return self.source[self.source_start + frame * self.frame_step]


@dataclass
class StandinFunction:
    url: str | None
    """None: Nuclio has no port for it (it is being built)"""
    id: str = "pth-facebookresearch-sam2-tracker"
    kind: str = "tracker"
    shape_types: tuple[str, ...] = ("mask", "polygon", "rectangle")
    name: str = "Segment Anything 2: Tracker"
    labels: tuple[dict[str, Any], ...] = ()
    """of a detector"""
    description: str = ""


@dataclass
class Fault:
    """What happens instead of the next `times` requests that match."""

    method: str
    path: str
    """regular expression"""
    status: int = 500
    body: str = ""
    times: int = 1
    skip: int = 0
    """let this many pass first"""
    hold: threading.Event | None = None
    """it is answered when this is set"""
    reached: threading.Event = field(default_factory=threading.Event)
    """set by the first request that matches"""
    drop: bool = False
    """close the connection without an answer"""
    after: bool = False
    """the request is carried out before the fault"""
    retry_after: str | None = None
    """a header of the answer"""


class Refused(Exception):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class StandinCvat(LocalServer):
    refused_actions: frozenset[str] = frozenset()
    """of PATCH, that end with a 500"""

    def __init__(self) -> None:
        self.jobs: dict[int, StandinJob] = {}
        self.functions: dict[str, StandinFunction] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.users = {"annotator": "secret"}
        self.tokens = {"may-write": True, "read-only": False}
        self.version = "2.73.0"
        self.keeps_scores = True
        """False: a server before 2.56"""
        self.sessions: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.expired_on: set[int] = set()
        """frames on which the states that come next have expired"""
        self._next_id = 1000
        self._lock = threading.Lock()
        super().__init__(type("Handler", (_Handler,), {"cvat": self}))

    def add_job(self, job: StandinJob) -> StandinJob:
        for o in (*job.shapes, *job.tracks):
            self.give_ids(o)
        self.jobs[job.id] = job
        return job

    def give_ids(self, wire: dict[str, Any]) -> None:
        wire.setdefault("id", None)
        for o in (wire, *wire.get("shapes", ())):
            if o.get("id") is None:
                with self._lock:
                    self._next_id += 1
                    o["id"] = self._next_id

    def calls(self, method: str, path: str) -> list[Any]:
        """Bodies of the requests so far."""
        return [b for m, p, _, b in self.requests if m == method and re.fullmatch(path, p)]

    # --- the API ---------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        routes = (
            ("GET", r"/api/server/about", self._about),
            ("GET", r"/api/lambda/functions/?", self._list_functions),
            ("POST", r"/api/lambda/functions/([\w.-]+)/?", self._call_function),
            ("GET", "/api/jobs/?", self._jobs_of_task),
            ("GET", r"/api/jobs/(\d+)/?", self._job),
            ("GET", r"/api/jobs/(\d+)/data/meta/?", self._meta),
            ("GET", r"/api/jobs/(\d+)/data/?", self._data),
            ("GET", r"/api/labels/?", self._labels),
            ("GET", r"/api/tasks/(\d+)/?", self._task),
            ("GET", r"/api/jobs/(\d+)/annotations/", self._annotations),
            ("PATCH", r"/api/jobs/(\d+)/annotations/", self._patch),
        )
        for verb, pattern, respond in routes:
            match = re.fullmatch(pattern, path)
            if match and verb == method:
                return 200, respond(*match.groups(), query, body)
        raise Refused(404, {"detail": "Not found."})

    def _about(self, query: Any, body: Any) -> Any:
        name = "Computer Vision Annotation Tool"
        return {"name": name, "description": "", "version": self.version}

    def _job_of(self, number: str | int) -> StandinJob:
        if int(number) not in self.jobs:
            raise Refused(404, {"detail": "No Job matches the given query."})
        return self.jobs[int(number)]

    def _job(self, number: str, query: Any, body: Any) -> Any:
        job = self._job_of(number)
        return {
            "id": job.id, "task_id": job.task_id, "start_frame": job.start_frame,
            "stop_frame": job.stop_frame, "frame_count": job.stop_frame - job.start_frame + 1,
            "dimension": job.dimension, "media_type": job.media_type, "mode": "interpolation",
            "type": job.type, "state": "new",
        }  # fmt: skip

    def _jobs_of_task(self, query: Any, body: Any) -> Any:
        task = int(query["task_id"])
        found = [self._job(str(j.id), {}, None) for j in self.jobs.values() if j.task_id == task]
        return {"count": len(found), "next": None, "results": found}

    def _task(self, number: str, query: Any, body: Any) -> Any:
        for job in self.jobs.values():
            if job.task_id == int(number):
                return {"id": job.task_id, "validation_mode": job.validation_mode}
        raise Refused(404, {"detail": "No Task matches the given query."})

    def _meta(self, number: str, query: Any, body: Any) -> Any:
        job = self._job_of(number)
        first, last = (
            job.source_start + f * job.frame_step for f in (job.start_frame, job.stop_frame)
        )
        return {
            "chunk_size": 36, "size": job.stop_frame - job.start_frame + 1,
            "start_frame": first, "stop_frame": last,
            "frame_filter": f"step={job.frame_step}" if job.frame_step > 1 else "",
            "deleted_frames": job.deleted_frames, "included_frames": None,
            "frames": [{"width": w, "height": h, "name": ""} for w, h in job.sizes],
        }  # fmt: skip

    def _labels(self, query: Any, body: Any) -> Any:
        labels = self._job_of(query["job_id"]).labels
        size, page = int(query.get("page_size", 10)), int(query.get("page", 1))
        part = labels[(page - 1) * size : page * size]
        more = page * size < len(labels)
        return {"count": len(labels), "next": "http://x/?page" if more else None, "results": part}

    def _data(self, number: str, query: Any, body: Any) -> bytes:
        job = self._job_of(number)
        number = int(query["number"])
        if query.get("quality") == "compressed" and job.page_pictures:
            return job.page_pictures[number]
        return job.picture(number)

    def _list_functions(self, query: Any, body: Any) -> Any:
        return [
            {
                "id": f.id, "kind": f.kind, "labels_v2": list(f.labels), "name": f.name,
                "description": f.description, "version": 1,
                **({"supported_shape_types": list(f.shape_types)} if f.kind == "tracker" else {}),
            }
            for f in self.functions.values()
        ]  # fmt: skip

    def _annotations(self, number: str, query: Any, body: Any) -> Any:
        job = self._job_of(number)
        held = {"shapes": job.shapes, "tracks": job.tracks}
        return {"version": 1, "tags": [], "intervals": [], **held}

    # --- functions -------------------------------------------------------------------------

    def signer(self, function: str) -> TimestampSigner:
        salt = f"cvat-tracker-state:{function}"
        return TimestampSigner(key="the server's secret", salt=salt, fallback_keys=[])

    def _call_function(self, function_id: str, query: Any, body: Any) -> Any:
        if function_id not in self.functions:
            url = f"http://nuclio:8070/api/functions/{function_id}"
            raise Refused(404, f"404 Client Error: Not Found for url: {url}")
        function = self.functions[function_id]
        body = {k: v for k, v in body.items() if v is not None}
        if "job" not in body and "task" not in body:
            raise Refused(400, "`job` or `task` is required")
        if "frame" not in body or type(body["frame"]) is not int:
            raise Refused(400, "`frame` is required")
        job = self.jobs.get(body.get("job", -1))
        if job is None or body.get("task", job.task_id) != job.task_id:
            raise Refused(400, "Job not found")
        if not job.start_frame <= body["frame"] <= job.stop_frame:
            raise Refused(400, "The frame is outside the job range")
        if function.kind == "detector":
            return self._detect(function, job, body)
        if function.kind == "interactor":
            names = ("pos_points", "neg_points", "obj_bbox", "text_prompts", "threshold")
            asked = {name: body[name] for name in names if name in body}
            return self._invoke(function, _image(job, body) | asked)
        if "shapes" not in body and "states" not in body:
            raise Refused(400, "`shapes` or `states` is required")
        expired = body["frame"] in self.expired_on
        self.expired_on.discard(body["frame"])
        states = [self._unsign(function_id, s, expired) for s in body.get("states", [])]
        shapes = body.get("shapes", [None] * len(states))
        for shape in shapes:
            if shape is not None and shape["type"] not in function.shape_types:
                said = f"This function does not support shapes of type {shape['type']!r}"
                raise Refused(400, said)
        answer = self._invoke(function, _image(job, body) | {"shapes": shapes, "states": states})
        signer = self.signer(function_id)
        signed = [signer.sign(json.dumps(s, separators=(",", ":"))) for s in answer["states"]]
        return {**answer, "states": signed}

    def _detect(self, function: StandinFunction, job: StandinJob, body: Any) -> Any:
        mapping = label_mapping(body.get("mapping", {}), [*function.labels], job.labels)
        threshold = {"threshold": body["threshold"]} if body.get("threshold") else {}
        answer = self._invoke(function, _image(job, body) | threshold)
        try:
            return detections_to_shapes(answer, body["frame"], mapping)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Refused(500, None) from None

    def _unsign(self, function: str, state: str | None, expired: bool) -> Any:
        if state is None:
            return None
        try:
            text = self.signer(function).unsign(state, max_age=-1 if expired else STATE_SECONDS)
        except BadSignature:
            raise Refused(400, "Invalid or expired tracker state") from None
        return json.loads(text)

    def _invoke(self, function: StandinFunction, body: Any) -> Any:
        url = function.url
        if url is None:
            said = "Failed to parse: 'host.docker.internal:None', label empty or too long"
            raise Refused(500, said)
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), kind)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                data = response.read()
        except urllib.error.HTTPError as error:
            error.read()
            side = "Client" if error.code < 500 else "Server"
            said = f"{error.code} {side} Error: {error.reason} for url: {url}"
            raise Refused(error.code, said) from None
        return json.loads(data)

    # --- writing ---------------------------------------------------------------------------

    def _patch(self, number: str, query: Any, body: Any) -> Any:
        job = self._job_of(number)
        action = query.get("action")
        if action not in ("create", "update", "delete"):
            raise Refused(400, f"Please specify a correct 'action' for the request, not {action}")
        shapes, tracks = body.get("shapes", []), body.get("tracks", [])
        problems = [self._shape_problem(job, s) for s in shapes]
        problems += [self._track_problem(job, t) for t in tracks]
        if tracks and job.validation_mode == "gt_pool":
            raise Refused(400, ["Tracks are not supported when task validation mode is gt_pool"])
        for o in (*shapes, *tracks):
            has_id = o.get("id") is not None
            if action == "create" and has_id:
                problems.append("id must be absent")
            if action == "delete" and not has_id:
                problems.append("id is required")
        if any(problems):
            raise Refused(400, {"shapes": [p for p in problems if p]})
        gone = {o["id"] for o in (*shapes, *tracks) if o.get("id") is not None}
        if action in self.refused_actions or (
            action == "update" and any(t["id"] in gone and _is_broken(t) for t in job.tracks)
        ):
            raise Refused(500, None)
        stored_shapes = [_stored(s) for s in shapes]
        if not self.keeps_scores:
            stored_shapes = [{k: v for k, v in s.items() if k != "score"} for s in stored_shapes]
        stored_tracks = [_stored(t) for t in tracks]
        if action in ("update", "delete"):
            if shapes:
                job.shapes = [s for s in job.shapes if s["id"] not in gone]
            if tracks:
                job.tracks = [t for t in job.tracks if t["id"] not in gone]
        if action in ("create", "update"):
            for o in (*stored_shapes, *stored_tracks):
                for keyframe in o.get("shapes", ()):
                    keyframe["id"] = None
                self.give_ids(o)
            job.shapes = [*job.shapes, *stored_shapes]
            job.tracks = [*job.tracks, *stored_tracks]
        return {"version": 2, "tags": [], "shapes": stored_shapes, "tracks": stored_tracks}

    def _shape_problem(self, job: StandinJob, shape: Any, keyframe: bool = False) -> str | None:
        kind, points = shape.get("type"), shape.get("points", [])
        if kind not in SHAPE_TYPES:
            return f"{kind!r} is not a valid choice"
        if type(shape.get("frame")) is not int or shape["frame"] < 0:
            return "frame: a valid integer is required"
        if not all(isinstance(p, int | float) for p in points):
            return "points: a valid number is required"
        exact = POINTS_EXACT.get(kind)
        if (exact and len(points) != exact) or len(points) < POINTS_NEEDED.get(kind, 0):
            return f"points: wrong number of points for {kind}"
        if kind == "polygon" and len(points) % 2:
            return "points: there must be an even number of coordinates"
        if keyframe:
            return None
        return self._common_problem(job, shape, None)

    def _track_problem(self, job: StandinJob, track: Any) -> str | None:
        problem = self._common_problem(job, track, False)
        if type(track.get("frame")) is not int:
            return "frame: a valid integer is required"
        for k in track.get("shapes", []):
            problem = problem or self._shape_problem(job, k, keyframe=True)
            own = {**k, "label_id": track.get("label_id")}
            problem = problem or self._attribute_problem(job, own, True)
        return problem

    def _common_problem(self, job: StandinJob, o: Any, mutable: bool | None) -> str | None:
        if o.get("label_id") not in {label["id"] for label in job.labels}:
            return f"label_id: {o.get('label_id')} is not a label of the job"
        if o.get("source", "manual") not in SOURCES:
            return f"source: {o.get('source')!r} is not a valid choice"
        return self._attribute_problem(job, o, mutable)

    def _attribute_problem(self, job: StandinJob, o: Any, mutable: bool | None) -> str | None:
        label = next(x for x in job.labels if x["id"] == o["label_id"])
        wanted = (True, False) if mutable is None else (mutable,)
        allowed = {a["id"] for a in label["attributes"] if a["mutable"] in wanted}
        for a in o.get("attributes", []):
            if a["spec_id"] not in allowed or not isinstance(a["value"], str):
                return f"attributes: spec_id {a['spec_id']} is not allowed here"
        return None


def _image(job: StandinJob, body: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(job.picture(body["frame"])).decode()}


def _is_broken(track: dict[str, Any]) -> bool:
    """CVAT fails on every update of a track with two keyframes on one frame."""
    frames = [k["frame"] for k in track["shapes"]]
    return len(set(frames)) < len(frames)


def _stored(o: dict[str, Any]) -> dict[str, Any]:
    """As CVAT gives it back: points are floats, defaults are filled in."""
    o = json.loads(json.dumps(o))
    defaults = {"group": 0, "source": "manual", "attributes": [], "elements": []}
    own = {"occluded": False, "outside": False, "z_order": 0, "rotation": 0.0, "attributes": []}
    if "shapes" in o:
        o["shapes"] = [own | k | {"points": [float(p) for p in k["points"]]} for k in o["shapes"]]
        return defaults | o
    return defaults | own | {"score": 1.0} | o | {"points": [float(p) for p in o["points"]]}


class _Handler(BaseHTTPRequestHandler):
    cvat: StandinCvat
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms

    def respond(self) -> None:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(data) if data else None
        fault = self._fault(parts.path)
        if fault and not fault.after:
            return self._fail(fault)
        self.cvat.requests.append((self.command, parts.path, query, body))
        self.cvat.headers.append(dict(self.headers))
        try:
            if parts.path == "/api/auth/login":
                return self._log_in(body)
            self._authenticate()
            status, answer = self.cvat.answer(self.command, parts.path, query, body)
        except Refused as refused:
            status, answer = refused.status, refused.body
        if fault:
            return self._fail(fault)
        if answer is None:
            return self._send(status, b"<h1>Server Error (500)</h1>", "text/html")
        if isinstance(answer, bytes):
            return self._send(status, answer, "image/png")
        return self._send(status, json.dumps(answer).encode(), "application/vnd.cvat+json")

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = respond  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _fault(self, path: str) -> Fault | None:
        for fault in self.cvat.faults:
            if fault.times and fault.method == self.command and re.fullmatch(fault.path, path):
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                fault.reached.set()
                return fault
        return None

    def _fail(self, fault: Fault) -> None:
        if fault.hold:
            fault.hold.wait(200)
        if fault.drop:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return None
        headers = [("Retry-After", fault.retry_after)] if fault.retry_after else []
        return self._send(fault.status, fault.body.encode(), "text/html", *headers)

    def _log_in(self, body: Any) -> None:
        if self.cvat.users.get(body["username"]) != body["password"]:
            text = b'{"non_field_errors":["Unable to log in with provided credentials."]}'
            return self._send(400, text, "application/json")
        self.cvat.sessions.add("session-1")
        cookies = ("sessionid=session-1; Path=/", "csrftoken=csrf-1; Path=/")
        headers = (("Set-Cookie", cookie) for cookie in cookies)
        return self._send(200, b'{"key":"key-1"}', "application/json", *headers)

    def _authenticate(self) -> None:
        if self.path.startswith("/api/server/about"):
            return
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            if token not in self.cvat.tokens:
                raise Refused(401, {"detail": "Invalid token."})
            if self.command != "GET" and not self.cvat.tokens[token]:
                raise Refused(403, {"detail": "The token is read-only."})
            return
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        session = cookies["sessionid"].value if "sessionid" in cookies else None
        if session not in self.cvat.sessions:
            raise Refused(401, {"detail": "Authentication credentials were not provided."})
        if self.command != "GET" and self.headers.get("X-CSRFToken") != "csrf-1":
            raise Refused(403, {"detail": "CSRF Failed: CSRF token missing."})

    def _send(self, status: int, data: bytes, kind: str, *headers: tuple[str, str]) -> None:
        try:
            self.send_response(status)
            about = (("Content-Type", kind), ("Content-Length", str(len(data))))
            for name, value in (*about, *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the client went away
