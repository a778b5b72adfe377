# SPDX-License-Identifier: MIT
"""Outlines of few points: what a person can drag in CVAT.

A ring along pixel edges is a staircase, and a polygon that follows every step has hundreds of
points. The outline through the middles of the pixel edges, smoothed by a pixel, is what the
staircase stands for; it needs about a fourth of the points for the same accuracy.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(points, 2): x and y of a closed outline in pixels; the first point is not repeated"""

GRID = 0.25
"""px; corners lie on it. It survives every export of CVAT, which rounds to hundredths."""

# Distances that are tried, from coarse to fine, in units of what `fewest_corners` is given. A
# ratio of a fourth and less: the distance that is taken is seldom much too fine.
_DISTANCES = (12.0, 9.0, 7.0, 5.6, 4.6, 3.8, 3.1, 2.5, 2.0, 1.5)


def ring_to_outline(ring: NDArray[np.int64]) -> Ring:
    """The smooth outline of a ring that runs along pixel edges.

    ring: (corners, 2) whole numbers, each edge horizontal or vertical. Gives float64 (n, 2), one
    point per pixel edge, that starts at the first edge and runs in the ring's direction.
    """
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(steps).sum(axis=1)
    corner = np.repeat(np.arange(len(ring)), lengths)
    along = np.arange(len(corner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    middles = ring[corner] + np.sign(steps)[corner] * (along + 0.5)[:, None]
    offsets = np.arange(-3, 4)
    weights = np.exp(-(offsets**2) / 2)
    weights /= weights.sum()
    padded = middles[np.arange(-3, len(middles) + 3) % len(middles)]
    smooth: Ring = np.stack(
        [np.convolve(padded[:, axis], weights, mode="valid") for axis in (0, 1)], axis=1
    )
    return smooth


def fewest_corners(
    outline: Ring, area: float, unit: float, is_within: Callable[[Ring], bool]
) -> Ring | None:
    """The outline with as few corners as `is_within` allows.

    area: square px, that the ring shall have.
    unit: px; distances from 12 of it down to 1.5 are tried. Where the whole outline is moved to one
    side by `tolerance * area / length`, the area changes by just the tolerance; corners that are
    left out move it to both sides, so that several times as much fits.
    is_within: asked with a ring of at least 3 corners.
    Gives float64 (corners, 2) on the grid of 0.25 px, which begins at the outline's first point and
    runs in its direction; None where not even the finest is within.
    """
    area = math.copysign(area, ring_area(outline))
    # The box of whole pixels, in spite of rounding: growing must not leave it, nor the image.
    low, high = np.floor(outline.min(axis=0) + 1e-6), np.ceil(outline.max(axis=0) - 1e-6)
    for distance in _DISTANCES:
        simple = _simplified(outline, distance * unit, area).clip(low, high)
        if len(simple) >= 3 and is_within(simple):
            return simple
    return None


def _simplified(outline: Ring, distance: float, area: float) -> Ring:
    """The outline without the corners that can go without moving it by more than `distance` px.

    What is left lies inside of every bend, so the corners are then moved outwards, all by the same
    distance, until the ring has the given area, and put on the grid. Repeated points are left out.
    """
    # Two open curves, because OpenCV chooses the first corner of a closed one.
    closed = np.concatenate((outline, outline[:1])).astype(np.float32)[:, None]
    far = int(((outline - outline[0]) ** 2).sum(axis=1).argmax())
    halves = (closed[: far + 1], closed[far:])
    kept = [cv2.approxPolyDP(half, distance, False)[:-1, 0] for half in halves]
    corners: Ring = np.concatenate(kept).astype(np.float64)
    if len(corners) >= 3:
        corners = _grow(corners, area)
    corners = np.round(corners / GRID) * GRID
    repeated = (corners == np.roll(corners, 1, axis=0)).all(axis=1)
    return np.asarray(corners[~repeated])


def _grow(ring: Ring, area: float) -> Ring:
    """Moves all corners outwards (inwards) by one distance, at most a pixel, to meet the area."""
    tangents = np.roll(ring, -1, axis=0) - np.roll(ring, 1, axis=0)
    lengths = np.hypot(tangents[:, 0], tangents[:, 1])
    gain = float(lengths.sum()) / 2  # of area, by distance
    if gain == 0:
        return ring
    normals = np.stack((tangents[:, 1], -tangents[:, 0]), axis=1)
    normals /= np.maximum(lengths, 1e-9)[:, None]
    return ring + normals * min(max((area - ring_area(ring)) / gain, -1.0), 1.0)


def ring_area(ring: Ring) -> float:
    """The signed area in square px; above 0 where the ring runs clockwise as seen on the screen."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def ring_length(ring: Ring) -> float:
    """The length of a closed ring in px."""
    steps = np.roll(ring, -1, axis=0) - ring
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())
