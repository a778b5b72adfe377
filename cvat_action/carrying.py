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
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cvat_action.errors import ActionError
from cvat_action.geometry import bitmaps_iou
from cvat_action.overlay import Frames, Picture
from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.shapes import Bitmap

LONGEST_SIDE = 640
"""in pixels, of the pictures that flow is computed on"""
SHORTEST_SIDE = 32
"""in pixels: flow needs room"""
MOST_FRAMES = 100
"""that a drawing is carried"""
LEAST_OVERLAP = 0.5
"""IoU of a carried mask with the tracker's: below it the carried one is not taken, because the
tracker notices what is hidden and optical flow does not"""
LEAD_BETWEEN, LEAD_BEHIND = -0.1, 0.1
"""by how much a carried mask's check has to be above the tracker's score: between two drawings, and
behind the last one, where the check sees less"""
NEVER = -1e6
"""the gain of a frame that no mask may be carried to: more than all others can make up for"""
CACHE_BYTES = 256 << 20

Soft = NDArray[np.uint8]
"""uint8 (height, width): how much of a pixel of the small picture is the object's, 255 is all"""
HALF = 127


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
        self.unreadable: dict[int, ActionError] = {}
        """frames whose pictures could not be read, which are not asked for again"""
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
        whole = mask.astype(np.uint8) * 255
        return np.asarray(cv2.resize(whole, self.small, interpolation=cv2.INTER_AREA), np.uint8)

    def enlarge(self, soft: Soft) -> Bitmap:
        return np.asarray(cv2.resize(soft, self.size, interpolation=cv2.INTER_LINEAR) > HALF)

    def keeps(self, mask: Bitmap) -> float:
        """IoU of a mask with what is left of it at the size of the small picture."""
        return bitmaps_iou(self.enlarge(self.shrink(mask)), mask)

    def _grey(self, frame: int) -> NDArray[np.uint8]:
        known = self._greys.get(frame)
        if known is None:
            small = cv2.resize(self._read(frame), self.small, interpolation=cv2.INTER_AREA)
            known = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
            self._greys.put(frame, known, known.nbytes)
        return known

    def _read(self, frame: int) -> Picture:
        if frame in self.unreadable:
            raise self.unreadable[frame]
        try:
            return self._picture(frame)
        except ActionError as error:
            self.unreadable[frame] = error
            raise


def carry(
    flow: Flow,
    left: Drawing,
    right: Drawing | None,
    frames: Sequence[int],
    found: Callable[[int], Estimate | None],
) -> Iterator[tuple[int, Estimate]]:
    """The frames, in order, on which a carried mask is taken in place of the tracker's, and it.

    left, right: what is drawn before and after the frames, in their order; None: nothing is drawn
    after them. found: the tracker's result; None: it sees nothing there. The tracker keeps one
    unbroken row of frames, which may be empty: the one where the gains of the carried masks have
    the lowest sum. A carried mask's score is the mean of its check and of its IoU with the
    tracker's mask, and at least the tracker's score. Raises what the flow's `picture` raises.
    """
    if not flow.possible:
        return
    if right is not None and len(frames) <= MOST_FRAMES:
        carried = _between(flow, left, right, frames, found)
    elif right is None:
        carried = _behind(flow, left, frames[:MOST_FRAMES], found)
    else:
        reach = min(MOST_FRAMES, len(frames) // 2)
        carried = _behind(flow, left, frames[:reach], found)
        carried += _behind(flow, right, frames[::-1][:reach], found)[::-1]
    for each in carried:
        yield each.frame, Estimate(flow.enlarge(each.soft), each.score)


class _Carried(NamedTuple):
    frame: int
    soft: Soft
    score: float
    gain: float
    """by how much it is better than the tracker's"""


def _between(
    flow: Flow,
    left: Drawing,
    right: Drawing,
    frames: Sequence[int],
    found: Callable[[int], Estimate | None],
) -> list[_Carried]:
    keeps = min(flow.keeps(left.mask), flow.keeps(right.mask))
    # First in the order of the frames, in which a video is read fastest.
    forward = list(_follow(flow, left, frames))
    backward = _follow(flow, right, frames[::-1])
    made = []
    for number, (frame, other) in enumerate(zip(frames[::-1], backward, strict=True), 1):
        one, nearer_left = forward[-number], number / (len(frames) + 1)
        soft = np.asarray(cv2.addWeighted(one, nearer_left, other, 1 - nearer_left, 0), np.uint8)
        check = keeps * bitmaps_iou(one > HALF, other > HALF)
        made.append(_compare(flow, frame, soft, check, found(frame), LEAD_BETWEEN))
    made.reverse()
    begin, end = _worst_row([each.gain for each in made])
    return made[:begin] + made[end:]


def _behind(
    flow: Flow, drawing: Drawing, frames: Sequence[int], found: Callable[[int], Estimate | None]
) -> list[_Carried]:
    drawn, keeps = flow.shrink(drawing.mask), flow.keeps(drawing.mask)
    way, before = flow.here, drawing.frame  # from each pixel of the drawing to where it lies now
    made = []
    for frame, soft in zip(frames, _follow(flow, drawing, frames), strict=True):
        way = way + _sample(flow.between(before, frame), way)
        check = keeps * bitmaps_iou(_sample(soft, way) > HALF, drawn > HALF)
        made.append(_compare(flow, frame, soft, check, found(frame), LEAD_BEHIND))
        before = frame
    begin, _ = _worst_row([each.gain for each in made], to_the_end=True)
    return made[:begin]


def _follow(flow: Flow, drawing: Drawing, frames: Sequence[int]) -> Iterator[Soft]:
    """The drawing on each of the frames, which lead away from it."""
    drawn = flow.shrink(drawing.mask)
    source, before = flow.here, drawing.frame  # of each pixel: where it lay on the drawn frame
    for frame in frames:
        source = _sample(source, flow.here + flow.between(frame, before))
        yield _sample(drawn, source)
        before = frame


def _compare(
    flow: Flow, frame: int, soft: Soft, check: float, found: Estimate | None, lead: float
) -> _Carried:
    overlap = bitmaps_iou(flow.enlarge(soft), found.mask) if found else 0.0
    if found is None or overlap <= LEAST_OVERLAP:
        return _Carried(frame, soft, 0.0, NEVER)
    score = max((check + overlap) / 2, found.score)
    return _Carried(frame, soft, score, check - found.score - lead)


def _worst_row(gains: Sequence[float], *, to_the_end: bool = False) -> tuple[int, int]:
    """The row of gains with the smallest sum, which may be empty: where it begins and ends."""
    sums = list(accumulate(gains, initial=0.0))
    ends = [len(gains)] if to_the_end else range(len(sums))
    rows = [(begin, end) for end in ends for begin in range(end + 1)]
    return min(rows, key=lambda row: sums[row[1]] - sums[row[0]])


def _sample(values: NDArray[Any], at: NDArray[np.float32]) -> NDArray[Any]:
    """values: (height, width) or (height, width, 2); at: (height, width, 2), x and y."""
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
