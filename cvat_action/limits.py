# SPDX-License-Identifier: MIT
"""How far a keyframe, and what CVAT makes between two, may be from the tracker's result."""

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from cvat_action.interpolation import Ring
from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.shapes import Bitmap, polygon_to_bitmap

REFERENCE_SIDE = 480
"""px; the picture's shorter side that `Limit.distance` is meant for"""
FAR = 2.0
"""times the largest mean distance: where outlines are that far apart, they are not measured"""


@dataclass(frozen=True)
class Limit:
    """A polygon is inside the limit if either holds; a rectangle if the first does."""

    iou: float
    """least IoU, 0 to 1"""
    distance: float = 0.0
    """largest mean distance of the two outlines, in px of the picture at hand"""

    def part(self, share: float) -> "Limit":
        """The limit that uses up only `share` of what this one allows."""
        return Limit(1 - (1 - self.iou) * share, self.distance * share)


class PolygonTruth:
    """The tracker's polygon on one frame, to measure others against."""

    def __init__(self, ring: Ring) -> None:
        """ring: (points, 2), in pixels, all coordinates at least 0.

        Raises sam2_tracker.errors.EmptyShape where it covers no pixel.
        """
        self.left, self.top = (int(low) for low in np.floor(ring.min(axis=0)))
        width, height = (int(high) for high in np.ceil(ring.max(axis=0)))
        self.bitmap: Bitmap = polygon_to_bitmap(
            (ring - (self.left, self.top)).ravel().tolist(),
            width=max(width - self.left, 1),
            height=max(height - self.top, 1),
        )
        self.area = int(np.count_nonzero(self.bitmap))

    def within(self, ring: Ring, limit: Limit) -> bool:
        """Whether a (points, 2) polygon is inside the limit."""
        drawn = self._drawn(ring)
        if drawn is None:
            return False
        bitmap, left, top = drawn
        x, y = self.left - left, self.top - top
        height, width = self.bitmap.shape
        both = int(np.count_nonzero(bitmap[y : y + height, x : x + width] & self.bitmap))
        either = self.area + int(np.count_nonzero(bitmap)) - both
        if both >= limit.iou * either:
            return True
        # The area between two outlines is about their mean distance times the outline's length, or
        # less; far beyond the limit the distances need not be measured.
        if either - both > FAR * limit.distance * np.count_nonzero(self._edge):
            return False
        return self._distance(bitmap, left, top) <= limit.distance

    def _drawn(self, ring: Ring) -> tuple[Bitmap, int, int] | None:
        """The polygon's pixels, with the left and top of their box, which holds ours as well."""
        height, width = self.bitmap.shape
        low, high = np.floor(ring.min(axis=0)), np.ceil(ring.max(axis=0))
        left, top = min(self.left, int(low[0])), min(self.top, int(low[1]))
        right, bottom = max(self.left + width, int(high[0])), max(self.top + height, int(high[1]))
        try:
            bitmap = polygon_to_bitmap(
                (ring - (left, top)).ravel().tolist(), width=right - left, height=bottom - top
            )
        except (BadShape, EmptyShape):
            return None
        return bitmap, left, top

    def _distance(self, bitmap: Bitmap, left: int, top: int) -> float:
        """The mean distance of two outlines in px: the larger of the two directions' means."""
        theirs = _edge_pixels(bitmap)
        our_y, our_x = np.nonzero(self._edge)
        from_ours = _distance_map(theirs)[our_y + self.top - top, our_x + self.left - left]
        y, x = np.nonzero(theirs)
        map_height, map_width = self._map.shape
        # Outside of the map's margin a pixel is at least as far away as where it is cut off.
        y = np.clip(y + top - self.top + self._margin, 0, map_height - 1)
        x = np.clip(x + left - self.left + self._margin, 0, map_width - 1)
        return float(max(from_ours.mean(), self._map[y, x].mean()))

    @cached_property
    def _edge(self) -> Bitmap:
        return _edge_pixels(self.bitmap)

    @cached_property
    def _margin(self) -> int:
        return 4 + max(self.bitmap.shape) // 4

    @cached_property
    def _map(self) -> NDArray[np.float32]:
        return _distance_map(np.pad(self._edge, self._margin))


class RectangleTruth:
    """The tracker's rectangle on one frame, to measure others against."""

    def __init__(self, corners: Ring) -> None:
        """corners: (2, 2), top left and bottom right, in pixels."""
        self._corners = corners

    def within(self, corners: Ring, limit: Limit) -> bool:
        """Whether a (2, 2) upright rectangle is inside the limit."""
        low = np.maximum(self._corners[0], corners[0])
        high = np.minimum(self._corners[1], corners[1])
        both = _size(low, high)
        one, other = _size(*self._corners), _size(*corners)
        return both >= limit.iou * (one + other - both) and both > 0


def _size(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    return math.prod(max(side, 0.0) for side in (high - low).tolist())


def _edge_pixels(bitmap: Bitmap) -> Bitmap:
    """The pixels of a bitmap with a neighbour above, below or beside that is not set."""
    padded = np.pad(bitmap, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return bitmap & ~inner


def _distance_map(edge: Bitmap) -> NDArray[np.float32]:
    """For each pixel the distance to the nearest set one."""
    return np.asarray(
        cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE),
        dtype=np.float32,
    )
