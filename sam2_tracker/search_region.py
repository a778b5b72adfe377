# SPDX-License-Identifier: MIT
"""The part of an image in which one object is looked for.

SAM 2 scales every image to its input, so a small object has few pixels there and a coarse mask. A
search region, as trackers have long had one (SiamFC, arXiv 1606.09549), is a window around the
place where the object was seen last; the model is shown the window in place of the image. It has
the image's aspect, keeps still while the object stays well inside, and grows while it is not seen.
The window keeps its size as long as it can, because the memory then shows the object at one
scale: each change of scale makes masks worse for some frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings and wire know the bounds without OpenCV
    from sam2_tracker.shapes import Box

SMALLEST_SIZE, LARGEST_SIZE = 1.5, 10.0
"""A window is so many times as wide or as high as the object's box: least and most."""
LEAST_SHARE = 0.125
"""A window has at least this share of the image's width and height: a smaller one shows too little
of the surroundings."""
WHOLE_FROM = 0.85
"""A window of this share of the image, or more, is the whole image."""
LEAD_FRAMES = 2
"""A window leaves room on each side for so many frames of the object's own motion."""
SPEED_KEPT = 0.8
"""This share of the speed still counts one frame later, if the object has become slower."""
MARGIN, LEAST_MARGIN = 0.2, 0.04
"""The window moves when the object is closer to its edge than MARGIN, a share of the window. When
it is closer than LEAST_MARGIN the window also grows faster."""
RESIZED_FROM = 1.4
"""The window is resized when it is too large or too small by this factor."""
RESIZED_BY, RESIZED_IN_HASTE = 1.1, 1.4
"""The factor per frame, in general and in haste (LEAST_MARGIN). It is small, so that a mask that
runs over to the surroundings is not followed at once."""
GROWTH_UNSEEN = 1.3
"""The factor by which the window grows per frame while the object is not seen."""

Window = tuple[int, int, int, int]
"""left, top, right, bottom in whole pixels of the image; right and bottom lie beyond it."""


@dataclass(frozen=True, kw_only=True)
class SearchRegion:
    """Where the next frame is searched, and what that follows from."""

    size: float
    """Side of the window in sides of the object's box, SMALLEST_SIZE to LARGEST_SIZE."""
    share: float
    """Of the image's width and height that the window has, LEAST_SHARE to 1."""
    window: Window
    centre: tuple[float, float]
    """Of the object's box where it was seen last, in pixels."""
    speed: tuple[float, float] = (0.0, 0.0)
    """The largest motion of the centre of late, along x and y, in pixels per frame."""
    seen: bool = True
    """The object was seen on the last frame."""

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether a point (x, y), in pixels of the image, lies within the window."""
        left, top, right, bottom = self.window
        return left <= point[0] <= right and top <= point[1] <= bottom


def is_size(size: float) -> bool:
    """Whether it may be asked for: 0, which stands for no region, or a `SearchRegion.size`."""
    return size == 0 or SMALLEST_SIZE <= size <= LARGEST_SIZE


def window_of(region: SearchRegion | None, *, width: int, height: int) -> Window:
    """Where an object is looked for; without a region on the whole image."""
    return region.window if region else (0, 0, width, height)


def start_region(size: float, box: Box, *, width: int, height: int) -> SearchRegion:
    """The search region of an object that was drawn.

    size: `SearchRegion.size`. box: left, top, right, bottom in pixels, around what was drawn.
    width, height: of the image.
    """
    share = _wanted(size, box, (0.0, 0.0), width, height)
    centre = _centre(box)
    window = _window(share, centre, width, height)
    return SearchRegion(size=size, share=share, window=window, centre=centre)


def whole_region(size: float, *, width: int, height: int) -> SearchRegion:
    """The whole image, for an object whose place or size is not known yet."""
    window, centre = (0, 0, width, height), (width / 2, height / 2)
    return SearchRegion(size=size, share=1.0, window=window, centre=centre, seen=False)


def follow(region: SearchRegion, box: Box | None, *, width: int, height: int) -> SearchRegion:
    """The search region of the next frame.

    box: where the object was found, in pixels of the image; None: it was not seen.
    """
    if box is None:
        share = _whole_if_large(region.share * GROWTH_UNSEEN)
        window = _window(share, region.centre, width, height)
        return replace(region, share=share, window=window, seen=False)
    centre, motion, speed = _centre(box), (0.0, 0.0), (0.0, 0.0)
    if region.seen:
        motion = centre[0] - region.centre[0], centre[1] - region.centre[1]
        speed = (
            max(abs(motion[0]), SPEED_KEPT * region.speed[0]),
            max(abs(motion[1]), SPEED_KEPT * region.speed[1]),
        )
    wanted = _wanted(region.size, box, speed, width, height)
    share = _next_share(region, wanted, in_time=_inside(box, region, LEAST_MARGIN, width, height))
    window = region.window
    if share != region.share or not _inside(box, region, MARGIN, width, height):
        ahead = centre[0] + motion[0], centre[1] + motion[1]
        window = _window(share, ahead, width, height)
    return replace(region, share=share, window=window, centre=centre, speed=speed, seen=True)


def _wanted(size: float, box: Box, speed: tuple[float, float], width: int, height: int) -> float:
    """The share of the image that holds the object's box `size` times, and its motion."""
    left, top, right, bottom = box
    across = (size * (right - left) + 2 * LEAD_FRAMES * speed[0]) / width
    down = (size * (bottom - top) + 2 * LEAD_FRAMES * speed[1]) / height
    return _whole_if_large(max(across, down, LEAST_SHARE))


def _next_share(region: SearchRegion, wanted: float, *, in_time: bool) -> float:
    if 1 / RESIZED_FROM < wanted / region.share < RESIZED_FROM:
        return region.share
    if wanted < region.share:
        # The whole image has no scale in common with a small window anyway.
        return wanted if region.share == 1 else max(wanted, region.share / RESIZED_BY)
    most = region.share * (RESIZED_BY if in_time else RESIZED_IN_HASTE)
    return _whole_if_large(min(wanted, most))


def _whole_if_large(share: float) -> float:
    return 1.0 if share >= WHOLE_FROM else share


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _window(share: float, centre: tuple[float, float], width: int, height: int) -> Window:
    """Around the centre, moved into the image."""
    w, h = max(1, round(width * share)), max(1, round(height * share))
    left = min(max(round(centre[0] - w / 2), 0), width - w)
    top = min(max(round(centre[1] - h / 2), 0), height - h)
    return left, top, left + w, top + h


def _inside(box: Box, region: SearchRegion, margin: float, width: int, height: int) -> bool:
    """Whether a share of the window lies between the object and each edge.

    An edge that is the image's own needs no room.
    """
    left, top, right, bottom = region.window
    across, down = margin * (right - left), margin * (bottom - top)
    return (
        (box[0] >= left + across or left == 0)
        and (box[1] >= top + down or top == 0)
        and (box[2] <= right - across or right == width)
        and (box[3] <= bottom - down or bottom == height)
    )
