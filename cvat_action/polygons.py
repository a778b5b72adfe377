# SPDX-License-Identifier: MIT
"""Where a polygon begins, and in which direction it runs.

CVAT matches the points of two keyframes by the share of the outline before them, and takes both to
begin at the same place and to run in the same direction. So every polygon of a track, and of a
series of shapes that may become one, takes over the start and the direction of the one before.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cvat_action.interpolation import Ring, points_to_ring, ring_to_points
from sam2_tracker.outlines import ring_area

SAMPLES = 1024
"""places along an outline, equally far from each other, that are compared"""


def aligned_points(points: Sequence[float], reference: Sequence[float]) -> list[float]:
    """A polygon as a flat list, begun and directed like `reference`; the points are the same."""
    return ring_to_points(aligned_ring(points_to_ring(points), points_to_ring(reference)))


def aligned_ring(ring: Ring, reference: Ring) -> Ring:
    """The (n, 2) ring with its points in another order: begun and directed like `reference`.

    The start is the corner next to the place from where on the two outlines, moved onto each other
    by their centres, fit best.
    """
    if ring_area(ring) * ring_area(reference) < 0:
        ring = ring[::-1]
    along, length = _distance_along(ring)
    if length == 0:
        return ring
    place = aligned_start(ring, reference) * length
    off = np.abs(along - place)
    return np.roll(ring, -int(np.minimum(off, length - off).argmin()), axis=0)


def aligned_start(ring: Ring, reference: Ring) -> float:
    """Where `ring` should begin to fit `reference`, as a share (0 to below 1) of its outline.

    Both run in the same direction. The best place is found by cyclic cross-correlation.
    """
    ours, theirs = outline_samples(ring), outline_samples(reference)
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    fit = np.fft.ifft(np.fft.fft(ours) * np.conj(np.fft.fft(theirs))).real
    best = int(fit.argmax())
    before, peak, after = fit[best - 1], fit[best], fit[(best + 1) % SAMPLES]
    # The top of the parabola through the best place and its neighbours.
    bend = before - 2 * peak + after
    between = (before - after) / (2 * bend) if bend < 0 else 0.0
    return float((best + between) % SAMPLES / SAMPLES)


def aligned_outline(outline: Ring, reference: Ring) -> Ring:
    """Like `aligned_ring`, but begun at just the best place, where a point is put in.

    For outlines that are simplified later: the errors of many frames would add up.
    """
    if ring_area(outline) * ring_area(reference) < 0:
        outline = outline[::-1]
    along, length = _distance_along(outline)
    if length == 0:
        return outline
    place = aligned_start(outline, reference) * length
    after = int(np.searchsorted(along, place))
    start = [np.interp(place, [*along, length], [*axis, axis[0]]) for axis in outline.T]
    begun = np.vstack((start, outline[after:], outline[:after]))
    repeated = (begun == np.roll(begun, 1, axis=0)).all(axis=1)
    return np.asarray(begun[~repeated])


def outline_samples(ring: Ring) -> NDArray[np.complex128]:
    """The outline, x + iy, at SAMPLES equally spaced places from its start on."""
    along, length = _distance_along(ring)
    places = np.arange(SAMPLES) * (length / SAMPLES)
    closed = np.vstack((ring, ring[:1]))
    x, y = (np.interp(places, [*along, length], closed[:, axis]) for axis in (0, 1))
    return np.asarray(x + 1j * y)


def _distance_along(ring: Ring) -> tuple[NDArray[np.float64], float]:
    """How far each point lies along the outline from its start, and the length of the outline."""
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    return np.cumsum(lengths) - lengths, float(lengths.sum())
