# SPDX-License-Identifier: MIT
"""What CVAT shows on the frames between two keyframes of a track.

CVAT's page and its server compute the same numbers; `tests/action_cases/interpolation.json`
holds answers of both, and this module gives exactly these. Sums are added in CVAT's order, because
ties between equally near points decide which points are matched.

Polygons are matched by the share of the outline's length that lies before each point. Both outlines
are taken to begin at the same place and to run in the same direction: `polygons.aligned_ring` makes
them so. Only what lies *between* keyframes is computed here; which keyframes count, and what holds
before the first and after the last one, is in `positions.position_among`.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(points, 2): x and y of a closed outline; the first point is not repeated at the end"""

DISTANCES_AT_ONCE = 1 << 21
"""distances between shares that are computed at a time: bounds the memory for long outlines"""


def points_to_ring(points: Sequence[float]) -> Ring:
    """CVAT's flat list `[x0, y0, x1, y1, ...]` as a (points, 2) array of float64."""
    return np.asarray(points, dtype=np.float64).reshape(-1, 2)


def ring_to_points(ring: Ring) -> list[float]:
    """A (points, 2) array as CVAT's flat list."""
    flat: list[float] = ring.ravel().tolist()
    return flat


def polygon_between(left: Sequence[float], right: Sequence[float], share: float) -> list[float]:
    """The polygon at `share` (0 to 1) of the way from the keyframe `left` to the keyframe `right`.

    `left` and `right` are flat lists of x and y in pixels; so is the answer, which may have more
    points than either. At a share of 0 it is `left` itself, as in CVAT.
    """
    if share == 0:
        return [float(value) for value in left]
    return ring_to_points(PolygonPair(points_to_ring(left), points_to_ring(right)).at(share))


def rectangle_between(left: Sequence[float], right: Sequence[float], share: float) -> list[float]:
    """The rectangle at `share` (0 to 1) of the way from `left` to `right`, number by number."""
    return [a + (b - a) * share for a, b in zip(left, right, strict=True)]


def rotation_between(left: float, right: float, share: float) -> float:
    """The rotation in degrees, 0 to 360, at `share` of the way, along the shorter arc.

    Where the two are exactly 180 degrees apart it is clockwise, as CVAT's page has it; CVAT's
    server turns by one degree there, which is a mistake.
    """
    difference = (right - left + 180) % 360 - 180
    if difference == -180:
        difference = 180.0
    return (left + difference * share + 360) % 360


class PolygonPair:
    """Two polygon keyframes, matched once; `at` gives the polygon at any share between them."""

    def __init__(self, left: Ring, right: Ring) -> None:
        """Takes two (points, 2) arrays of at least one point each."""
        left, right = np.vstack((left, left[:1])), np.vstack((right, right[:1]))
        left_steps, right_steps = _step_lengths(left), _step_lengths(right)
        partners = _match(_shares_of_length(left_steps), _shares_of_length(right_steps))
        of_left, of_right = partners
        self._start = left[of_left]
        self._way = right[of_right] - self._start
        self._segments = _segments(of_left, of_right, left_steps, right_steps)

    def at(self, share: float) -> Ring:
        """The (points, 2) polygon at `share` of the way from left to right."""
        moved = self._start + self._way * share
        if not self._segments:
            return moved[:-1]
        parts = []
        done = 0
        for first, last, threshold in self._segments:
            parts.append(moved[done:first])
            parts.append(_thin_out(moved[first : last + 1], threshold))
            done = last + 1
        parts.append(moved[done:])
        return np.concatenate(parts)[:-1]


def _step_lengths(curve: Ring) -> NDArray[np.float64]:
    steps = np.diff(curve, axis=0)
    return np.sqrt(steps[:, 0] * steps[:, 0] + steps[:, 1] * steps[:, 1])


def _shares_of_length(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each point of a curve, the part of its length that lies before the point.

    A curve without length gives NaN from its second point on, as in CVAT.
    """
    along = np.concatenate(([0.0], np.cumsum(steps)))
    with np.errstate(invalid="ignore"):
        along[1:] /= along[-1]
    return along


def _match(
    left: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of matched points, as indexes into left and right, ordered by left, then right.

    Each point of the left curve has the nearest one of the right curve for a partner; a point of
    the right curve that is nobody's partner then joins the nearest one of the left curve.
    """
    to_right = _nearest(left, right)
    alone = np.setdiff1d(np.arange(len(right)), to_right)
    of_left = np.concatenate((np.arange(len(left)), _nearest(right[alone], left)))
    of_right = np.concatenate((to_right, alone))
    order = np.lexsort((of_right, of_left))
    return of_left[order], of_right[order]


def _nearest(values: NDArray[np.float64], curve: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each value the index of the nearest one in `curve`, the first of equally near ones."""
    nearest = np.empty(len(values), dtype=np.intp)
    rows = max(1, DISTANCES_AT_ONCE // len(curve))
    for first in range(0, len(values), rows):
        distances = np.abs(values[first : first + rows, None] - curve)
        # In CVAT a distance that is not a number is never the smaller one.
        distances[np.isnan(distances)] = np.inf
        nearest[first : first + rows] = distances.argmin(axis=1)
    return nearest


def _segments(
    of_left: NDArray[np.intp],
    of_right: NDArray[np.intp],
    left_steps: NDArray[np.float64],
    right_steps: NDArray[np.float64],
) -> list[tuple[int, int, float]]:
    """Runs of matched pairs that are thinned out: their first and last index, and the threshold.

    A run is either several points of the left curve with one and the same single partner, or one
    point of the left curve with several partners. The threshold is half the mean length per point
    of the curve that has several points there.
    """
    single = np.bincount(of_left)[of_left] == 1
    begins = np.flatnonzero(
        np.concatenate(
            (
                [True],
                np.where(
                    single[1:] & single[:-1],
                    of_right[1:] != of_right[:-1],
                    of_left[1:] != of_left[:-1],
                ),
            )
        )
    )
    ends = np.concatenate((begins[1:], [len(of_left)])) - 1
    segments = []
    for first, last in zip(begins.tolist(), ends.tolist(), strict=True):
        if first == last:
            continue
        several, steps = (of_left, left_steps) if single[first] else (of_right, right_steps)
        start, stop = int(several[first]), int(several[last])
        # Added one by one from here, as in CVAT: a difference of sums would round differently.
        length = float(np.cumsum(steps[start:stop])[-1])
        segments.append((first, last, length / (2 * (stop - start + 1))))
    return segments


def _thin_out(run: Ring, threshold: float) -> Ring:
    """Keeps the first and the last point, and those between that are not too near the last kept.

    Where only the first and the last are left and these are too near each other, their mean.
    """
    points = run.tolist()
    kept = [0]
    x, y = points[0]
    for index in range(1, len(points) - 1):
        px, py = points[index]
        if _distance(x, y, px, py) >= threshold:
            kept.append(index)
            x, y = px, py
    if len(kept) == 1:
        (x, y), (px, py) = points[0], points[-1]
        if _distance(x, y, px, py) < threshold:
            return np.array([[(x + px) / 2, (y + py) / 2]])
    return run[[*kept, len(points) - 1]]


def _distance(x: float, y: float, other_x: float, other_y: float) -> float:
    dx, dy = x - other_x, y - other_y
    return math.sqrt(dx * dx + dy * dy)
