# SPDX-License-Identifier: MIT
"""A function over real HTTP that answers what can be worked out in the head.

Every object moves one pixel to the right per call. Objects are told apart by their topmost y, which
never changes; a frame's number is the value of its first pixel.
"""

import base64
import io
import time
from collections.abc import Callable
from typing import Any

from local_server import JsonServer
from PIL import Image

WIDTH, HEIGHT = 64, 48
STATUS_OF = {"state_gone": 410, "model_failure": 500, "internal": 500}
"""of an error; 400 for all others (sam2_tracker/errors.py)"""


def frame_picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, number).save(file, "PNG")
    return file.getvalue()


def object_at(shape: dict[str, Any]) -> int:
    points = shape["points"]
    return int(points[-3] if shape["type"] == "mask" else min(points[1::2]))


def moved(shape: dict[str, Any], by: int = 1) -> dict[str, Any]:
    points = list(shape["points"])
    if shape["type"] == "mask":
        points[-4] += by
        points[-2] += by
    else:
        points[0::2] = [x + by for x in points[0::2]]
    return {"type": shape["type"], "points": points}


class ScriptedFunction(JsonServer):
    def __init__(self) -> None:
        self.lost: set[tuple[int, int]] = set()
        """(object, frame): not visible there"""
        self.errors: dict[tuple[int, int], list[dict[str, str]]] = {}
        """(object, frame): what goes wrong, once each"""
        self.answers: dict[tuple[int, int], Any] = {}
        """(object, frame): this shape instead"""
        self.scores: dict[tuple[int, int], float] = {}
        self.meanwhile: dict[int, Callable[[], object]] = {}
        """what happens when it is asked for a frame, once each"""
        self.refuse: Callable[[int, int], int | None] = lambda frame, count: None
        """(frame, number of objects) to a status instead of an answer"""
        self.seconds: Callable[[int, int], float] = lambda frame, count: 0.0
        self.bodies: list[dict[str, Any]] = []
        """the requests, in order, without their images"""
        self.calls: list[tuple[str, int, list[int]]] = []
        """start, step or correct, frame, objects"""
        super().__init__()

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        picture = Image.open(io.BytesIO(base64.b64decode(request["image"])))
        frame = int(picture.getpixel((0, 0)))  # type: ignore[arg-type]
        shapes, states = request["shapes"], request["states"]
        self.bodies.append({"shapes": shapes, "states": states})
        count = max(len(shapes), len(states))
        self.meanwhile.pop(frame, lambda: None)()
        status = self.refuse(frame, count)
        time.sleep(self.seconds(frame, count))
        if status:
            return status, {"error": {"code": "scripted", "message": "", "indexes": []}}
        columns: dict[str, list[Any]] = {"shapes": [], "states": [], "scores": [], "errors": []}
        seen = []
        for i in range(count):
            drawn = not states or bool(shapes[i] and "correction" in shapes[i])
            shape = (
                {key: shapes[i][key] for key in ("type", "points")} if drawn else moved(states[i])
            )
            name = object_at(shape)
            seen.append(name)
            wrong = self.errors.get((name, frame))
            answered = self.answers.get((name, frame), shape)
            if wrong:
                columns["errors"].append(wrong.pop(0))
                columns["shapes"].append(None)
                columns["states"].append(None)
            else:
                columns["errors"].append(None)
                gone = (name, frame) in self.lost
                outside = {**shape, "outside": True} if shape["type"] == "rectangle" else None
                columns["shapes"].append(outside if gone else answered)
                columns["states"].append(shape)
            columns["scores"].append(self.scores.get((name, frame), 0.9))
        first = columns["errors"][0]
        if all(columns["errors"]):  # as the real one: the status of the first error
            error = {**first, "indexes": list(range(count))}
            return STATUS_OF.get(first["code"], 400), {"error": error}
        corrects = states and any(shape and "correction" in shape for shape in shapes)
        self.calls.append(("correct" if corrects else "step" if states else "start", frame, seen))
        return 200, columns
