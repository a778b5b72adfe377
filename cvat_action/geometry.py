# SPDX-License-Identifier: MIT
"""Checks of points in CVAT's forms: mask runs with a box, a flat polygon, a rectangle."""

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from cvat_sdk.masks import decode_mask
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""left, top, right, bottom in continuous image coordinates"""
TRACKABLE = ("mask", "polygon", "rectangle")
"""types of the shapes that can be tracked"""
SAME_OBJECT = 0.3
"""IoU of two boxes from which on they can be the same object (docs/identity.md)"""
MOST_OUTSIDE = 10
"""image sides that a point may lie off; farther ones are no drawing, and cost memory to fill"""


def points_fault(shape_type: str, points: object, width: int, height: int) -> str | None:
    """What is wrong with points that came over the wire, as the end of a sentence; else None.

    CVAT's server checks neither the sum of the runs nor the image's bounds: it stores such a mask,
    then shows and exports it broken. So all points are checked here before they are written.
    """
    if not isinstance(points, list | array) or not {type(p) for p in points} <= {int, float}:
        return "points that are not a list of numbers"
    try:
        finite = all(map(math.isfinite, points))
    except OverflowError:  # a whole number of hundreds of digits
        finite = False
    if not finite:
        return "points that are not finite"
    if shape_type == "mask":
        return _mask_fault(points, width, height)
    most = MOST_OUTSIDE * max(width, height)
    if any(abs(p) > most for p in points):
        return f"points far outside the {width}x{height} image"
    if shape_type == "rectangle":
        return None if len(points) == 4 else f"a rectangle of {len(points)} numbers instead of 4"
    if shape_type == "polygon":
        if len(points) < 6 or len(points) % 2:
            return f"a polygon of {len(points)} numbers (an even number of at least 6 is needed)"
        return None
    return f"a shape of type {shape_type!r}"


def _mask_fault(points: Sequence[float], width: int, height: int) -> str | None:
    if len(points) < 6 or any(p != int(p) for p in points):
        return "a mask that is not a list of at least 6 whole numbers"
    *runs, left, top, right, bottom = (int(p) for p in points)
    if not (0 <= left <= right < width and 0 <= top <= bottom < height):
        return f"a mask with the box {left}, {top}, {right}, {bottom} in a {width}x{height} image"
    if any(r < 0 for r in runs) or sum(runs) != (right - left + 1) * (bottom - top + 1):
        return "a mask whose runs do not fill its box"
    return None


def finite_rotation(value: Any) -> float:
    """The rotation of a file's shape. Raises ValueError or TypeError, which says what is wrong."""
    rotation = float(value)
    if not math.isfinite(rotation):
        raise ValueError("a rotation that is not finite")
    return rotation


def size_fault(shape_type: str, points: Sequence[float]) -> str | None:
    """What is wrong with the size of checked points: CVAT's page drops shapes below a pixel."""
    left, top, right, bottom = bounding_box(shape_type, points)
    sides = right - left, bottom - top
    least = max(sides) if shape_type == "polygon" else min(sides)
    return f"a {shape_type} smaller than a pixel inside the image" if least < 1 else None


def points_in_image(
    shape_type: str, points: Sequence[float], width: int, height: int
) -> list[float]:
    """Checked points as they are written: masks as integers, the others clamped to the image."""
    if shape_type == "mask":
        return [int(p) for p in points]
    limits = (float(width), float(height))
    return [min(max(float(p), 0.0), limits[i % 2]) for i, p in enumerate(points)]


def points_to_bitmap(
    shape_type: str, points: Sequence[float], width: int, height: int
) -> NDArray[np.bool_]:
    """(height, width) bitmap for previews and overlaps; polygons within a pixel."""
    if shape_type == "mask":
        return decode_mask([int(p) for p in points], image_width=width, image_height=height)
    bitmap = np.zeros((height, width), dtype=np.uint8)
    if shape_type == "rectangle":
        left, top, right, bottom = (round(p) for p in points)
        bitmap[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
    else:
        # fillPoly takes pixel centres as whole numbers; CVAT's pixel (i, j) has its centre at +0.5
        ring = np.asarray(points, dtype=np.float64).reshape(-1, 1, 2) - 0.5
        cv2.fillPoly(bitmap, [(ring * 256).round().astype(np.int32)], 1, shift=8)
    return bitmap.astype(bool)


def bounding_box(shape_type: str, points: Sequence[float]) -> Box:
    """(left, top, right, bottom) in continuous image coordinates."""
    if shape_type == "mask":
        left, top, right, bottom = points[-4:]
        return left, top, right + 1, bottom + 1
    xs, ys = points[0::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def upright(shape: Mapping[str, Any]) -> tuple[float, ...]:
    """The points of a shape or keyframe in the wire form; of a rotated rectangle those of the box
    around it, which the tracker can start from."""
    points, rotation = shape["points"], shape.get("rotation")
    if shape["type"] != "rectangle" or not rotation:
        return tuple(points)
    left, top, right, bottom = points
    turn = math.radians(rotation)
    along, across = abs(math.cos(turn)) / 2, abs(math.sin(turn)) / 2
    width, height = right - left, bottom - top
    x, y = (left + right) / 2, (top + bottom) / 2
    dx, dy = width * along + height * across, width * across + height * along
    return (x - dx, y - dy, x + dx, y + dy)


def box_of(shape: Mapping[str, Any]) -> Box:
    """The bounding box of a shape or keyframe in the wire form, as it is turned."""
    return bounding_box(shape["type"], upright(shape))


def boxes_iou(a: Sequence[Box], b: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each of `a` with each of `b`: (len(a), len(b))."""
    first = np.asarray(a, dtype=np.float64).reshape(-1, 1, 4)
    second = np.asarray(b, dtype=np.float64).reshape(1, -1, 4)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(o[..., 2:] - o[..., :2], 0, None), axis=2) for o in (first, second)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def bitmaps_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two bitmaps of one shape; 0 where both are empty."""
    either = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / either if either else 0.0
