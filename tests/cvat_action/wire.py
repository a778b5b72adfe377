# SPDX-License-Identifier: MIT
"""Shapes and tracks as CVAT sends them."""

from typing import Any

from scripted_function import HEIGHT, WIDTH

from cvat_action.signature import sign


def mask_at(left: int, top: int = 20) -> list[int]:
    """1110 over 1111."""
    return [0, 3, 1, 4, left, top, left + 3, top + 1]


MASK = mask_at(4)
POLYGON = [4.0, 2.0, 10.0, 2.0, 10.0, 6.0, 4.0, 6.0]
RECTANGLE = [4.0, 30.0, 12.0, 38.0]
FLAGS = {"outside": False, "occluded": False, "z_order": 0, "rotation": 0.0}


def shape(kind: str, points: list[float], **more: Any) -> dict[str, Any]:
    common = {"frame": 10, "label_id": 7, "group": 0, "source": "manual", "elements": []}
    return {"type": kind, "points": points, **common, **FLAGS, "attributes": [], **more}


def keyframe(frame: int, points: list[float], **more: Any) -> dict[str, Any]:
    kind = "rectangle" if len(points) == 4 else "polygon"
    return {"type": kind, "frame": frame, "points": points, **FLAGS, "attributes": [], **more}


def automatic(
    frame: int, points: list[float], size: tuple[int, int] = (WIDTH, HEIGHT), **more: Any
) -> dict[str, Any]:
    """A keyframe as an earlier run wrote it: signed."""
    k = keyframe(frame, points, **more)
    flags = {name: k[name] for name in ("outside", "occluded", "z_order")}
    return {**k, "points": sign(k["type"], points, frame, width=size[0], height=size[1], **flags)}


def track(*keyframes: dict[str, Any], **more: Any) -> dict[str, Any]:
    common = {"label_id": 7, "group": 0, "source": "manual", "attributes": [], "elements": []}
    return {**common, "frame": keyframes[0]["frame"], "shapes": list(keyframes), **more}


def shifted(points: list[float], by: float) -> list[float]:
    """A polygon or rectangle, `by` pixels to the right, as the scripted function moves it."""
    return [p + by if i % 2 == 0 else p for i, p in enumerate(points)]
