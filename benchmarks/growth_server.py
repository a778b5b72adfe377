# SPDX-License-Identifier: MIT
"""A stand-in for CVAT with one long job and a function that moves every object by a pixel.

    python -m benchmarks.growth_server FRAMES OBJECTS        prints its URL

Shapes are kept as the bytes that are sent, so that it answers for half a million of them.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cvat_action.server import OURS

WIDTH, HEIGHT = 640, 480
ROWS = 100
"""of a mask: two runs each"""


def mask(x: int) -> list[int]:
    """A triangle of ROWS rows whose left side is at `x`; runs, then left, top, right, bottom."""
    runs = [0]
    for row in range(ROWS - 1):
        runs += [row + 1, ROWS - 1 - row]
    return [*runs, ROWS, x, 40, x + ROWS - 1, 40 + ROWS - 1]


def points_at(kind: str, number: int, frame: int) -> list[float]:
    """Where an object is on a frame: it goes to and fro."""
    x = 10 + number % 7 + abs(frame % 800 - 400)
    if kind == "mask":
        return [float(p) for p in mask(x)]
    y = 10.0 + 4 * number
    if kind == "rectangle":
        return [float(x), y, x + 40.0, y + 30]
    ring = ((0, 8), (6, 2), (14, 0), (26, 3), (33, 11), (30, 22), (19, 28), (5, 21))
    return [value for dx, dy in ring for value in (float(x + dx), y + dy)]


def kind_of(number: int) -> str:
    return {8: "rectangle", 9: "polygon"}.get(number % 10, "mask")


class Job:
    def __init__(self, frames: int, objects: int) -> None:
        self.frames = frames
        self.held: dict[str, dict[int, bytes]] = {"shapes": {}, "tracks": {}}
        self._last = 0
        for number in range(objects):
            kind = kind_of(number)
            self.store("shapes", {
                "type": kind, "frame": 0, "points": points_at(kind, number, 0), "label_id": 1,
                "group": number + 1, "source": "manual", "occluded": False, "outside": False,
                "z_order": 0, "rotation": 0.0, "attributes": [], "elements": [], "score": 1.0,
            })  # fmt: skip

    def store(self, where: str, content: dict[str, Any]) -> dict[str, Any]:
        if content.get("id") is None:
            self._last += 1
            content["id"] = self._last
        self.held[where][content["id"]] = json.dumps(content).encode()
        return content

    def patch(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        for where in ("shapes", "tracks"):
            for content in body.get(where, ()):
                if action == "delete":
                    self.held[where].pop(content["id"], None)
                else:
                    self.store(where, content)
        return body

    def function(self, body: dict[str, Any]) -> dict[str, Any]:
        """A state is the type and the number of its object."""
        frame = body["frame"]
        if body.get("states"):
            named = [state.split(":") for state in body["states"]]
            shapes = [{"type": k, "points": points_at(k, int(n), frame)} for k, n in named]
            states = body["states"]
        else:
            shapes = body["shapes"]
            states = [f"{s['type']}:{number}" for number, s in enumerate(shapes)]
        count = len(states)
        return {
            "shapes": shapes,
            "states": states,
            "scores": [0.9] * count,
            "errors": [None] * count,
        }

    def answer(self, method: str, path: str, query: dict[str, Any], body: Any) -> Any:
        last = self.frames - 1
        if method == "POST":
            return self.function(body)
        if method == "PATCH":
            return self.patch(query["action"][0], body)
        if path.endswith("/lambda/functions"):
            types = ["mask", "polygon", "rectangle"]
            return [{"id": OURS, "name": "", "kind": "tracker", "supported_shape_types": types}]
        if re.search(r"/jobs/1/?$", path):
            return {"id": 1, "task_id": 1, "start_frame": 0, "stop_frame": last}
        if path.endswith("/data/meta"):
            return {"frames": [{"width": WIDTH, "height": HEIGHT}], "deleted_frames": []}
        if path.endswith("/labels"):
            return {"results": [{"id": 1, "name": "thing", "attributes": []}], "next": None}
        return {"version": "2.73.0"}


def handler(job: Job) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def respond(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "GET" and parts.path.endswith("/annotations/"):
                shapes, tracks = (b",".join(job.held[name].values()) for name in job.held)
                return self._send([b'{"shapes":[', shapes, b'],"tracks":[', tracks, b"]}"])
            body = json.loads(data) if data else None
            answer = job.answer(self.command, parts.path, parse_qs(parts.query), body)
            return self._send([json.dumps(answer).encode()])

        do_GET = do_POST = do_PATCH = respond  # noqa: N815

        def _send(self, parts: list[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(sum(map(len, parts))))
            self.end_headers()
            for part in parts:
                self.wfile.write(part)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def main() -> None:
    job = Job(*map(int, sys.argv[1:]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(job))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
