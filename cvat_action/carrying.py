# SPDX-License-Identifier: MIT
"""Drawings carried to the frames beside them by optical flow.

Dense optical flow (DIS, arXiv 1603.03590) tells of each pixel of a frame where it lay on the frame
before, so an outline that a person drew can be followed pixel by pixel. Over a few frames of slow
motion that is finer than a tracker's mask. It goes wrong where things hide, turn or move fast, and
that can be seen without knowing the truth: two drawings that are carried towards each other no
longer agree, and one that is carried on and back again no longer fits itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cvat_action.overlay import Frames
from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.shapes import Bitmap

LONGEST_SIDE = 640
"""in pixels, of the pictures that flow is computed on"""
SHORTEST_SIDE = 32
"""in pixels: flow needs room"""
MOST_FRAMES = 100
"""that a drawing is carried"""
LEAST_OVERLAP = 0.5
"""IoU of a carried mask with the tracker's, which knows what is hidden"""
LEAD_BETWEEN, LEAD_BEHIND = -0.1, 0.1
"""by how much a carried mask's check has to be above the tracker's score: between two drawings, and
behind the last one, where the check sees less"""
CACHE_BYTES = 256 << 20

Soft = NDArray[np.float32]
"""float32 (height, width), 0 to 1: how much of a pixel of the small picture is the object's"""


class Drawing(NamedTuple):
    frame: int
    mask: Bitmap
    """bool (height, width)"""


@dataclass(frozen=True)
class Estimate:
    mask: Bitmap
    """bool (height, width)"""
    score: float
    """0 to 1"""


class Flow:
    """Optical flow between the frames of one video."""

    def __init__(self, picture: Frames, size: tuple[int, int]) -> None:
        """size: (width, height) of all frames."""
        self.size = size
        shrink = min(1.0, LONGEST_SIDE / max(size))
        self.small = max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
        self.possible = min(self.small) >= SHORTEST_SIDE
        columns, rows = np.meshgrid(np.arange(self.small[0]), np.arange(self.small[1]))
        self.here = np.stack([columns, rows], 2).astype(np.float32)
        """float32 (height, width, 2): the x and y of each pixel"""
        self._picture = picture
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._greys: ByteCache[int, NDArray[np.uint8]] = ByteCache(CACHE_BYTES // 4)
        self._flows: ByteCache[tuple[int, int], NDArray[np.float16]] = ByteCache(CACHE_BYTES)

    def between(self, now: int, before: int) -> NDArray[np.float32]:
        """From each pixel of `now` the way to where it lay on `before`: float32 (height, width, 2).

        Raises what `picture` raises.
        """
        known = self._flows.get((now, before))
        if known is None:
            flow = self._dis.calc(self._grey(now), self._grey(before), None)  # type: ignore[call-overload]
            known = flow.astype(np.float16)
            self._flows.put((now, before), known, known.nbytes)
        return known.astype(np.float32)

    def shrink(self, mask: Bitmap) -> Soft:
        small = cv2.resize(mask.astype(np.float32), self.small, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)

    def enlarge(self, soft: Soft) -> Bitmap:
        return np.asarray(cv2.resize(soft, self.size, interpolation=cv2.INTER_LINEAR) > 0.5)

    def _grey(self, frame: int) -> NDArray[np.uint8]:
        known = self._greys.get(frame)
        if known is None:
            small = cv2.resize(self._picture(frame), self.small, interpolation=cv2.INTER_AREA)
            known = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
            self._greys.put(frame, known, known.nbytes)
        return known


def carry(
    flow: Flow,
    left: Drawing,
    right: Drawing | None,
    frames: Sequence[int],
    found: Callable[[int], Estimate | None],
) -> dict[int, Estimate]:
    """The carried masks that are better than what the tracker found, by frame.

    left, right: what is drawn before and after the frames, in their order; None: nothing is drawn
    after them. found: the tracker's result; None: it sees nothing there. In a row of frames the
    answer changes at most once from each drawing to the tracker. A carried mask's score is the mean
    of its check and of its IoU with the tracker's mask. Raises what the flow's `picture` raises.
    """
    if not flow.possible:
        return {}
    if right is not None and len(frames) <= MOST_FRAMES:
        return _between(flow, left, right, frames, found)
    reach = MOST_FRAMES if right is None else min(MOST_FRAMES, len(frames) // 2)
    carried = _behind(flow, left, frames[:reach], found)
    if right is not None:
        carried |= _behind(flow, right, frames[::-1][:reach], found)
    return carried


def _between(
    flow: Flow,
    left: Drawing,
    right: Drawing,
    frames: Sequence[int],
    found: Callable[[int], Estimate | None],
) -> dict[int, Estimate]:
    forward = list(_follow(flow, left, frames))
    backward = list(_follow(flow, right, frames[::-1]))[::-1]
    made = []
    for number, (frame, one, other) in enumerate(zip(frames, forward, backward, strict=True), 1):
        nearer_right = number / (len(frames) + 1)
        soft = (1 - nearer_right) * one + nearer_right * other
        check = _iou(one > 0.5, other > 0.5)
        made.append(_compare(flow, soft, check, found(frame), LEAD_BETWEEN))
    from_left = _best_length([gain for _, _, gain in made])
    from_right = _best_length([gain for _, _, gain in made[::-1]])
    taken = [n < from_left or n >= len(frames) - from_right for n in range(len(frames))]
    return _taken(flow, frames, made, taken)


def _behind(
    flow: Flow, drawing: Drawing, frames: Sequence[int], found: Callable[[int], Estimate | None]
) -> dict[int, Estimate]:
    drawn = flow.shrink(drawing.mask)
    way, before = flow.here, drawing.frame
    made = []
    for frame, soft in zip(frames, _follow(flow, drawing, frames), strict=True):
        way = way + _sample(flow.between(before, frame), way)  # from where it was drawn to here
        back = _sample(soft, way)
        made.append(_compare(flow, soft, _iou(back > 0.5, drawn > 0.5), found(frame), LEAD_BEHIND))
        before = frame
    length = _best_length([gain for _, _, gain in made])
    return _taken(flow, frames, made, [n < length for n in range(len(frames))])


def _follow(flow: Flow, drawing: Drawing, frames: Sequence[int]) -> Iterator[Soft]:
    """The drawing on each of the frames, which lead away from it."""
    drawn = flow.shrink(drawing.mask)
    source, before = flow.here, drawing.frame  # of each pixel: where it lay on the drawn frame
    for frame in frames:
        source = _sample(source, flow.here + flow.between(frame, before))
        yield _sample(drawn, source)
        before = frame


_Made = tuple[Soft, float, float]
"""a carried mask, its score, and by how much it is better than the tracker's"""


def _compare(flow: Flow, soft: Soft, check: float, found: Estimate | None, lead: float) -> _Made:
    if found is None:
        return soft, 0.0, -1.0
    overlap = _iou(flow.enlarge(soft), found.mask)
    gain = check - found.score - lead if overlap > LEAST_OVERLAP else -1.0
    return soft, (check + overlap) / 2, gain


def _best_length(gains: Sequence[float]) -> int:
    """How many from the first one on have the largest sum."""
    sums = list(accumulate(gains, initial=0.0))
    return sums.index(max(sums))


def _taken(
    flow: Flow, frames: Sequence[int], made: Sequence[_Made], taken: Sequence[bool]
) -> dict[int, Estimate]:
    return {
        frame: Estimate(flow.enlarge(soft), score)
        for frame, (soft, score, _), yes in zip(frames, made, taken, strict=True)
        if yes
    }


def _sample(values: NDArray[np.float32], at: NDArray[np.float32]) -> NDArray[np.float32]:
    """values: (height, width) or (height, width, 2); at: (height, width, 2), x and y."""
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    sampled = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.float32)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 0.0
