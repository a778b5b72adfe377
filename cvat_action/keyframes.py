# SPDX-License-Identifier: MIT
"""The fewest keyframes from which CVAT's interpolation gives a track within a limit.

For every frame a keyframe is made that could stand there (`candidates`): an outline of few points
whose own loss is a part of the limit, begun and directed like the one before, signed. Of these the
shortest path from the first frame to the last is chosen, over pairs of keyframes between which
every frame is inside the limit as CVAT interpolates (interpolation.py). So no frame is ever outside
of it: where nothing fits, every frame is a keyframe.

A person's keyframes are taken as they are, and are never left out.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cvat_action.interpolation import PolygonPair, Ring, points_to_ring, ring_to_points
from cvat_action.limits import REFERENCE_SIDE, Limit, PolygonTruth, RectangleTruth
from cvat_action.polygons import aligned_outline, outline_samples
from cvat_action.signature import sign
from sam2_tracker.errors import BadShape, EmptyShape
from sam2_tracker.outlines import fewest_corners, ring_length, ring_to_outline
from sam2_tracker.shapes import bitmap_to_ring

OWN_SHARE = 0.35
"""of the limit, that a keyframe's own simplification may use up; the rest is interpolation's"""
CARRIED_SHARE = 0.6
"""of the limit, that a polygon may use up which is taken over from the keyframe before"""
BOX_IOU = 0.95
"""least IoU of rectangles"""
LONGEST = 100
"""frames from one keyframe to the next"""
PATIENCE = 10
"""pairs in a row that fail before longer ones from the same keyframe are given up"""


@dataclass(frozen=True)
class Result:
    """An object on one frame of a run."""

    points: tuple[float, ...]
    """CVAT's flat list"""
    fixed: bool = False
    """a keyframe that stays as it is, byte for byte: a person's, or the seed"""
    occluded: bool = False
    z_order: int = 0


class _Truth(Protocol):
    def within(self, ring: Ring, limit: Limit) -> bool: ...


def sparse_keyframes(
    shape_type: str,
    results: Mapping[int, Result],
    *,
    iou: float,
    width: int,
    height: int,
    forced: Collection[int] = (),
    on_frame: Callable[[], object] = lambda: None,
) -> dict[int, tuple[float, ...]]:
    """The keyframes to write for a run of frames on which an object is visible.

    shape_type: `polygon` or `rectangle`.
    results: by frame, at least one. Frames that are missing between the first and the last are
        deleted ones: they count in CVAT's interpolation, and nothing is asked of them.
    iou: least IoU of a polygon on each frame (or a mean outline distance of a pixel at 480 px);
        for rectangles it is BOX_IOU, or this where it is lower.
    forced: frames that must be keyframes, besides the first, the last, the fixed ones, and those on
        which occluded or z-order change.
    on_frame: called once per frame, for a progress bar.
    Gives the points by frame: fixed ones as they are, the others signed for their frame.
    """
    frames = sorted(results)
    run = _Run(shape_type, results, limit_for(shape_type, iou, width, height), (width, height))
    must = {
        frame
        for before, frame in zip([frames[0], *frames], frames, strict=False)
        if frame in forced
        or results[frame].fixed
        or run.truths[frame] is None
        or _flags(results[frame]) != _flags(results[before])
    }
    chosen = fewest_keyframes(frames, must, run.fits, on_frame)
    return {frame: run.points[frame] for frame in chosen}


def limit_for(shape_type: str, iou: float, width: int, height: int) -> Limit:
    """The limit for shapes of a type in a picture of this size."""
    if shape_type == "rectangle":
        return Limit(min(iou, BOX_IOU))
    return Limit(iou, min(width, height) / REFERENCE_SIDE)


class _Run:
    """What would be written on each frame if it were a keyframe, and which pairs will do."""

    def __init__(
        self, shape_type: str, results: Mapping[int, Result], limit: Limit, size: tuple[int, int]
    ) -> None:
        self.truths = {frame: _truth(shape_type, r.points) for frame, r in results.items()}
        self.points: dict[int, tuple[float, ...]] = {}
        """the candidates, as they are written"""
        self._shape_type = shape_type
        self._results = results
        self._frames = sorted(results)
        self._limit = limit
        self._size = size
        self._outlines = self._aligned_outlines() if shape_type == "polygon" else {}
        self._sampled: dict[int, NDArray[np.complex128]] = {}
        self._rings: dict[int, Ring] = {}
        for frame in self._frames:
            self._set(frame, self._candidate(frame))

    def _aligned_outlines(self) -> dict[int, Ring]:
        """The smooth outline of each frame, begun and directed like that of the frame before.

        Fixed keyframes hand on their own start and direction, the first one also to the frames
        before. A polygon that covers no pixel is its own outline.
        """
        results, frames = self._results, self._frames
        first_fixed = next((i for i, frame in enumerate(frames) if results[frame].fixed), 0)
        outlines: dict[int, Ring] = {}
        for order in (frames[first_fixed:], frames[first_fixed::-1]):
            reference: Ring | None = None
            for frame in order:
                ring, truth = points_to_ring(results[frame].points), self.truths[frame]
                if not results[frame].fixed:
                    if isinstance(truth, PolygonTruth):
                        pixels = bitmap_to_ring(truth.bitmap)
                        ring = ring_to_outline(pixels) + (truth.left, truth.top)
                    if reference is not None:
                        ring = aligned_outline(ring, reference)
                outlines[frame] = reference = outlines.get(frame, ring)
        return outlines

    def fits(self, left: int, right: int) -> bool:
        """Whether every frame between is inside the limit if `left` and `right` are keyframes.

        If the left polygon, moved and turned, will do on `right`, it becomes the candidate there:
        points that belong together are matched then, and a person finds the same corners again.
        """
        carried = self._carried(left, right)
        if carried and self._all_within(left, right, points_to_ring(carried)):
            self._set(right, carried)
            return True
        return self._all_within(left, right, self._rings[right])

    def _all_within(self, left: int, right: int, right_ring: Ring) -> bool:
        frames = self._frames
        between = frames[bisect_right(frames, left) : bisect_left(frames, right)]
        at = _interpolation(self._shape_type, self._rings[left], right_ring)
        for index in _middle_first(len(between)):
            frame = between[index]
            truth = self.truths[frame]
            ring = at((frame - left) / (right - left))
            if truth is not None and not truth.within(ring, self._limit):
                return False
        return True

    def _set(self, frame: int, points: tuple[float, ...]) -> None:
        self.points[frame] = points
        self._rings[frame] = points_to_ring(points)

    def _candidate(self, frame: int) -> tuple[float, ...]:
        result, truth = self._results[frame], self.truths[frame]
        if result.fixed:
            return result.points
        if not isinstance(truth, PolygonTruth):
            return self._signed(frame, result.points)
        outline = self._outlines[frame]
        for ring in (
            _simplified(outline, truth, self._limit),
            outline,
            points_to_ring(result.points),
        ):
            if ring is not None:
                signed = self._signed(frame, ring_to_points(ring))
                if truth.within(points_to_ring(signed), self._limit):
                    break
        return signed

    def _carried(self, left: int, right: int) -> tuple[float, ...] | None:
        """The polygon of `left`, moved and turned to `right`; None where it does not fit there."""
        truth = self.truths[right]
        if self._results[right].fixed or not isinstance(truth, PolygonTruth):
            return None
        moved = _moved(self._rings[left], self._samples(left), self._samples(right))
        signed = self._signed(right, ring_to_points(moved))
        fits = truth.within(points_to_ring(signed), self._limit.part(CARRIED_SHARE))
        return signed if fits else None

    def _samples(self, frame: int) -> NDArray[np.complex128]:
        if frame not in self._sampled:
            self._sampled[frame] = outline_samples(self._outlines[frame])
        return self._sampled[frame]

    def _signed(self, frame: int, points: Sequence[float]) -> tuple[float, ...]:
        result = self._results[frame]
        width, height = self._size
        signed = sign(
            self._shape_type,
            points,
            frame,
            width=width,
            height=height,
            occluded=result.occluded,
            z_order=result.z_order,
        )
        return tuple(signed)


def fewest_keyframes(
    frames: Sequence[int],
    forced: Collection[int],
    fits: Callable[[int, int], bool],
    on_frame: Callable[[], object] = lambda: None,
) -> list[int]:
    """The shortest path from the first to the last of `frames` that leaves out no forced one.

    fits: whether all frames between two are right if these two are keyframes. It is not asked of
    neighbours, nor of frames that are more than LONGEST apart, nor, after PATIENCE failures in a
    row, of frames that are still farther.
    """
    path = [frames[0]]
    on_frame()
    ends = [i for i, frame in enumerate(frames) if frame in forced or i == len(frames) - 1]
    start = 0
    for end in ends:
        if end > start:
            path += _shortest_path(frames[start : end + 1], fits, on_frame)
            start = end
    return path


def _shortest_path(
    frames: Sequence[int], fits: Callable[[int, int], bool], on_frame: Callable[[], object]
) -> list[int]:
    """The path from the first to the last frame, without the first: breadth first search."""
    last = len(frames) - 1
    before = {0: 0}
    if frames[last] - frames[0] <= LONGEST and fits(frames[0], frames[last]):
        before[last] = 0
        on_frame()
    level = [0]
    while last not in before:
        reached = []
        for left in reversed(level):  # the farthest first: it reaches the farthest
            failures = 0
            for right in range(left + 1, last + 1):
                if right in before:
                    continue
                if frames[right] - frames[left] > LONGEST or failures == PATIENCE:
                    break
                if right == left + 1 or fits(frames[left], frames[right]):
                    before[right] = left
                    reached.append(right)
                    failures = 0
                    on_frame()
                else:
                    failures += 1
            if last in before:
                break
        level = sorted(reached)
    path = [last]
    while before[path[-1]]:
        path.append(before[path[-1]])
    for _ in range(last + 1 - len(before)):
        on_frame()
    return [frames[index] for index in reversed(path)]


def _flags(result: Result) -> tuple[bool, int]:
    return result.occluded, result.z_order


def _truth(shape_type: str, points: Sequence[float]) -> _Truth | None:
    """None: covers no pixel, so that nothing can be measured against it."""
    ring = points_to_ring(points)
    if shape_type == "rectangle":
        return RectangleTruth(ring)
    try:
        return PolygonTruth(ring)
    except (BadShape, EmptyShape):
        return None


def _simplified(outline: Ring, truth: PolygonTruth, limit: Limit) -> Ring | None:
    """The outline with few points inside OWN_SHARE of the limit, if that can be."""
    part = limit.part(OWN_SHARE)
    unit = max((1 - part.iou) * truth.area / ring_length(outline), part.distance / 4)
    return fewest_corners(outline, truth.area, unit, lambda ring: truth.within(ring, part))


def _moved(ring: Ring, before: NDArray[np.complex128], after: NDArray[np.complex128]) -> Ring:
    """The ring moved, turned and scaled as best takes the samples `before` to those `after`."""
    start, end = before.mean(), after.mean()
    spread = np.vdot(before - start, before - start)
    turn = np.vdot(before - start, after - end) / spread if spread else 1
    moved = (ring[:, 0] + 1j * ring[:, 1] - start) * turn + end
    return np.stack((moved.real, moved.imag), axis=1)


def _interpolation(shape_type: str, left: Ring, right: Ring) -> Callable[[float], Ring]:
    """What CVAT makes of two keyframes, by the share of the way from left to right."""
    if shape_type == "polygon":
        return PolygonPair(left, right).at
    return lambda share: left + (right - left) * share


@lru_cache(maxsize=2 * LONGEST)
def _middle_first(count: int) -> tuple[int, ...]:
    """0 to count - 1 from the middle on, halving: where a pair fails, it mostly fails there."""
    order = []
    stretches = deque([(0, count)])
    while stretches:
        low, high = stretches.popleft()
        if low < high:
            middle = (low + high) // 2
            order.append(middle)
            stretches += [(low, middle), (middle + 1, high)]
    return tuple(order)
