# SPDX-License-Identifier: MIT
"""What a detector found on a frame: read from its answer, checked, matched with what is there."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from cvat_sdk.masks import decode_mask
from numpy.typing import NDArray

from cvat_action.errors import ActionError
from cvat_action.geometry import (
    TRACKABLE,
    bitmaps_iou,
    bounding_box,
    boxes_iou,
    points_fault,
    points_in_image,
    points_to_bitmap,
    size_fault,
)
from cvat_action.job import Job, Wire

SAME = 0.5
"""IoU from which on two outlines on one frame are the same object"""


@dataclass(frozen=True)
class Detection:
    label_id: int
    type: str
    """`mask`, `polygon` or `rectangle`"""
    points: Sequence[float]
    """as CVAT has them, inside the image"""
    score: float | None = None
    """0 to 1, if the detector says how sure it is"""
    attributes: tuple[Wire, ...] = ()


class Outline:
    """An object's place on a frame, to measure overlaps."""

    def __init__(self, shape_type: str, points: Sequence[float], name: str = "") -> None:
        """name: what messages call it."""
        self.shape_type = shape_type
        self.name = name
        self._points = points
        self.box = bounding_box(shape_type, points)

    def iou(self, other: "Outline") -> float:
        """Of the pixels; where one of the two is a rectangle, of the boxes."""
        boxes = float(boxes_iou([self.box], [other.box])[0, 0])
        if boxes == 0 or "rectangle" in (self.shape_type, other.shape_type):
            return boxes
        left, top = (min(self._corner[i], other._corner[i]) for i in (0, 1))
        right, bottom = (max(self._end[i], other._end[i]) for i in (0, 1))
        both = np.zeros((2, bottom - top, right - left), dtype=bool)
        for bitmap, each in zip(both, (self, other), strict=True):
            x, y = each._corner[0] - left, each._corner[1] - top
            height, width = each._bitmap.shape
            bitmap[y : y + height, x : x + width] = each._bitmap
        return bitmaps_iou(both[0], both[1])

    @cached_property
    def _corner(self) -> tuple[int, int]:
        return int(np.floor(self.box[0])), int(np.floor(self.box[1]))

    @cached_property
    def _end(self) -> tuple[int, int]:
        return int(np.ceil(self.box[2])), int(np.ceil(self.box[3]))

    @cached_property
    def _bitmap(self) -> NDArray[np.bool_]:
        """The pixels of the box, (height, width)."""
        (left, top), (right, bottom) = self._corner, self._end
        width, height = right - left, bottom - top
        if self.shape_type == "mask":
            runs = [int(p) for p in self._points[:-4]]
            return decode_mask(
                [*runs, 0, 0, width - 1, height - 1], image_width=width, image_height=height
            )
        moved = [p - (left, top)[i % 2] for i, p in enumerate(self._points)]
        return points_to_bitmap(self.shape_type, moved, width, height)


def new_ones(
    found: Sequence[Detection], there: Sequence[Outline], most: int
) -> tuple[list[Detection], int]:
    """The detections that overlap neither what is there nor each other, the surest first.

    most: of them; the number tells how many more were new.
    """
    taken = list(there)
    new: list[Detection] = []
    left = 0
    for d in sorted(found, key=lambda d: -1.0 if d.score is None else d.score, reverse=True):
        outline = Outline(d.type, d.points)
        near = boxes_iou([outline.box], [each.box for each in taken])[0] > 0
        if any(outline.iou(taken[i]) >= SAME for i in np.flatnonzero(near)):
            continue
        if len(new) < most:
            new.append(d)
            taken.append(outline)
        else:
            left += 1
    return new, left


class Reader:
    """Turns entries of a detector's answer into detections, and counts those that are no use."""

    def __init__(self, job: Job, frame: int, supported: Collection[str] = TRACKABLE) -> None:
        self._job = job
        self._size = job.size(frame)
        self._labels = {label.id for label in job.labels}
        self._supported = supported
        self._left_out: Counter[str] = Counter()

    def read(
        self, answer: Any, *, label_id: int | None = None, says_score: bool = False
    ) -> list[Detection]:
        """answer: `{"shapes": [...]}`, as CVAT hands on what a detector or an interactor found.

        label_id: of all of them, where the function knows no labels. says_score: the first
        attribute is the confidence. Raises ActionError where it is no such answer.
        """
        shapes = answer.get("shapes") if isinstance(answer, dict) else None
        if not isinstance(shapes, list):
            raise ActionError("its answer has no list of shapes, which every detector's has")
        read = (self._shape(each, label_id, says_score) for each in shapes)
        return [each for each in read if each is not None]

    @property
    def left_out(self) -> str:
        """What was left out and why, as the end of a sentence; empty: nothing."""
        return ", ".join(
            f"{why} ({n} times)" if n > 1 else why for why, n in self._left_out.most_common()
        )

    def _shape(self, shape: Any, label_id: int | None, says_score: bool) -> Detection | None:
        if not isinstance(shape, dict):
            return self._leave_out("what is no shape")
        label = shape.get("label_id") if label_id is None else label_id
        if type(label) is not int or label not in self._labels:
            return self._leave_out("a label that the job does not have")
        attributes = _attributes(shape)
        score = None
        if says_score:
            score, attributes = _score(attributes), ()
        return self.shape(
            label, shape.get("type"), shape.get("points"), score, attributes, shape.get("rotation")
        )

    def shape(
        self,
        label_id: int,
        shape_type: Any,
        points: Any,
        score: float | None,
        attributes: tuple[Wire, ...] = (),
        rotation: Any = 0,
    ) -> Detection | None:
        """A detection, inside the image; None where it is no use."""
        if shape_type not in TRACKABLE:
            return self._leave_out(f"type {str(shape_type)[:40]}")
        if shape_type not in self._supported:
            return self._leave_out(f"type {shape_type}, which the tracker does not take")
        if rotation:
            return self._leave_out("a rotated box")
        if shape_type == "rectangle" and isinstance(points, list) and len(points) == 4:
            points = _upright(points)
        fault = points_fault(shape_type, points, *self._size)
        if not fault:
            points = points_in_image(shape_type, points, *self._size)
            fault = size_fault(shape_type, points)
        if fault:
            return self._leave_out(fault)
        return Detection(label_id, shape_type, tuple(points), score, attributes)

    def _leave_out(self, why: str) -> Detection | None:
        self._left_out[why] += 1
        return None


def _upright(points: list[Any]) -> list[Any]:
    """Corners in CVAT's order; what is no number is found later."""
    if not all(type(p) in (int, float) for p in points):
        return points
    left, top, right, bottom = points
    return [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]


def _attributes(shape: Wire) -> tuple[Wire, ...]:
    attributes = shape.get("attributes")
    return tuple(
        {"spec_id": a["spec_id"], "value": a["value"]}
        for a in (attributes if isinstance(attributes, list) else ())
        if isinstance(a, dict) and type(a.get("spec_id")) is int and isinstance(a.get("value"), str)
    )


def _score(attributes: Sequence[Wire]) -> float | None:
    """The confidence that an interactor gives as an attribute, 0 to 1."""
    try:
        score = float(attributes[0]["value"])
    except (IndexError, ValueError):
        return None
    return score if 0 <= score <= 1 else None
