# SPDX-License-Identifier: MIT
"""Objects of a run that lie on each other: a tracker may have taken one for the other.

Two things that look alike and cross often end as one: both objects then follow the same thing, and
the tracker is sure of both, so their confidence does not tell.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from cvat_action.geometry import bounding_box, boxes_iou
from cvat_action.seeds import Seed
from cvat_action.tracked import Tracked, TrackedObject
from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.shapes import Bitmap, mask_to_bitmap, polygon_to_bitmap

SAME_OUTLINE = 0.5
"""IoU of two outlines above which they are taken for those of one thing"""
SAME_BOX = 0.7
"""the same where one of the two is a rectangle: boxes of neighbours overlap more than outlines"""
DRAWN_SO = 0.2
"""drawings count as drawn on each other with so much less than these limits, because they may come
nearer while they are tracked"""
MOST_PIXELS = 1 << 26
"""an outline in a larger box is compared with none: a person may draw far outside of the picture"""
NEAR = 0.2
"""IoU of the boxes around two outlines from which on the outlines are compared"""

Shape = tuple[str, Sequence[float]]
"""type and points"""


class _Outline:
    """The pixels of a mask or polygon in the box around it."""

    def __init__(self, shape: Shape) -> None:
        shape_type, points = shape
        x0, y0, x1, y1 = bounding_box(*shape)
        self._left, self._top = math.floor(x0), math.floor(y0)
        self._right, self._bottom = math.ceil(x1), math.ceil(y1)
        width, height = self._right - self._left, self._bottom - self._top
        try:
            if width * height > MOST_PIXELS:
                raise BadShape("It is too large.")
            if shape_type == "mask":
                numbers = [*points[:-4], 0, 0, width - 1, height - 1]
                self._pixels = mask_to_bitmap(numbers, width=width, height=height)
            else:
                corner = (self._left, self._top)
                ring = [p - corner[i % 2] for i, p in enumerate(points)]
                self._pixels = polygon_to_bitmap(ring, width=width, height=height)
        except (BadShape, EmptyShape):
            self._pixels = np.zeros((height, width), np.bool_)
        self._area = np.count_nonzero(self._pixels)

    def iou(self, other: "_Outline") -> float:
        columns = max(self._left, other._left), min(self._right, other._right)
        rows = max(self._top, other._top), min(self._bottom, other._bottom)
        both = np.count_nonzero(self._cut(columns, rows) & other._cut(columns, rows))
        return both / (self._area + other._area - both) if both else 0.0

    def _cut(self, columns: tuple[int, int], rows: tuple[int, int]) -> Bitmap:
        (x0, x1), (y0, y1) = columns, rows
        left, top = self._left, self._top
        return self._pixels[y0 - top : y1 - top, x0 - left : x1 - left]


def coinciding(shapes: Sequence[Shape | None], *, less: float = 0.0) -> list[tuple[int, int]]:
    """Pairs of indexes of shapes on one frame that cover the same thing; None: not visible.

    less: is taken off the limits.
    """
    seen = [(i, shape) for i, shape in enumerate(shapes) if shape is not None]
    if len(seen) < 2:
        return []
    boxes = [bounding_box(*shape) for _, shape in seen]
    overlap = np.triu(boxes_iou(boxes, boxes), 1)
    outline = cache(lambda place: _Outline(seen[place][1]))
    pairs = []
    for first, second in np.argwhere(overlap > NEAR).tolist():
        (i, (one, _)), (j, (other, _)) = seen[first], seen[second]
        if "rectangle" in (one, other):
            same = overlap[first, second] > SAME_BOX - less
        else:
            same = outline(first).iou(outline(second)) > SAME_OUTLINE - less
        if same:
            pairs.append((i, j))
    return pairs


def note_coinciding(
    objects: Sequence[TrackedObject], frame: int, results: Sequence[Tracked | None]
) -> None:
    """Tells the objects which others they lie on, where a person did not draw both on this frame.

    results: of each object on the frame.
    """
    shapes = [
        (o.seed.type, t.points) if t is not None and t.points is not None else None
        for o, t in zip(objects, results, strict=True)
    ]
    for i, j in coinciding(shapes):
        drawn = [t is not None and (t.by_hand or t.drawn_in_run) for t in (results[i], results[j])]
        if not all(drawn):
            objects[i].lies_on.setdefault(objects[j].seed.ref, []).append(frame)


def coinciding_pairs(objects: Sequence[TrackedObject]) -> list[tuple[str, str, list[int]]]:
    """The names of two objects and the frames on which they cover the same thing.

    Where a person drew both on one frame, nearly as much on each other, they belong there.
    """
    seeds = {o.seed.ref: o.seed for o in objects}
    return [
        (o.seed.ref, other, frames)
        for o in objects
        for other, frames in o.lies_on.items()
        if not _began_there(o.seed, seeds[other])
    ]


def _began_there(one: Seed, other: Seed) -> bool:
    seeds = [(one.type, one.points), (other.type, other.points)]
    return one.frame == other.frame and bool(coinciding(seeds, less=DRAWN_SO))
