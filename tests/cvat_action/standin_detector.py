# SPDX-License-Identifier: MIT
"""What CVAT does with detectors and interactors, and such a function over real HTTP.

By CVAT 2.73's `lambda_manager/views.py`: labels are mapped, boxes and polygons become shapes of the
job's labels without their confidence, and an answer that is not as it should be is an error of the
server.
"""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

from local_server import JsonServer
from PIL import Image


def label_mapping(
    asked: dict[str, Any], theirs: list[dict[str, Any]], ours: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Name of the detector's label to a label of the job; what is asked for has to be there."""
    by_name = {label["name"]: label for label in ours}
    known = {label["name"] for label in theirs}
    if not asked:
        return {name: by_name[name] for name in known if name in by_name}
    assert asked.keys() <= known
    return {name: by_name[item["name"]] for name, item in asked.items()}


def detections_to_shapes(
    answer: Any, frame: int, mapping: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Raises KeyError, TypeError or ValueError where CVAT breaks on the answer."""
    found: dict[str, Any] = {"tags": [], "shapes": []}
    for each in answer:
        if each["label"] not in mapping:
            continue
        label = mapping[each["label"]]
        specs = {a["name"]: a["id"] for a in label["attributes"]}
        attributes = [
            {"spec_id": specs[a["name"]], "value": a["value"]}
            for a in each.get("attributes", [])
            if a["name"] in specs
        ]
        common = {
            "frame": frame, "label_id": label["id"], "source": "auto", "attributes": attributes,
            "group": each.get("group_id"),
        }  # fmt: skip
        found["shapes"].append(
            {
                **common, "type": each["type"], "points": [float(p) for p in each["points"]],
                "occluded": False, "outside": False, "z_order": 0,
                "rotation": each.get("rotation", 0), "elements": [],
            }
        )  # fmt: skip
    json.dumps(found, allow_nan=False)
    return found


def _first_pixel(picture: bytes) -> int:
    return int(Image.open(io.BytesIO(picture)).getpixel((0, 0)))  # type: ignore[arg-type]


class ScriptedDetector(JsonServer):
    """A function over HTTP."""

    def __init__(self) -> None:
        self.on_frame: dict[int, Any] = {}
        """what it answers; nothing is found on other frames"""
        self.frame_of: Callable[[bytes], int] = _first_pixel
        """from an encoded picture"""
        self.asked: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        """the requests, without their images"""
        super().__init__()

    def answer(self, request: dict[str, Any]) -> tuple[int, Any]:
        frame = self.frame_of(base64.b64decode(request.pop("image")))
        self.asked.append(frame)
        self.bodies.append(request)
        return 200, self.on_frame.get(frame, [])
