# SPDX-License-Identifier: MIT
"""Where a track is on a frame, and which of its keyframes a person made or deleted.

A track is in the form in which CVAT gives it.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from cvat_action.interpolation import polygon_between, rectangle_between, rotation_between
from cvat_action.job import Job, Wire
from cvat_action.signature import is_signed


def position_among(keyframes: Sequence[Wire], frame: int) -> Wire | None:
    """The keyframe, real or interpolated, on `frame`; None before the first one.

    keyframes: of a track, in the order of their frames.
    """
    after = bisect_right(keyframes, frame, key=_frame_of)
    if not after:
        return None
    left = keyframes[after - 1]
    if left["frame"] == frame or left["outside"] or after == len(keyframes):
        return left
    right = keyframes[after]
    share = (frame - left["frame"]) / (right["frame"] - left["frame"])
    if left["type"] == "polygon":
        return {**left, "points": polygon_between(left["points"], right["points"], share)}
    if left["type"] == "rectangle":
        turned = rotation_between(left.get("rotation") or 0, right.get("rotation") or 0, share)
        points = rectangle_between(left["points"], right["points"], share)
        return {**left, "points": points, "rotation": turned}
    return left


def is_visible(keyframes: Sequence[Wire], frame: int) -> bool:
    """keyframes: of a track, in the order of their frames."""
    after = bisect_right(keyframes, frame, key=_frame_of)
    return after > 0 and not keyframes[after - 1]["outside"]


def counting_keyframes(job: Job, keyframes: Iterable[Wire]) -> list[Wire]:
    """In the order of their frames, without those on deleted frames, which CVAT passes over."""
    counting = (k for k in keyframes if k["frame"] not in job.deleted_frames)
    return sorted(counting, key=_frame_of)


def track_fault(track: Wire) -> str | None:
    """Why CVAT would answer 500 to every update of a track."""
    on = Counter(int(k["frame"]) for k in track.get("shapes", ()))
    twice = min((f for f, n in on.items() if n > 1), default=None)
    if twice is None:
        return None
    return (
        f"it has two keyframes on frame {twice}, and CVAT takes no changes of such a track; delete "
        "it and draw it again"
    )


def hand_made_frames(track: Wire) -> set[int]:
    """The frames of the keyframes that a person made or changed: those without our signature.

    An older version signed nothing. Of a track of which no keyframe is signed, all are automatic
    if the track's source is `auto`: then nobody edited it. Else it cannot be told, and all count as
    a person's.
    """
    keyframes = track.get("shapes", ())
    unsigned = {int(k["frame"]) for k in keyframes if not is_signed(k)}
    if len(unsigned) == len(keyframes) and track.get("source") == "auto":
        return set()
    return unsigned


def removed_keyframes(job: Job, track: Wire) -> frozenset[int]:
    """The frames whose keyframe a person deleted from a track with one on every frame.

    CVAT does not say which keyframes were deleted. A gap of n frames counts as deleted keyframes if
    - the keyframe right after it is signed, and the one right before it is not `outside`;
    - the stretch of keyframes before it has at least n frames;
    - the stretch after it has more than n, or begins with an `outside` keyframe (the track's end).
    A stretch goes on across gaps that were found already, and each of their frames counts -2
    instead of 1. Longer gaps were never tracked, or belong to sparse keyframes.
    """
    keyframes = {int(k["frame"]): k for k in track["shapes"]}
    first, last = min(keyframes), max(keyframes)
    frames = [f for f in range(first, last + 1) if f not in job.deleted_frames]
    removed: set[int] = set()
    while more := _gaps(keyframes, frames, removed):
        removed |= more
    return frozenset(removed)


def _gaps(keyframes: Mapping[int, Wire], frames: Sequence[int], removed: set[int]) -> set[int]:
    """The frames of deleted keyframes that are found where those of `removed` are known."""

    def weight(stretch: Sequence[int]) -> int:
        return sum(-2 if f in removed else 1 for f in stretch)

    held = groupby(frames, lambda f: f in keyframes or f in removed)
    stretches = [(there, list(on)) for there, on in held]
    found: set[int] = set()
    for (_, before), (there, gap), (_, after) in zip(
        stretches, stretches[1:], stretches[2:], strict=False
    ):
        left, right = keyframes.get(before[-1]), keyframes.get(after[0])
        if there or left is None or right is None or left["outside"] or not is_signed(right):
            continue
        if len(gap) <= weight(before) and (len(gap) < weight(after) or right["outside"]):
            found |= set(gap)
    return found


def _frame_of(shape: Wire) -> int:
    return int(shape["frame"])
