# SPDX-License-Identifier: MIT
"""CVAT's points to bitmaps and back.

A bitmap is a bool array of shape (height, width). Pixel (x, y) covers [x, x+1] x [y, y+1]: polygons
and rectangles run along pixel *edges*, and contain a pixel if they contain its centre.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.outlines import (
    Ring,
    fewest_corners,
    ring_area,
    ring_length,
    ring_to_outline,
)

Bitmap = NDArray[np.bool_]
"""bool (height, width)."""
Box = tuple[float, float, float, float]
"""left, top, right, bottom: pixel edges of the image."""
Points = list[int] | list[float]
"""CVAT's flat list: runs and box of a mask, x and y of a polygon, corners of a rectangle."""

ANSWER_TYPES = ("mask", "polygon", "rectangle")
"""The types in which a tracked object is answered."""
PROMPT_TYPES = ("rectangle", "points")
"""Drawings of these types are prompts: SAM 2 finds the mask."""
SHAPE_TYPES = (*ANSWER_TYPES, "points")
"""All types in which an object can be drawn."""

# Crossings of polygon edges with pixel rows that are computed at a time, at about 100 bytes each.
# Bounds the memory that a polygon of many long edges takes.
CROSSINGS_AT_ONCE = 1 << 20
# Limit on the time that a polygon takes. The jagged outline of an object in a 4K frame stays below
# it; random points exceed it.
MAX_CROSSINGS = 1 << 22


def mask_to_bitmap(points: Sequence[Any], *, width: int, height: int) -> Bitmap:
    """Decodes `[run, run, ..., left, top, right, bottom]`: rows of an inclusive box, zeros first.

    Raises BadShape if the numbers are not in this form or the box exceeds the image, EmptyShape if
    no pixel is set. Nothing is allocated before the runs are known to fit the box.
    """
    numbers = numbers_of(points)
    if len(numbers) < 5:
        raise BadShape("A mask needs at least one run and a box of 4 numbers.")
    if (numbers != np.floor(numbers)).any():
        raise BadShape("A mask consists of whole numbers.")
    if not numbers.any():
        raise EmptyShape("The mask has no pixels.")
    runs = numbers[:-4]
    left, top, right, bottom = numbers[-4:]
    if left > right or top > bottom:
        raise BadShape("The corners of the mask's box are exchanged: left top, then right bottom.")
    if min(left, top) < 0 or right >= width or bottom >= height:
        raise BadShape(
            f"The mask's box ({left:g}, {top:g}, {right:g}, {bottom:g}) does not lie inside the "
            f"image of {width} x {height} pixels."
        )
    x, y, w, h = int(left), int(top), int(right - left) + 1, int(bottom - top) + 1
    if (runs < 0).any():
        raise BadShape("A run of the mask is negative.")
    if (runs > w * h).any() or runs.sum() != w * h:
        raise BadShape(f"The mask's runs do not add up to its box of {w} x {h} pixels.")
    bitmap = np.zeros((height, width), dtype=np.bool_)
    values = np.arange(len(runs)) % 2 == 1
    bitmap[y : y + h, x : x + w] = np.repeat(values, runs.astype(np.int64)).reshape(h, w)
    if not bitmap.any():
        raise EmptyShape("The mask has no pixels.")
    return bitmap


def polygon_to_bitmap(points: Sequence[Any], *, width: int, height: int) -> Bitmap:
    """Fills a ring `[x0, y0, x1, y1, ...]` by the even-odd rule, sampled at pixel centres.

    Points may lie outside of the image; the polygon is clipped to it. Raises BadShape for less than
    3 points, an odd count of numbers or edges that cross more than MAX_CROSSINGS pixel rows in sum,
    EmptyShape if no pixel centre inside the image is covered.
    """
    numbers = numbers_of(points)
    if len(numbers) % 2:
        raise BadShape(f"A polygon needs pairs of numbers; here are {len(numbers)}.")
    if len(numbers) < 6:
        raise BadShape(f"A polygon needs at least 3 points; here are {len(numbers) // 2}.")
    start = numbers.reshape(-1, 2)
    end = np.roll(start, -1, axis=0)
    # Every edge points down, so that an edge shared by two polygons is rounded alike in both.
    upwards = start[:, 1] > end[:, 1]
    upper, lower = np.where(upwards[:, None], end, start), np.where(upwards[:, None], start, end)

    # An edge crosses the centre line of row r if upper.y <= r + 0.5 < lower.y.
    first_row = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    end_row = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    crossings = end_row - first_row
    bitmap = np.zeros((height, width), dtype=np.bool_)
    if not crossings.any():
        raise EmptyShape("The polygon covers no pixel of the image.")
    if crossings.sum() > MAX_CROSSINGS:
        raise BadShape(
            f"The polygon is too intricate: its edges cross {crossings.sum()} rows of pixels; the "
            f"limit is {MAX_CROSSINGS}."
        )
    top, bottom = first_row[crossings > 0].min(), end_row.max()
    left = int(np.clip(np.floor(start[:, 0].min()), 0, width))
    right = int(np.clip(np.ceil(start[:, 0].max()), left, width))

    # toggles[r, c]: whether inside and outside change places between the pixels c - 1 and c.
    toggles = np.zeros((bottom - top, right - left + 1), dtype=np.uint8)
    groups = np.cumsum(crossings) // CROSSINGS_AT_ONCE
    for edges in np.split(np.arange(len(start)), np.flatnonzero(np.diff(groups)) + 1):
        count = crossings[edges]
        edge = np.repeat(edges, count)
        row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first_row[edge]
        # Halves, because the difference of two large numbers can overflow a float64.
        (x0, y0), (x1, y1) = upper[edge].T / 2, lower[edge].T / 2
        x = 2 * (x0 + ((row + 0.5) / 2 - y0) / (y1 - y0) * (x1 - x0))
        column = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64)
        place = (row - top) * toggles.shape[1] + column - left
        np.bitwise_xor.at(toggles.reshape(-1), place, np.uint8(1))
    inside = np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1]
    bitmap[top:bottom, left:right] = inside
    if not inside.any():
        raise EmptyShape("The polygon covers no pixel of the image.")
    return bitmap


def rectangle_to_box(points: Sequence[Any], *, width: int, height: int) -> Box:
    """Checks `[left, top, right, bottom]` and clips it to the image.

    Raises BadShape if these are not 4 ordered numbers, EmptyShape if no pixel centre is covered.
    """
    numbers = numbers_of(points)
    if len(numbers) != 4:
        raise BadShape(f"A rectangle needs 4 numbers; here are {len(numbers)}.")
    left, top, right, bottom = numbers.tolist()
    if left > right or top > bottom:
        raise BadShape("A rectangle needs left <= right and top <= bottom.")
    left, right = min(max(left, 0.0), width), min(max(right, 0.0), width)
    top, bottom = min(max(top, 0.0), height), min(max(bottom, 0.0), height)
    if math.ceil(left - 0.5) >= math.ceil(right - 0.5) or (
        math.ceil(top - 0.5) >= math.ceil(bottom - 0.5)
    ):
        raise EmptyShape("The rectangle covers no pixel of the image.")
    return left, top, right, bottom


def widen_box(box: Box, *, width: int, height: int) -> Box:
    """Makes a box inside the image at least 1 px wide and high, because CVAT drops smaller ones."""
    left, top, right, bottom = box
    left, right = _widen(left, right, width)
    top, bottom = _widen(top, bottom, height)
    return left, top, right, bottom


def bitmap_to_mask(bitmap: Bitmap) -> list[int]:
    """Encodes a bitmap with at least one pixel, without loss; the inverse of mask_to_bitmap."""
    x, y, w, h = _tight_box(bitmap)
    pixels = bitmap[y : y + h, x : x + w].ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    return [*([0] if pixels[0] else []), *runs, x, y, x + w - 1, y + h - 1]


def bitmap_to_polygon(bitmap: Bitmap, *, tolerance: float = 0.0) -> Points:
    """Traces the largest component of a bitmap (8-connected) that has at least one pixel.

    The ring runs along pixel edges, clockwise as seen on the screen, from its topmost, then
    leftmost corner; holes are filled. Without simplification it holds exactly the component's
    pixels and those of its holes.

    tolerance: 0 for no simplification; else the ring is drawn with as few points as keep its IoU
    with the component, holes filled, at 1 - tolerance or more, and its area that near as well.
    """
    ring = bitmap_to_ring(bitmap)
    simple = _simplified(ring, tolerance) if tolerance > 0 else None
    if simple is None:
        return ring.ravel().tolist()
    start = np.lexsort((simple[:, 0], simple[:, 1]))[0]
    return np.roll(simple, -start, axis=0).ravel().tolist()


def bitmap_to_ring(bitmap: Bitmap) -> NDArray[np.int64]:
    """The ring of `bitmap_to_polygon` without simplification: int64 (corners, 2), x and y."""
    x, y, w, h = _tight_box(bitmap)
    return _outer_ring(_largest_component(bitmap[y : y + h, x : x + w])) + (x, y)


def _simplified(ring: NDArray[np.int64], tolerance: float) -> Ring | None:
    """A ring along pixel edges with few points; None where it needs as many as it has."""
    low = ring.min(axis=0)
    width, height = (ring.max(axis=0) - low).tolist()
    pixels = polygon_to_bitmap((ring - low).ravel().tolist(), width=width, height=height)
    area = int(np.count_nonzero(pixels))

    def is_within(simple: Ring) -> bool:
        if abs(ring_area(simple) - area) > tolerance * area:
            return False
        points = (simple - low).ravel().tolist()
        drawn = polygon_to_bitmap(points, width=width, height=height)
        both = np.count_nonzero(drawn & pixels)
        return bool(both >= (1 - tolerance) * (area + np.count_nonzero(drawn) - both))

    outline = ring_to_outline(ring)
    simple = fewest_corners(outline, area, tolerance * area / ring_length(outline), is_within)
    return simple if simple is not None and len(simple) < len(ring) else None


def bitmap_to_rectangle(bitmap: Bitmap) -> list[int]:
    """Gives the tight box `[left, top, right, bottom]` of a bitmap with at least one pixel."""
    x, y, w, h = _tight_box(bitmap)
    return [x, y, x + w, y + h]


def numbers_of(points: Sequence[Any]) -> NDArray[np.float64]:
    """Points as float64. Raises BadShape unless all are finite numbers."""
    # Python counts bool as int, and numpy reads numbers from strings. Both are errors here.
    if not set(map(type, points)) <= {int, float}:
        raise BadShape("The points must be numbers.")
    try:
        numbers = np.array(points, dtype=np.float64)
    except OverflowError:
        raise BadShape("The points must be finite numbers.") from None
    if not np.isfinite(numbers).all():
        raise BadShape("The points must be finite numbers.")
    return numbers


def _widen(low: float, high: float, limit: int) -> tuple[float, float]:
    if high - low >= 1:
        return low, high
    low = min(max((low + high - 1) / 2, 0.0), limit - 1.0)
    return low, low + 1.0


def _tight_box(bitmap: Bitmap) -> tuple[int, int, int, int]:
    columns = np.flatnonzero(bitmap.any(axis=0))
    rows = np.flatnonzero(bitmap.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _largest_component(bitmap: Bitmap) -> Bitmap:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        bitmap.astype(np.uint8), connectivity=8
    )
    if count == 2:
        return bitmap
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = np.flatnonzero(areas == areas.max()) + 1
    if len(largest) > 1:  # the first in scan order; OpenCV's numbering may differ
        largest = labels.ravel()[np.isin(labels, largest).argmax()]
    return np.equal(labels, largest)


def _outer_ring(component: Bitmap) -> NDArray[np.int64]:
    """Corners (N, 2) as (x, y) of the outer boundary of one 8-connected component.

    On every line of the pixel grid the corners of the boundary, in order, are the ends of its
    segments; so neighbours on the ring are found by sorting. Where two pixels touch only with their
    corners, two corners of the ring share a place: there the ring goes round the *background*
    pixel, which keeps the component in one ring.
    """
    padded = np.pad(component, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    y, x = np.nonzero(nw ^ ne ^ sw ^ se)
    double_y, double_x = np.nonzero((nw == se) & (ne == sw) & (nw != ne))
    falling = nw[double_y, double_x].astype(np.int64)  # the pixels touch along "\", not "/"
    single = np.zeros_like(y)
    x = np.concatenate((x, double_x, double_x))
    y = np.concatenate((y, double_y, double_y))
    # Of two corners at one place the first ends the segment from the left, the second starts the
    # one to the right; which of them ends the segment from above depends on the diagonal.
    along_row = np.lexsort((np.concatenate((single, falling * 0, falling * 0 + 1)), x, y))
    along_column = np.lexsort((np.concatenate((single, falling, 1 - falling)), y, x))
    across, down = _partners(along_row), _partners(along_column)
    ring: list[int] = []
    corner = start = int(along_row[0])
    while not ring or corner != start:
        ring += [corner, across[corner]]
        corner = down[across[corner]]
    return np.stack((x[ring], y[ring]), axis=1)


def _partners(order: NDArray[np.int64]) -> list[int]:
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    result: list[int] = partners.tolist()
    return result
