# SPDX-License-Identifier: MIT
"""Objects of a run that lie on each other: a tracker may have taken one for the other.

Two things that look alike and cross often end as one: both objects then follow the same thing, and
the tracker is sure of both, so their confidence does not tell.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cvat_action.geometry import bitmaps_iou, bounding_box, boxes_iou
from cvat_action.seeds import Seed
from cvat_action.tracked import Tracked, TrackedObject
from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.shapes import Bitmap, mask_to_bitmap, polygon_to_bitmap

SAME_OUTLINE = 0.5
"""IoU of two outlines above which they are taken for those of one thing"""
SAME_BOX = 0.7
"""the same where one of the two is a rectangle: boxes of neighbours overlap more than outlines"""
NEAR = 0.2
"""IoU of the boxes around two outlines from which on the outlines are compared"""

Shape = tuple[str, Sequence[float]]
"""type and points"""


def coinciding(shapes: Sequence[Shape | None]) -> list[tuple[int, int]]:
    """Pairs of indexes of shapes on one frame that cover the same thing; None: not visible."""
    seen = [(i, shape) for i, shape in enumerate(shapes) if shape is not None]
    if len(seen) < 2:
        return []
    boxes = [bounding_box(*shape) for _, shape in seen]
    overlap = np.triu(boxes_iou(boxes, boxes), 1)
    pairs = []
    for first, second in np.argwhere(overlap > NEAR).tolist():
        (i, one), (j, other) = seen[first], seen[second]
        if "rectangle" in (one[0], other[0]):
            same = overlap[first, second] > SAME_BOX
        else:
            same = _outlines_iou(one, other) > SAME_OUTLINE
        if same:
            pairs.append((i, j))
    return pairs


def note_coinciding(
    objects: Sequence[TrackedObject], frame: int, results: Sequence[Tracked | None]
) -> None:
    """Tells the objects which others they lie on; results: of each on the frame.

    Where a person drew both, or one on the other to begin with, they belong there.
    """
    shapes = [
        (o.seed.type, t.points) if t is not None and t.points is not None else None
        for o, t in zip(objects, results, strict=True)
    ]
    for i, j in coinciding(shapes):
        drawn = [t is not None and (t.by_hand or t.drawn_in_run) for t in (results[i], results[j])]
        if not all(drawn) and not _began_there(objects[i].seed, objects[j].seed):
            objects[i].lies_on.setdefault(objects[j].seed.ref, []).append(frame)


def _began_there(one: Seed, other: Seed) -> bool:
    seeds = [(one.type, one.points), (other.type, other.points)]
    return one.frame == other.frame and bool(coinciding(seeds))


def _outlines_iou(one: Shape, other: Shape) -> float:
    """Of masks and polygons, drawn in the box around both."""
    boxes = [bounding_box(*shape) for shape in (one, other)]
    left, top = (int(min(box[side] for box in boxes)) for side in (0, 1))
    size = {
        "width": int(max(box[2] for box in boxes)) - left + 1,
        "height": int(max(box[3] for box in boxes)) - top + 1,
    }
    try:
        a, b = (_bitmap(shape, left, top, size) for shape in (one, other))
    except (BadShape, EmptyShape):  # it covers no pixel
        return 0.0
    return bitmaps_iou(a, b)


def _bitmap(shape: Shape, left: int, top: int, size: Mapping[str, int]) -> Bitmap:
    """The shape in a picture that begins at (left, top). Raises BadShape, EmptyShape."""
    shape_type, points = shape
    if shape_type == "polygon":
        ring = [p - (top if i % 2 else left) for i, p in enumerate(points)]
        return polygon_to_bitmap(ring, **size)
    *runs, x0, y0, x1, y1 = points
    return mask_to_bitmap([*runs, x0 - left, y0 - top, x1 - left, y1 - top], **size)
