# SPDX-License-Identifier: MIT
"""The wire format of CVAT's interactors (docs/interactor.md): clicks to Python, masks to JSON."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sam2_tracker.clicks import MAX_CLICKS, Clicks, read_clicks
from sam2_tracker.errors import BadRequest, TooLarge, failing_objects
from sam2_tracker.everything import Everything, words_to_everything
from sam2_tracker.protocol import read_body, read_image
from sam2_tracker.shapes import (
    Box,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    mask_to_bitmap,
    rectangle_to_box,
)

FIRST_WITH_SHAPES = (2, 60)
"""Older CVATs take one mask as rows of pixels, and no confidence."""
CVAT = re.compile(r"\bCVAT/(\d{1,9})\.(\d{1,9})")


@dataclass(frozen=True, kw_only=True)
class ClickRequest:
    """What was clicked; its points are not checked yet."""

    image: bytes
    """One encoded image file."""
    positive: list[Any] = field(default_factory=list)
    negative: list[Any] = field(default_factory=list)
    boxes: tuple[list[Any], ...] = ()
    """[left, top, right, bottom] each."""
    everything: Everything | None = None
    """Look for all objects; then there are no clicks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The object that was clicked on."""

    mask: list[int]
    """As `bitmap_to_mask` encodes it, for a hundred bitmaps of a large image are gigabytes; empty:
    no pixel."""
    confidence: float
    """0..1: the IoU that the model predicts of the mask."""


def body_to_clicks(body: object, *, max_objects: int) -> ClickRequest:
    """Reads a request's body: a decoded JSON object, or its bytes or text.

    Raises BadRequest, and TooLarge for more than `max_objects` boxes.
    """
    content = read_body(body, "image, pos_points and neg_points")
    words = content.get("text_prompts")
    everything = words_to_everything(words) if words else None
    positive, negative = (_points(content, name) for name in ("pos_points", "neg_points"))
    corners = _points(content, "obj_bbox")
    if len(corners) % 2:
        raise BadRequest("A box in obj_bbox has two points: left top and right bottom.")
    boxes = tuple([*a, *b] for a, b in zip(corners[::2], corners[1::2], strict=True))
    if len(boxes) > max_objects:
        raise TooLarge(f"{len(boxes)} boxes in one request; the limit is {max_objects}.")
    clicks = len(positive) + len(negative)
    if clicks > MAX_CLICKS:
        raise BadRequest(f"{clicks} clicks in one request; the limit is {MAX_CLICKS}.")
    if everything and (clicks or boxes):
        raise BadRequest("Everything is looked for without clicks and boxes.")
    if not positive and not boxes and not everything:
        raise BadRequest("Click on the object at least once, or draw a box around it.")
    return ClickRequest(
        image=read_image(content),
        positive=positive,
        negative=negative,
        boxes=boxes,
        everything=everything,
    )


def request_to_objects(request: ClickRequest, *, width: int, height: int) -> list[Clicks]:
    """The clicks of each object: one object, or one per box.

    Of several boxes a click belongs to the nearest one, of equally near ones to the smallest.
    width, height: of the image. Raises AllObjectsFailed, with the index of the bad box, or with all
    indexes where a click is bad.
    """
    size = {"width": width, "height": height}
    if len(request.boxes) < 2:
        box = next(iter(request.boxes), None)
        with failing_objects([0]):
            return [read_clicks(request.positive, request.negative, box, **size)]
    boxes: list[Box] = []
    for index, corners in enumerate(request.boxes):
        with failing_objects([index]):
            boxes.append(rectangle_to_box(corners, **size))
    clicks: list[tuple[list[Any], list[Any]]] = [([], []) for _ in boxes]
    with failing_objects(range(len(boxes))):
        checked = read_clicks(request.positive, request.negative, request.boxes[0], **size)
    for point, positive in zip(checked.points, checked.positive, strict=True):
        nearest = min(range(len(boxes)), key=lambda index: _distance(point, boxes[index]))
        clicks[nearest][not positive].append(list(point))
    return [
        read_clicks(positive, negative, box, **size)
        for (positive, negative), box in zip(clicks, request.boxes, strict=True)
    ]


def takes_shapes(user_agent: str | None) -> bool:
    """Whether the CVAT that asks takes shapes; one that does not say its version counts as new."""
    found = CVAT.search(user_agent or "")
    return found is None or (int(found[1]), int(found[2])) >= FIRST_WITH_SHAPES


def found_to_json(found: Sequence[Found], message: str = "", *, boxes: int = 0) -> str:
    """The answer for CVAT 2.60 and later. What has no pixel is left out.

    message: for the person who asked; CVAT hands it on. boxes: that were asked for; with several,
    each shape says in which of them it was found.
    """
    shapes = [
        {
            "type": "mask",
            "points": each.mask,
            # CVAT reads a confidence from the attribute with this number.
            "attributes": [{"spec_id": 0, "value": f"{each.confidence:.4f}"}],
            **({"box": index} if boxes > 1 else {}),
        }
        for index, each in enumerate(found)
        if each.mask
    ]
    content = {"shapes": shapes} | ({"message": message} if message else {})
    return json.dumps(content, separators=(",", ":"))


def found_to_old_json(found: Sequence[Found], *, tolerance: float) -> str:
    """The answer for CVAT 2.40 to 2.59: one mask, cut to its box, and its polygon.

    Several objects become one mask. tolerance: of the polygon, as in `bitmap_to_polygon`.
    """
    masks = [each.mask for each in found if each.mask]
    content: dict[str, Any] = {"mask": [[0]], "points": [], "bounds": [0, 0, 0, 0]}
    if masks:
        width, height = (max(mask[end] for mask in masks) + 1 for end in (-2, -1))
        bitmap = np.zeros((height, width), np.bool_)
        for mask in masks:
            bitmap |= mask_to_bitmap(mask, width=width, height=height)
        left, top, right, bottom = bitmap_to_rectangle(bitmap)
        flat = bitmap_to_polygon(bitmap, tolerance=tolerance)
        content = {
            "mask": bitmap[top:bottom, left:right].astype(int).tolist(),
            "points": [list(point) for point in zip(flat[::2], flat[1::2], strict=True)],
            "bounds": [left, top, right - 1, bottom - 1],
        }
    return json.dumps(content, separators=(",", ":"))


def _points(content: dict[Any, Any], name: str) -> list[Any]:
    points = content.get(name)
    if points is None:
        return []
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise BadRequest(f"{name} must be a list of points, each with two numbers.")
    return points


def _distance(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """How far a point lies from a box, 0 inside; and the box's area."""
    (x, y), (left, top, right, bottom) = point, box
    away = math.hypot(max(left - x, 0.0, x - right), max(top - y, 0.0, y - bottom))
    return away, (right - left) * (bottom - top)
